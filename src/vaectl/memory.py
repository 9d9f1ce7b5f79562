"""Memory of this machine: what is free, what was used, and how people write it."""

from __future__ import annotations

import math
import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vaectl.errors import shown

if TYPE_CHECKING:
    from ctypes import CDLL

    import torch

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_size(text: str) -> int:
    """Bytes of `6GiB`, `500M`, `1.5 g` (all in powers of 1024) or `6000000000`. Raises ValueError for anything else."""
    found = re.fullmatch(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE)
    count = int(float(found[1]) * UNITS[found[2].lower()]) if found else 0
    if count == 0:
        raise ValueError(f"give an amount of memory as 6GiB, 500MiB or in bytes, not {shown(repr(text))}")
    return count


def format_size(count: int, *, at_least: bool = False) -> str:
    """Bytes for people, to the nearest figure that is shown; `at_least`: to the next higher one, for what is needed."""
    unit, name, digits = (2**30, "GiB", 2) if count >= 2**30 else (2**20, "MiB", 0)
    figure = math.ceil(count * 10**digits / unit) / 10**digits if at_least else count / unit
    return f"{figure:.{digits}f} {name}"


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


def resident() -> int:
    """Bytes of memory that the process holds now; where the system does not say, the most it has held."""
    import torch

    return _kilobytes(STATUS, "VmRSS") if Path(STATUS).is_file() else peak(torch.device("cpu"))


STATUS = "/proc/self/status"


def obtainable(device: torch.device) -> int:
    """Bytes that this process may come to hold on `device`: what is free and what it has already."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if not Path("/proc/meminfo").is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = min([_kilobytes("/proc/meminfo", "MemAvailable"), *left_to_groups()])
    return free + resident()


def left_to_groups(root: Path = Path("/")) -> list[int]:
    """Bytes that the control groups of this process may still take: of a container, a job of SLURM, a systemd unit.

    One for each group with a limit, from its own up (https://docs.kernel.org, cgroup-v2 and cgroup-v1/memory).
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
                # What was read of files stays in memory until that is wanted.
                cached = re.findall(
                    r"^(?:total_)?inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE
                )
                taken = int((folder / use).read_text()) - max(map(int, cached), default=0)
                left.append(max(0, int(text) - taken))
    return left


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


def expand_segments() -> None:
    """Let PyTorch's allocator for GPUs grow its segments, which leaves hardly any gaps between tensors.

    Without this a clip reserved 8.5 GiB for 6.2 GiB of tensors on an H200; with it, 6.9. Call it before torch is
    imported. What the environment says already is kept. The setting has two names because PyTorch renamed it.
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
