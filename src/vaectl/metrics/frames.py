"""Helpers of the metrics: measure frames in batches that fit into memory, in float32 without TF32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    if real_BTCHW.shape != generated_BTCHW.shape or real_BTCHW.ndim != 5:
        raise ValueError(f"no pair of clips: {tuple(real_BTCHW.shape)} and {tuple(generated_BTCHW.shape)}")
    if real_BTCHW.dtype != torch.uint8 or generated_BTCHW.dtype != torch.uint8:
        raise ValueError(f"frames must be 8-bit, not {real_BTCHW.dtype} and {generated_BTCHW.dtype}")
    real, generated = real_BTCHW.flatten(0, 1), generated_BTCHW.flatten(0, 1)
    size = max(1, pixels // max(1, real.shape[-2] * real.shape[-1]))
    with torch.inference_mode(), exact_float32():
        numbers = [
            measure(a.to(device), b.to(device)).cpu().double()
            for a, b in zip(torch.split(real, size), torch.split(generated, size), strict=True)
            if len(a)
        ]
    return torch.cat(numbers or [torch.empty(0, dtype=torch.float64)]).view(real_BTCHW.shape[:2])


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
