"""Memory of this machine: what is free, what was used, and how people write it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def return_what_is_freed() -> None:
    """Make the C library give memory back to the system as soon as a tensor is gone.

    The GNU library keeps what blocks of up to 32 MiB leave, in pieces that rarely fit again: with tiles of all sizes
    coming and going a process grew to half as much again as it used. Elsewhere there is nothing to do.
    """
    import ctypes
    import platform

    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**18)


M_MMAP_THRESHOLD = -3  # of malloc.h


def _kilobytes(file: str, field: str) -> int:
    line = next(line for line in Path(file).read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
