"""Memory of this machine: available, used, the limits that options set, and as text."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vaectl.errors import shown

if TYPE_CHECKING:
    from ctypes import CDLL

    import torch

LEAST_LIMIT = 2**20
"""Bytes. No model runs within less, so a smaller limit is a mistake."""


class MemoryOptions(Protocol):
    """Options that set how much memory to use."""

    @property
    def enable_tiling(self) -> bool: ...
    @property
    def memory_limit(self) -> int | None: ...
    @property
    def save_memory(self) -> bool: ...


@dataclass(frozen=True)
class Limits:
    """How much memory to use."""

    tiled: bool = False
    memory_limit: int | None = None
    """Bytes; None for most of the free memory."""
    low_memory: bool = False
    """Use as little as possible, even if the run takes longer."""

    @classmethod
    def of(cls, options: MemoryOptions) -> Limits:
        """Build limits from options; a limit or low memory implies tiles."""
        tiled = options.enable_tiling or options.save_memory or options.memory_limit is not None
        return cls(tiled, options.memory_limit, options.save_memory)


def parse_size(text: str) -> int:
    """Parse an amount of memory in bytes: `6GiB` and `6G` (powers of 1024), `6GB` (powers of 1000), or `6000000000`.

    Raises ValueError for anything else, and for less than `LEAST_LIMIT`.
    """
    found = re.fullmatch(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([kmgt]?)(i?)(b?)\s*", text, re.IGNORECASE)
    if found is None or (found[3] and not found[2]) or float(found[1]) == 0:
        raise ValueError(f"give an amount of memory as 6GiB, 500MiB or in bytes, not {shown(repr(text))}")
    base = 1000 if found[4] and not found[3] else 1024
    count = int(float(found[1]) * base ** " kmgt".index(found[2].lower() or " "))
    if count < LEAST_LIMIT and not found[2]:
        raise ValueError(f"{text.strip()} what? give a unit, as in {found[1]}GiB or {found[1]}MiB")
    if count < LEAST_LIMIT:
        raise ValueError(f"must be at least {format_size(LEAST_LIMIT)}, not {text.strip()}")
    return count


def format_size(count: int, *, at_least: bool = False) -> str:
    """Format bytes as MiB or GiB, rounded to nearest; with `at_least` rounded up, for a required amount."""
    if count < 2**20:
        return f"{count} B"
    unit, name, digits = (2**30, "GiB", 2) if count >= 2**30 else (2**20, "MiB", 0)
    figure = math.ceil(count * 10**digits / unit) / 10**digits if at_least else count / unit
    return f"{figure:.{digits}f} {name}"


def format_limit(count: int) -> str:
    """Format a limit as it was typed, if it is a whole number of MB, with its binary units; else as `format_size`."""
    if count % 10**6 or count % 2**20 == 0:
        return format_size(count)
    unit, name = (10**9, "GB") if count % 10**8 == 0 and count >= 10**9 else (10**6, "MB")
    return f"{count / unit:.10g}{name} ({format_size(count)})"


def peak(device: torch.device) -> int:
    """Return the peak memory since the process started, in bytes: resident on the CPU, reserved by PyTorch on a GPU."""
    import resource
    import sys

    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "linux":
        # getrusage also counts the process before exec, for example a fork of a large process.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident() -> int:
    """Return the resident memory of the process in bytes; the peak, if the system does not report it."""
    import torch

    return _kilobytes(STATUS, "VmRSS") if Path(STATUS).is_file() else peak(torch.device("cpu"))


STATUS = "/proc/self/status"


def obtainable(device: torch.device) -> int:
    """Return the bytes that this process can hold on `device`: free memory plus its own."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if not Path("/proc/meminfo").is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = min([_kilobytes("/proc/meminfo", "MemAvailable"), *left_to_groups()])
    return free + resident()


def left_to_groups(root: Path = Path("/")) -> list[int]:
    """Return the bytes left in the control groups of this process (a container, a SLURM job, a systemd unit).

    One value for each group with a limit, innermost first (https://docs.kernel.org, cgroup-v2 and cgroup-v1/memory).
    """
    left = []
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        limit, use = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        )
        for group in (Path(name.lstrip("/")), *Path(name.lstrip("/")).parents):
            folder = version / group
            if (folder / limit).is_file() and (text := (folder / limit).read_text().strip()).isdigit():
                # Cached file contents are evicted when memory is needed.
                cached = re.findall(
                    r"^(?:total_)?inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE
                )
                taken = int((folder / use).read_text()) - max(map(int, cached), default=0)
                left.append(max(0, int(text) - taken))
    return left


def reuse_freed(largest: int = 2**26) -> None:
    """Make glibc keep freed blocks of up to `largest` bytes for reuse, and return larger ones to the OS.

    New pages cost up to a third of the time of a network on the CPU. By default glibc keeps blocks of at most 32 MiB,
    separately for each thread. Kept blocks fragment the heap, so `largest` must be small if memory is short. Has no
    effect on other C libraries.
    """
    if library := _glibc():
        library.mallopt(M_ARENA_MAX, 1)  # threads share free blocks
        library.mallopt(M_TRIM_THRESHOLD, -1)
        library.mallopt(M_MMAP_THRESHOLD, largest)


def return_freed() -> None:
    """Return free heap memory to the OS (malloc_trim)."""
    if library := _glibc():
        library.malloc_trim(0)


def expand_segments() -> None:
    """Turn on expandable segments in PyTorch's CUDA allocator, to reduce fragmentation. Call it before importing torch.

    For 6.2 GiB of tensors of a clip on an H200, PyTorch reserved 6.9 GiB instead of 8.5. A setting in the environment
    is kept. The setting has two names because PyTorch renamed it.
    """
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    if not any(name in os.environ for name in names):
        os.environ.update(dict.fromkeys(names, "expandable_segments:True"))


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h


@cache
def _glibc() -> CDLL | None:
    import ctypes
    import platform

    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _kilobytes(file: str, field: str) -> int:
    line = next(line for line in Path(file).read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
