"""What each stage of a network makes and takes, found by running it on tensors that have shapes and no data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from vaectl.models.context import Piece
from vaectl.models.statistics import Statistics, mean_and_variance
from vaectl.tiling.grid import spans
from vaectl.tiling.stages import Cut, StageByStage, Step, read_rows, run_piece, windows
from vaectl.tiling.trace import Fused, Living


class Rehearsal(StageByStage):
    """A clip without data on its way through a network: finds the steps that `Stages` takes."""

    def __init__(self, rows: int, most: int) -> None:
        """`rows`: of the latent. Pieces take at most `most` bytes, or the least that they can if that is more."""
        super().__init__()
        self._rows = rows
        self._most = most
        self._living = 0
        self.steps: list[Step] = []
        self.peak = 0
        """Bytes of the costliest piece."""
        self.kept = 0
        """Bytes of the clips between stages, at most at a time."""

    def hold(self, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
        """A clip that is held until nobody refers to it."""
        clip = torch.empty((*shape,), dtype=dtype, device="meta")
        self._living += clip.nbytes
        self.kept = max(self.kept, self._living)
        weakref.finalize(clip, self._drop, clip.nbytes)
        return clip

    def _drop(self, size: int) -> None:
        self._living -= size

    def stage(self, function: Callable[..., Any], *inputs: Tensor, margin: int = 0, whole_frames: bool = False) -> Any:
        x = inputs[0]
        with torch.no_grad(), Fused():
            made = function(*inputs, Piece(statistics=unknown(x)))
        results = [self.hold(y.shape, y.dtype) for y in ((made,) if isinstance(made, Tensor) else made)]
        del made
        frames, shapes = x.shape[2], tuple(tuple(result.shape) for result in results)
        scales = [result.shape[3] // self._rows for result in results]

        def overhead(cut: Cut) -> float:
            """What of the work is done twice, and the frames that windows keep for the next."""
            inner_edges = 2 * (-(-self._rows // cut.rows) - 1)
            return (1 + inner_edges * margin / x.shape[3]) * (1 + (cut.frames < frames) / cut.frames)

        def peak(cut: Cut) -> int:
            share = cut.rows / self._rows * cut.frames / frames
            surely = round(share * sum(clip.nbytes for clip in (*inputs, *results)))
            return piece_peak(function, inputs, margin, cut, self._rows, scales) if surely <= self._most else surely

        strips = [self._rows] if whole_frames else halvings(self._rows)
        cuts = [Cut(rows, window) for rows in strips for window in (frames, 8, 4, 2, 1) if window <= frames]
        cut = next((cut for cut in sorted(cuts, key=overhead) if peak(cut) <= self._most), cuts[-1])
        self.peak = max(self.peak, piece_peak(function, inputs, margin, cut, self._rows, scales))
        self.steps.append(Step(cut, shapes))
        return results[0] if len(results) == 1 else tuple(results)

    def reshaped(self, function: Callable[..., Tensor], *inputs_BCTHW: Tensor) -> Tensor:
        x = inputs_BCTHW[0]
        b, c, t, h, w = x.shape
        planes = [self.hold(clip.shape, clip.dtype) for clip in inputs_BCTHW]
        with torch.no_grad(), Fused(), Living() as living:
            function(*(torch.empty((1, c, h * w), dtype=x.dtype, device="meta") for _ in planes))
        frame = x.nbytes // t
        cut = Cut(self._rows, max(1, min(t, self._most // (3 * frame))))
        self.peak = max(self.peak, living.peak, 3 * cut.frames * frame)
        self.steps.append(Step(cut, ((b, c, t, h, w),)))
        return self.hold(x.shape, x.dtype)


def halvings(size: int) -> list[int]:
    """`size`, half of it, and so on to 1."""
    return [-(-size // 2**i) for i in range((size - 1).bit_length() + 1)]


def unknown(x: Tensor) -> Statistics:
    nothing = torch.empty(x.shape[:3], dtype=torch.float64, device="meta")
    return Statistics(1, nothing, nothing)


def piece_peak(
    function: Callable[..., Any], inputs: tuple[Tensor, ...], margin: int, cut: Cut, rows: int, scales: list[int]
) -> int:
    """Bytes that the costliest piece of a stage takes, that of its tallest strip; of `rows` latent ones."""
    x = inputs[0]
    regions = [read_rows(strip, margin, x.shape[3] // rows) for strip in spans(rows, cut.rows)]
    tallest = max(range(len(regions)), key=lambda i: regions[i][0].stop - regions[i][0].start)
    strip, (region, inner) = spans(rows, cut.rows)[tallest], regions[tallest]
    # The first windows make fewer frames than others, the last may make more, and those between are all alike.
    all_windows = [*windows(x.shape[2], cut.frames)]
    peak, before = 0, None
    for frames in [*all_windows[:3], *all_windows[3:][-1:]]:
        last = frames.stop == x.shape[2]
        with torch.no_grad(), Fused(), Living() as living:
            living.watch([*(before or {}).values()])
            piece = Piece(before, last=last, inner=inner, statistics=unknown(x), position=frames.start)
            before = None
            parts = [
                torch.empty(
                    (y.shape[0], frames.stop - frames.start, region.stop - region.start, y.shape[4], y.shape[1]),
                    dtype=y.dtype,
                    device="meta",
                ).permute(0, 4, 1, 2, 3)
                for y in inputs
            ]
            for made in run_piece(function, parts, piece, strip, scales):
                if made.shape[1]:
                    mean_and_variance(made[:, :1])  # goes frame by frame
            del parts, made
        peak, before = max(peak, living.peak), piece.after
    return peak
