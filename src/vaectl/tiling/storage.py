"""Keep values of the whole clip and causal caches while a clip runs, in memory or in a temporary file."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from copy import copy
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from vaectl.io.spill_file import SpillFile
from vaectl.models.context import CausalCache
from vaectl.models.statistics import Statistics
from vaectl.tiling.grid import Slices

Place = Literal["device", "host", "disk"]
Index: TypeAlias = slice | tuple[slice, ...]


class Room(Protocol):
    """Storage for a tensor that is written and read in parts. A tensor in memory is one."""

    def __setitem__(self, region: Index, values: Tensor, /) -> None: ...
    def __getitem__(self, region: Index, /) -> Tensor: ...
    def view(self, shape: Sequence[int], /) -> Room: ...


MakeRoom = Callable[[Sequence[int], torch.dtype], Room]


def memory_room(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Allocate storage for a tensor in memory."""
    return torch.empty(shape, dtype=dtype, device=device)


class DiskTensor:
    """A tensor in a file, written and read in slices. Raises VaectlError when the disk is full."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, file: SpillFile | None = None) -> None:
        """Reserve space in `file`, which other tensors may share; by default in a file of its own."""
        self.shape, self.dtype, self._file = torch.Size(shape), dtype, file or SpillFile()
        self._start = self._file.allocate(math.prod(shape) * dtype.itemsize)

    @classmethod
    def of(cls, values: Tensor, file: SpillFile) -> DiskTensor:
        """Write values to the file."""
        made = cls(values.shape, values.dtype, file)
        made[:] = values
        return made

    def __setitem__(self, region: Index, values: Tensor) -> None:
        ranges = bounds(self.shape, region)
        values = values.to("cpu", self.dtype).expand([len(each) for each in ranges]).contiguous()
        for start, run in runs(self.shape, ranges, values):
            self._file.write(self._start + start * self.dtype.itemsize, as_bytes(run))

    def __getitem__(self, region: Index) -> Tensor:
        ranges = bounds(self.shape, region)
        values = torch.empty([len(each) for each in ranges], dtype=self.dtype)
        for start, run in runs(self.shape, ranges, values):
            self._file.read(self._start + start * self.dtype.itemsize, as_bytes(run))
        return values

    def view(self, shape: Sequence[int]) -> DiskTensor:
        """Return the same values in another shape."""
        other = copy(self)
        other.shape = torch.Size(shape)
        return other


def bounds(shape: Sequence[int], region: Index) -> list[range]:
    """Return the positions that an index takes along each dimension."""
    slices = region if isinstance(region, tuple) else (region,)
    slices += (slice(None),) * (len(shape) - len(slices))
    return [range(size)[each] for size, each in zip(shape, slices, strict=True)]


def runs(shape: Sequence[int], ranges: Sequence[range], block: Tensor, start: int = 0) -> Iterator[tuple[int, Tensor]]:
    """Yield the parts of a block that are contiguous in the whole tensor, each with the position of its first value."""
    size = math.prod(shape[1:])
    start += ranges[0].start * size
    if all(len(each) == count for each, count in zip(ranges[1:], shape[1:], strict=True)):
        yield start, block
    else:
        for i, part in enumerate(block):
            yield from runs(shape[1:], ranges[1:], part, start + i * size)


def as_bytes(dense: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor."""
    row = dense.as_strided((dense.numel(),), (1,))  # a single position may have any strides
    return row.view(torch.uint8).numpy().data


class OffloadedTensor:
    """A value of the whole clip, (B, C, T, H, W), stored frame by frame, channels last; written and read in parts."""

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        make_room: MakeRoom,
        gather: Callable[[Tensor], Statistics] | None = None,
    ) -> None:
        """Allocate it. `gather` computes the statistics of each part that is written, (B, T, H, W, C), for a norm."""
        b, c, t, h, w = self.shape = torch.Size(shape)
        self.dtype = dtype
        self._room = make_room((b, t, h, w, c), dtype)
        self._gather = gather
        self._statistics: dict[int, Statistics] = {}

    @property
    def statistics(self) -> Statistics:
        """Statistics of all frames, once they have been written."""
        if len(self._statistics) > 1:
            self._statistics = {0: Statistics.of_frames([*self._statistics.values()])}
        return self._statistics[0]

    def write(self, frame: int, region: Slices, x_BCTHW: Tensor) -> None:
        """Write a tile of frames, the first with index `frame`. Windows come in order, each with all of its tiles.

        Raises ValueError for frames after the end of the clip.
        """
        stop = frame + x_BCTHW.shape[2]
        if stop > self.shape[2]:
            raise ValueError(f"a clip of {self.shape[2]} frames was planned, and more have come")
        dense = x_BCTHW.permute(0, 2, 3, 4, 1).contiguous()
        self._room[slice(None), slice(frame, stop), region[0], region[1]] = dense
        if self._gather and dense.shape[1]:
            made, others = self._gather(dense), self._statistics.get(frame)
            self._statistics[frame] = made if others is None else others.with_positions(made)

    def read(self, frames: slice, region: Slices | None = None) -> Tensor:
        """Return a copy, (B, C, t, h, w), channels-last in memory; of whole frames without a `region`."""
        rows, columns = region or (slice(None), slice(None))
        dense = self._room[slice(None), frames, rows, columns]
        return (dense.clone() if isinstance(self._room, Tensor) else dense).permute(0, 4, 1, 2, 3)


class HostTensor:
    """A tensor in pinned host memory, written and read as a whole.

    Copies between it and a GPU run in the order of the GPU's work, and the host waits for none of them.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.shape = torch.Size(shape)
        self._values = torch.empty(self.shape.numel(), dtype=dtype, pin_memory=torch.cuda.is_available())

    def __setitem__(self, region: slice, values: Tensor) -> None:
        self[region].copy_(values.contiguous(), non_blocking=True)

    def __getitem__(self, region: slice) -> Tensor:
        return self._values[: self.shape.numel()].view(self.shape)[region]

    def view(self, shape: Sequence[int]) -> HostTensor:
        """Return the same memory in another shape, which may have fewer values."""
        other = copy(self)
        other.shape = torch.Size(shape)
        return other


class StateStore:
    """Causal caches that wait for the next window on their device, each under a key."""

    def __init__(self) -> None:
        self._caches: dict[Hashable, CausalCache] = {}

    def put(self, key: Hashable, cache: CausalCache) -> None:
        """Keep a cache under `key`."""
        self._caches[key] = cache

    def get(self, key: Hashable) -> CausalCache:
        """Remove and return the cache under `key`, on its own device; an empty one if there is none."""
        return self._caches.pop(key, {})


class HostStateStore(StateStore):
    """Causal caches that wait in host memory: each layer of a tile writes to the same place in every window."""

    def __init__(self) -> None:
        self._rooms: dict[tuple[Hashable, nn.Module], HostTensor | DiskTensor] = {}
        self._waiting: dict[Hashable, dict[nn.Module, tuple[HostTensor | DiskTensor, torch.device]]] = {}

    def make_room(self, shape: Sequence[int], dtype: torch.dtype) -> HostTensor | DiskTensor:
        return HostTensor(shape, dtype)

    def clear(self) -> None:
        """Free all places: the next group has other caches."""
        self._rooms.clear()

    def put(self, key: Hashable, cache: CausalCache) -> None:
        if cache:
            self._waiting[key] = {layer: (self._write(key, layer, x), x.device) for layer, x in cache.items()}
        elif not self._waiting:  # the last tile of a group
            self.clear()

    def _write(self, key: Hashable, layer: nn.Module, x_BCTHW: Tensor) -> HostTensor | DiskTensor:
        dense = x_BCTHW.permute(0, 2, 3, 4, 1)
        room = self._rooms.get((key, layer))
        if room is None or room.shape.numel() < dense.numel():
            room = self._rooms[key, layer] = self.make_room(dense.shape, dense.dtype)
        written = room.view(dense.shape)
        written[:] = dense
        return written

    def get(self, key: Hashable) -> CausalCache:
        waiting = ((layer, written[:], device) for layer, (written, device) in self._waiting.pop(key, {}).items())
        return {
            layer: x.to(device, non_blocking=x.is_pinned()).permute(0, 4, 1, 2, 3)  # else it may be freed too early
            for layer, x, device in waiting
        }


class DiskStateStore(HostStateStore):
    """Causal caches that wait in a temporary file. Raises VaectlError when the disk is full."""

    def __init__(self) -> None:
        super().__init__()
        self._file = SpillFile()

    def make_room(self, shape: Sequence[int], dtype: torch.dtype) -> DiskTensor:
        return DiskTensor(shape, dtype, self._file)

    def clear(self) -> None:
        super().clear()
        self._file.clear()


STORES: dict[Place, type[StateStore]] = {"device": StateStore, "host": HostStateStore, "disk": DiskStateStore}
