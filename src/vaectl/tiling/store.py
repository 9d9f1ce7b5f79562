"""Where the time state of tiles waits for the next window, in memory or on disk; and the file that serves for that.

The file has no name in the file system, so nothing is left of it however the process ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Hashable
from typing import Protocol

import torch
from torch import Tensor, nn

from vaectl.errors import VaectlError
from vaectl.models.context import TimeState


class Store(Protocol):
    """Keeps states between windows. A state comes back on the device that it was on, once."""

    def put(self, key: Hashable, state: TimeState) -> None: ...

    def get(self, key: Hashable) -> TimeState | None:
        """The state under `key`, None if there is none."""


class InMemory:
    """State where it was made, or in the memory of another device."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self._states: dict[Hashable, tuple[TimeState, torch.device]] = {}

    def put(self, key: Hashable, state: TimeState) -> None:
        if state:
            made_on = next(iter(state.values())).device
            self._states[key] = (moved(state, self._device or made_on), made_on)

    def get(self, key: Hashable) -> TimeState | None:
        if key not in self._states:
            return None
        state, made_on = self._states.pop(key)
        return moved(state, made_on)


def moved(state: TimeState, device: torch.device) -> TimeState:
    return {layer: frames.to(device) for layer, frames in state.items()}


class OnDisk:
    """State in a temporary file. Raises VaectlError when there is no room in it."""

    def __init__(self) -> None:
        self._file = Spool()
        self._end = 0
        self._places: dict[Hashable, tuple[int, int]] = {}
        self._states: dict[Hashable, list[tuple[nn.Module, torch.Size, torch.dtype, torch.device]]] = {}

    def put(self, key: Hashable, state: TimeState) -> None:
        if not state:
            return
        size = sum(frames.nbytes for frames in state.values())
        start, room = self._places.get(key, (0, -1))
        if size > room:
            start, self._end = self._end, self._end + size
            self._places[key] = (start, size)
        for frames in state.values():
            self._file.write(start, frames.permute(0, 2, 3, 4, 1).contiguous().cpu())
            start += frames.nbytes
        self._states[key] = [(layer, frames.shape, frames.dtype, frames.device) for layer, frames in state.items()]

    def get(self, key: Hashable) -> TimeState | None:
        if key not in self._states:
            return None
        start = self._places[key][0]
        state: dict[nn.Module, Tensor] = {}
        for layer, (b, c, t, h, w), dtype, device in self._states.pop(key):
            frames = torch.empty((b, t, h, w, c), dtype=dtype)
            self._file.read(start, frames)
            start += frames.nbytes
            state[layer] = frames.to(device).permute(0, 4, 1, 2, 3)
        return state


def spool_folder() -> str:
    """Where large temporary files go: not to /tmp unless told so, which is often in memory itself."""
    large = "/var/tmp"
    return os.environ.get("TMPDIR") or (large if os.access(large, os.W_OK) else tempfile.gettempdir())


class Spool:
    """A file in the folder for large temporary files. Raises VaectlError when there is no room in it."""

    def __init__(self) -> None:
        folder = spool_folder()
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
                f"{spool_folder()}: no room for what does not fit into memory ({error.strerror}); free some,"
                " set TMPDIR to another folder, or raise --memory-limit"
            ) from None

    def read(self, start: int, dense: Tensor) -> None:
        """The same back, into a contiguous tensor."""
        self._file.seek(start)
        transfer(self._file.readinto, as_bytes(dense))


def as_bytes(dense: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return dense.flatten().view(torch.uint8).numpy().data


def transfer(move: Callable[[memoryview], int | None], data: memoryview) -> None:
    """All of `data` to or from a raw file, whose `write` and `readinto` may stop half-way: when its disk is full."""
    while data:
        count = move(data)
        if not count:
            raise EOFError(f"{len(data)} bytes of state are missing")
        data = data[count:]
