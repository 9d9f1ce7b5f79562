"""Helpers of the metrics: measure frames in batches that fit into memory, in float32 without TF32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from vaectl.errors import UsageError


def per_frame(
    measure: Callable[[Tensor, Tensor], Tensor],
    real_BTCHW: Tensor,
    generated_BTCHW: Tensor,
    device: torch.device,
    pixels: int,
) -> Tensor:
    """Apply `measure` to every frame: (B, T) float64, on the CPU.

    `measure` maps two (N, C, H, W) uint8 on `device` to (N,). It gets at most `pixels` pixels of each side at a time,
    but at least one frame. Raises ValueError for clips of different shapes, or not uint8.
    """
    return per_frame_of_all(lambda a, b: [measure(a, b[0])], real_BTCHW, [generated_BTCHW], device, pixels)[0]


def per_frame_of_all(
    measure: Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]],
    real_BTCHW: Tensor,
    generated: Sequence[Tensor],
    device: torch.device,
    pixels: int,
) -> list[Tensor]:
    """Apply `measure`, which compares frames with those of several candidates, as `per_frame` does: one result each."""
    for clips in generated:
        check_pair(real_BTCHW, clips)
    size = max(1, pixels // max(1, real_BTCHW.shape[-2] * real_BTCHW.shape[-1]))
    sides = [torch.split(clips.flatten(0, 1), size) for clips in (real_BTCHW, *generated)]
    with torch.inference_mode(), exact_float32():
        numbers = [
            [each.cpu().double() for each in measure(real.to(device), [side.to(device) for side in others])]
            for real, *others in zip(*sides, strict=True)
            if len(real)
        ]
    empty = torch.empty(0, dtype=torch.float64)
    return [
        torch.cat([part[index] for part in numbers] or [empty]).view(real_BTCHW.shape[:2])
        for index in range(len(generated))
    ]


def check_pair(real_BTCHW: Tensor, generated_BTCHW: Tensor) -> None:
    """Raise ValueError for clips of different shapes, or not uint8."""
    if real_BTCHW.shape != generated_BTCHW.shape or real_BTCHW.ndim != 5:
        raise ValueError(f"no pair of clips: {tuple(real_BTCHW.shape)} and {tuple(generated_BTCHW.shape)}")
    if real_BTCHW.dtype != torch.uint8 or generated_BTCHW.dtype != torch.uint8:
        raise ValueError(f"frames must be 8-bit, not {real_BTCHW.dtype} and {generated_BTCHW.dtype}")


def at_least(side: int, frames: Tensor, metric: str) -> None:
    """Raise UsageError for frames (..., H, W) with a side of fewer than `side` pixels."""
    height, width = frames.shape[-2:]
    if min(height, width) < side:
        raise UsageError(
            f"{metric} needs frames of at least {side}x{side} pixels, not {width}x{height}", "give larger ones"
        )


@contextmanager
def exact_float32() -> Iterator[None]:
    """Disable TF32 inside the block: cuDNN rounds float32 to TF32 by default."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
