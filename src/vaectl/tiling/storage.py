"""Feature maps of whole clips, kept in memory or in temporary files and read and written part by part."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from vaectl.models.statistics import Statistics
from vaectl.tiling.store import Spool


class Values(Protocol):
    """A row of values of one type."""

    device: torch.device
    """Where they are handed over."""

    def write(self, start: int, values: Tensor) -> None:
        """The values of a contiguous tensor, from the one numbered `start` on."""

    def read(self, start: int, into: Tensor) -> None:
        """The same back, into a contiguous tensor."""


Keep = Callable[[int, torch.dtype], Values]
"""Makes room for that many values of that type, which is given back when they are dropped."""


class InMemory:
    """Values in the memory of a device."""

    def __init__(self, count: int, dtype: torch.dtype, device: torch.device) -> None:
        self.device = device
        self._values = torch.empty(count, dtype=dtype, device=device)

    def write(self, start: int, values: Tensor) -> None:
        self._values[start : start + values.numel()] = values.flatten()

    def read(self, start: int, into: Tensor) -> None:
        into.copy_(self._values[start : start + into.numel()].view_as(into))


class OnDisk:
    """Values in a temporary file. Raises VaectlError when there is no room in it."""

    device = torch.device("cpu")

    def __init__(self, count: int, dtype: torch.dtype) -> None:
        self._size = dtype.itemsize
        self._file = Spool()

    def write(self, start: int, values: Tensor) -> None:
        self._file.write(start * self._size, values.cpu())

    def read(self, start: int, into: Tensor) -> None:
        self._file.read(start * self._size, into)


class Stored(Tensor):
    """A clip (B, C, T, H, W) that is kept elsewhere, frame by frame, channels last: a tensor by its shape alone."""

    kept: Values
    statistics: Statistics | None = None
    """Of the values; of what no norm looks at there may be none."""

    @staticmethod
    def __new__(cls, shape: tuple[int, ...], dtype: torch.dtype, keep: Keep) -> Stored:
        made: Stored = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype)
        made.kept = keep(math.prod(shape), dtype)
        return made

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, keep: Keep) -> None: ...

    @classmethod
    def __torch_dispatch__(cls, *call: Any, **_: Any) -> Any:
        raise TypeError(f"{call[0]}: a stored clip can only be computed on in a stage")

    def write(self, frame: int, row: int, dense_BTHWC: Tensor) -> None:
        """Full-width rows of some frames, from the frame and the row on."""
        for b, frames in enumerate(dense_BTHWC):
            for t, rows in enumerate(frames, start=frame):
                self.kept.write(self._start(b, t, row), rows)

    def read(self, frames: slice, rows: slice) -> Tensor:
        """(B, C, t, h, W), channels-last in memory."""
        b, c, _, _, w = self.shape
        dense = torch.empty(
            (b, frames.stop - frames.start, rows.stop - rows.start, w, c), dtype=self.dtype, device=self.kept.device
        )
        for i, clip in enumerate(dense):
            for t, frame in enumerate(clip, start=frames.start):
                self.kept.read(self._start(i, t, rows.start), frame)
        return dense.permute(0, 4, 1, 2, 3)

    def _start(self, batch: int, frame: int, row: int) -> int:
        _, c, t, h, w = self.shape
        return ((batch * t + frame) * h + row) * w * c
