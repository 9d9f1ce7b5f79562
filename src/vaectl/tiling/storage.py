"""What waits while a clip is run: values of the whole clip, and causal caches; in memory or in a file.

The file has no name in the file system, so nothing is left of it however the process ends.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from vaectl.errors import VaectlError
from vaectl.models.context import CausalCache
from vaectl.models.statistics import Statistics
from vaectl.tiling.grid import Slices

Place = Literal["device", "host", "disk"]


class Buffer(Protocol):
    """A row of values of one type."""

    def write(self, start: int, values: Tensor) -> None:
        """The values of a contiguous tensor, from the one numbered `start` on."""

    def read(self, start: int, into: Tensor) -> None:
        """The same back, into a contiguous tensor on `device`."""

    @property
    def device(self) -> torch.device: ...


MakeBuffer = Callable[[int, torch.dtype], Buffer]
"""Makes room for that many values of that type, which is given back when they are dropped."""


class MemoryBuffer:
    """Values in the memory of a device."""

    def __init__(self, count: int, dtype: torch.dtype, device: torch.device) -> None:
        self.device = device
        self._values = torch.empty(count, dtype=dtype, device=device)

    def write(self, start: int, values: Tensor) -> None:
        self._values[start : start + values.numel()] = values.flatten()

    def read(self, start: int, into: Tensor) -> None:
        into.copy_(self._values[start : start + into.numel()].view_as(into))


class DiskBuffer:
    """Values in a temporary file. Raises VaectlError when there is no room in it."""

    device = torch.device("cpu")

    def __init__(self, _count: int, dtype: torch.dtype) -> None:
        self._size = dtype.itemsize
        self._file = SpillFile()

    def write(self, start: int, values: Tensor) -> None:
        self._file.write(start * self._size, values.cpu())

    def read(self, start: int, into: Tensor) -> None:
        self._file.read(start * self._size, into)


class OffloadedTensor:
    """A value of the whole clip, (B, C, T, H, W), kept frame by frame, channels last, and written and read in parts."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, make: MakeBuffer, *, statistics: bool = False) -> None:
        """`statistics`: gather them of what is written, for a norm."""
        self.shape, self.dtype = torch.Size(shape), dtype
        self._buffer = make(math.prod(shape), dtype)
        self._gather = statistics
        self._statistics: dict[int, Statistics] = {}

    @property
    def statistics(self) -> Statistics:
        """Of all frames, when they have been written."""
        if len(self._statistics) > 1:
            self._statistics = {0: Statistics.of_frames([*self._statistics.values()])}
        return self._statistics[0]

    def write(self, frame: int, place: Slices, x_BCTHW: Tensor) -> None:
        """A tile of some frames, from `frame` on. Windows come in order, each with all of its tiles.

        Raises ValueError for frames beyond the clip's.
        """
        if frame + x_BCTHW.shape[2] > self.shape[2]:
            raise ValueError(f"a clip of {self.shape[2]} frames was planned, and more have come")
        dense = x_BCTHW.permute(0, 2, 3, 4, 1).contiguous()
        for start, part in self._rows(frame, place, dense):
            self._buffer.write(start, part)
        if self._gather and dense.shape[1]:
            made, others = Statistics.of(dense), self._statistics.get(frame)
            self._statistics[frame] = made if others is None else others.with_positions(made)

    def read(self, frames: slice, place: Slices | None = None) -> Tensor:
        """(B, C, t, h, w), channels-last in memory; whole frames if no place is given."""
        b, c, _, h, w = self.shape
        place = place or (slice(0, h), slice(0, w))
        rows, columns = place
        size = (b, frames.stop - frames.start, rows.stop - rows.start, columns.stop - columns.start, c)
        dense = torch.empty(size, dtype=self.dtype, device=self._buffer.device)
        for start, part in self._rows(frames.start, place, dense):
            self._buffer.read(start, part)
        return dense.permute(0, 4, 1, 2, 3)

    def _rows(self, frame: int, place: Slices, dense_BTHWC: Tensor) -> Iterator[tuple[int, Tensor]]:
        """What is in one place in the buffer: its first value's number, and the values."""
        (_, c, t, h, w), (rows, columns) = self.shape, place
        for b, frames in enumerate(dense_BTHWC):
            for i, part in enumerate(frames, frame):
                first = (b * t + i) * h + rows.start
                if columns == slice(0, w):
                    yield first * w * c, part
                else:
                    for j, row in enumerate(part):
                        yield ((first + j) * w + columns.start) * c, row


class StateStore(Protocol):
    """Causal caches that wait for the next window. A cache comes back on the device that it was on, once."""

    def put(self, key: Hashable, cache: CausalCache) -> None: ...

    def get(self, key: Hashable) -> CausalCache | None:
        """The cache under `key`, None if there is none."""


class MemoryStore:
    """Caches where they were made, or in the memory of another device."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self._caches: dict[Hashable, tuple[CausalCache, torch.device]] = {}

    def put(self, key: Hashable, cache: CausalCache) -> None:
        if cache:
            made_on = next(iter(cache.values())).device
            self._caches[key] = (moved(cache, self._device or made_on), made_on)

    def get(self, key: Hashable) -> CausalCache | None:
        return moved(*self._caches.pop(key)) if key in self._caches else None


def moved(cache: CausalCache, device: torch.device) -> CausalCache:
    return {layer: frames.to(device) for layer, frames in cache.items()}


class DiskStore:
    """Caches in a temporary file. Raises VaectlError when there is no room in it."""

    def __init__(self) -> None:
        self._file = SpillFile()
        self._end = 0
        self._places: dict[Hashable, tuple[int, int]] = {}
        self._caches: dict[Hashable, list[tuple[nn.Module, torch.Size, torch.dtype, torch.device]]] = {}

    def put(self, key: Hashable, cache: CausalCache) -> None:
        if not cache:
            return
        size = sum(frames.nbytes for frames in cache.values())
        start, room = self._places.get(key, (0, -1))
        if size > room:
            start, self._end = self._end, self._end + size
            self._places[key] = (start, size)
        for frames in cache.values():
            self._file.write(start, frames.permute(0, 2, 3, 4, 1).contiguous().cpu())
            start += frames.nbytes
        self._caches[key] = [(layer, frames.shape, frames.dtype, frames.device) for layer, frames in cache.items()]

    def get(self, key: Hashable) -> CausalCache | None:
        if key not in self._caches:
            return None
        start = self._places[key][0]
        cache: dict[nn.Module, Tensor] = {}
        for layer, (b, c, t, h, w), dtype, device in self._caches.pop(key):
            frames = torch.empty((b, t, h, w, c), dtype=dtype)
            self._file.read(start, frames)
            start += frames.nbytes
            cache[layer] = frames.to(device).permute(0, 4, 1, 2, 3)
        return cache


def spill_folder() -> str:
    """Where large temporary files go: to TMPDIR, else not to /tmp, which is often in memory itself."""
    large = "/var/tmp"
    return os.environ.get("TMPDIR") or (large if os.access(large, os.W_OK) else tempfile.gettempdir())


class SpillFile:
    """A file in the folder for large temporary files. Raises VaectlError when there is no room in it."""

    def __init__(self) -> None:
        folder = spill_folder()
        try:
            self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 - lives as long as this object
        except OSError as error:
            raise VaectlError(
                f"{folder}: no temporary file to save memory with ({error.strerror}); set TMPDIR to another folder"
            ) from None

    def write(self, start: int, dense: Tensor) -> None:
        """The values of a contiguous tensor in host memory, from the byte `start` on."""
        self._file.seek(start)
        try:
            transfer(self._file.write, as_bytes(dense))
        except OSError as error:
            raise VaectlError(
                f"{spill_folder()}: no room for what does not fit into memory ({error.strerror}); free some,"
                " set TMPDIR to another folder, or raise --memory-limit"
            ) from None

    def read(self, start: int, dense: Tensor) -> None:
        """The same back, into a contiguous tensor."""
        self._file.seek(start)
        transfer(self._file.readinto, as_bytes(dense))


def as_bytes(dense: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    row = dense.as_strided((dense.numel(),), (1,))  # the strides of a single position may be any
    return row.view(torch.uint8).numpy().data


def transfer(move: Callable[[memoryview], int | None], data: memoryview) -> None:
    """All of `data` to or from a raw file, whose `write` and `readinto` may stop half-way: when its disk is full."""
    while data:
        count = move(data)
        if not count:
            raise EOFError(f"{len(data)} bytes of state are missing")
        data = data[count:]
