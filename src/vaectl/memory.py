"""Memory of this machine: what is free, what was used, and how people write it."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import CDLL

    import torch

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_size(text: str) -> int:
    """Bytes of `6GiB`, `500M`, `1.5 g` (all in powers of 1024) or `6000000000`. Raises ValueError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise ValueError(f"give an amount of memory as 6GiB, 500MiB or in bytes, not {text!r}")
    return int(float(found[1]) * UNITS[found[2].lower()])


def format_size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def peak(device: torch.device) -> int:
    """Bytes at most since the process began: of the process on the CPU, reserved by PyTorch on a GPU."""
    import resource
    import sys

    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "linux":
        # getrusage counts what the process was before it became this program, such as a fork of a large one.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def obtainable(device: torch.device) -> int:
    """Bytes that this process may come to hold on `device`: what is free and what it has already."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if not Path("/proc/meminfo").is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    amounts = [_kilobytes("/proc/meminfo", "MemAvailable") + _kilobytes("/proc/self/status", "VmRSS")]
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            amounts.append(int(text))
    return min(amounts)


def reuse_freed(largest: int = 2**26) -> None:
    """Make the C library keep freed blocks of up to `largest` bytes for what comes next, and return larger ones.

    To find and clear pages for new tensors takes the system up to a third of the time of a network on the CPU; by
    itself the GNU library keeps blocks of 32 MiB at most, and for each thread its own. But what is kept has gaps: where
    memory is short, `largest` has to be small. Other libraries are left as they are.
    """
    if library := _glibc():
        library.mallopt(M_ARENA_MAX, 1)  # one thread's free blocks serve the others
        library.mallopt(M_TRIM_THRESHOLD, -1)
        library.mallopt(M_MMAP_THRESHOLD, largest)


def return_freed() -> None:
    """Make the C library return what it kept: the gaps of one piece of work rarely suit the next."""
    if library := _glibc():
        library.malloc_trim(0)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h


@cache
def _glibc() -> CDLL | None:
    import ctypes
    import platform

    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _kilobytes(file: str, field: str) -> int:
    line = next(line for line in Path(file).read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
