"""Models that look at the whole clip, stage by stage: all of a clip goes through one stage before the next begins.

A stage (`Piece.stage`) lies between one norm over the clip and the next. Once the statistics of what goes in are known,
such a norm is as local as everything else, so a stage runs in strips of rows and windows of frames. What it makes is
kept outside (`storage.py`), and its statistics are gathered on the way. The result is that of the whole clip, up to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, nn

from vaectl.models.blocks import Attention
from vaectl.models.context import Piece, Sides, TimeState
from vaectl.models.layers import GroupNorm, Layer
from vaectl.models.statistics import Statistics
from vaectl.tiling.grid import Span, spans
from vaectl.tiling.storage import Keep, Stored


@dataclass(frozen=True)
class Cut:
    """How a stage is cut up."""

    rows: int
    """Latent rows of a strip, at most."""
    frames: int
    """Frames of a window of what goes in, at most."""


@dataclass(frozen=True)
class Step:
    """What has to be known of a stage before it runs."""

    cut: Cut
    shapes: tuple[tuple[int, ...], ...]
    """Of its results, (B, C, T, H, W), for one clip."""


class StageByStage(Piece):
    """Runs networks with layers that look at the whole clip: what does not is one stage."""

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        if any(isinstance(layer, GroupNorm | Attention) for layer in block.modules()):
            result: Tensor = block(x, self)
        else:
            result = self.stage(block, x, margin=cast(Layer, block).margin_before(0))
        return result


class Stages(StageByStage):
    """Runs them, on clips that are `Stored`."""

    def __init__(self, steps: Iterable[Step], rows: int, device: torch.device, keep: Keep) -> None:
        """`steps`: of all stages in order; `rows`: of the latent; `device`: of the model."""
        super().__init__()
        self._steps = iter(steps)
        self._rows = rows
        self._device = device
        self._keep = keep

    def stage(self, function: Callable[..., Any], *inputs: Tensor, margin: int = 0, whole_frames: bool = False) -> Any:
        x, *_ = clips = cast(tuple[Stored, ...], inputs)
        step = next(self._steps)
        results = [Stored((x.shape[0], *shape[1:]), x.dtype, self._keep) for shape in step.shapes]
        scales = [result.shape[3] // self._rows for result in results]

        def run_strip(strip: Span) -> list[Statistics]:
            """Write the strip of all results; of each the statistics."""
            rows, inner = read_rows(strip, margin, x.shape[3] // self._rows)
            before: TimeState | None = None
            ends = [0] * len(results)
            gathered: list[list[Statistics]] = [[] for _ in results]
            for frames in windows(x.shape[2], step.cut.frames):
                last = frames.stop == x.shape[2]
                piece = Piece(before, last=last, inner=inner, statistics=x.statistics, position=frames.start)
                before = None  # what a layer has used of it is freed at once
                parts = [clip.read(frames, rows).to(self._device) for clip in clips]
                for i, made in enumerate(run_piece(function, parts, piece, strip, scales)):
                    if made.shape[1] == 0:
                        continue
                    results[i].write(ends[i], scales[i] * strip.start, made)
                    ends[i] += made.shape[1]
                    gathered[i].append(Statistics.of(made))
                before = piece.after
                del parts, made, piece  # not to be there beside the next ones
            return [Statistics.of_frames(parts) for parts in gathered]

        strips = [run_strip(strip) for strip in spans(self._rows, step.cut.rows)]
        for result, statistics in zip(results, zip(*strips, strict=True), strict=True):
            result.statistics = reduce(Statistics.with_rows, statistics)
        return results[0] if len(results) == 1 else tuple(results)

    def reshaped(self, function: Callable[..., Tensor], *inputs_BCTHW: Tensor) -> Tensor:
        """Kept once more in the order of the reshaping, where each of the B·T parts is read and written in one go."""
        clips = cast(tuple[Stored, ...], inputs_BCTHW)
        b, c, t, h, w = clips[0].shape
        step = next(self._steps)
        planes = [self._keep(clip.numel(), clip.dtype) for clip in clips]
        for clip, values in zip(clips, planes, strict=True):
            for frames in windows(t, step.cut.frames):
                part = clip.read(frames, slice(0, h)).flatten(0, 1)
                for i, plane in enumerate(part):
                    values.write((i * t + frames.start) * h * w, plane.contiguous())
        size = c * h * w
        for i in range(b * t):
            parts = [torch.empty((1, c, h * w), dtype=clips[0].dtype, device=values.device) for values in planes]
            for part, values in zip(parts, planes, strict=True):
                values.read(i * size, part)
            made = function(*(part.to(self._device) for part in parts))
            planes[0].write(i * size, made.contiguous())
        result = Stored((b, c, t, h, w), clips[0].dtype, self._keep)
        for frames in windows(t, step.cut.frames):
            part = torch.empty((b * c, frames.stop - frames.start, h, w), dtype=result.dtype, device=planes[0].device)
            for i, plane in enumerate(part):
                planes[0].read((i * t + frames.start) * h * w, plane)
            result.write(frames.start, 0, part.reshape(b, c, -1, h, w).permute(0, 2, 3, 4, 1).contiguous())
        return result


def windows(frames: int, most: int) -> Iterator[slice]:
    return (slice(start, min(start + most, frames)) for start in range(0, frames, most))


def read_rows(strip: Span, margin: int, scale: int) -> tuple[slice, Sides]:
    """The rows to read for a strip, `scale` to a latent one, and on which sides it has a margin."""
    rows, above, below = strip.read(margin, scale)
    return rows, Sides(above, below)


def run_piece(
    function: Callable[..., Any], parts: list[Tensor], piece: Piece, strip: Span, scales: list[int]
) -> list[Tensor]:
    """The strip alone of each of the function's results, (B, T, H, W, C), contiguous."""
    made = function(*parts, piece)
    results: tuple[Tensor, ...] = (made,) if isinstance(made, Tensor) else made
    return [
        result[..., strip.cut(result.shape[3], bool(piece.inner.top), bool(piece.inner.bottom), scale), :]
        .permute(0, 2, 3, 4, 1)
        .contiguous()
        for result, scale in zip(results, scales, strict=True)
    ]
