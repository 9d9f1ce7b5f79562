"""The context of a step of `benchmarks/gpu.py`: its device, its time, and the rows that it reports.

A step is a list of cases, the most important first. A case that fails, or lacks memory or time, is one row, and the
next case follows. Each row is on disk before the next case starts.
"""

from __future__ import annotations

import gc
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_steps.console import CASE, END, Row, add_row, brief, first_line, mark, say
from vaectl.errors import OutOfMemoryError
from vaectl.memory import peak
from vaectl.shortage import is_memory_shortage

Values = dict[str, Any]
"""The values that a case measured; `passed` makes it a check."""

FEWEST_RUNS, MOST_RUNS = 3, 10
ENOUGH_SECONDS = 2.0
"""Minimum and maximum repetitions of a measurement, and the seconds after which it stops repeating."""


@dataclass(frozen=True)
class Context:
    device: torch.device
    tiny: bool
    """Use tiny shapes, so that a CPU runs every step in a minute."""
    end: float
    """The end of the step, in `time.monotonic()`."""
    ending: float
    """Default for the duration of a case in seconds; with less time left it is skipped."""
    rows: Path
    """The file of JSON lines for the rows."""
    step: str

    @property
    def processes(self) -> float:
        """Seconds for a case that starts processes."""
        return 8.0 if self.tiny else 20.0

    @property
    def dtypes(self) -> list[torch.dtype]:
        """Return the dtypes of the device, the most used first."""
        all_of_them = [torch.bfloat16, torch.float32, torch.float16]
        return all_of_them if self.bfloat16 else all_of_them[1:]

    @property
    def bfloat16(self) -> bool:
        """Whether the device computes in bfloat16 natively."""
        return self.device.type != "cuda" or torch.cuda.get_device_capability(self.device) >= (8, 0)

    def case(
        self, name: str, work: Callable[[], Values], *, seconds: float | None = None, must_fit: bool = False
    ) -> None:
        """Report the values that `work` returns. If they have a `passed`, the row is a check.

        `seconds` is its maximum duration. On a lack of memory it fails if it `must_fit`, else it is skipped.
        """
        self.cases(name, lambda: [(name, work())], seconds=seconds, must_fit=must_fit)

    def cases(
        self,
        name: str,
        work: Callable[[], Iterable[tuple[str, Values]]],
        *,
        seconds: float | None = None,
        must_fit: bool = False,
    ) -> None:
        """Report the rows that `work` yields, each with a name; on failure, a row `name`. See `case`."""
        if time.monotonic() + (self.ending if seconds is None else seconds) >= self.end:
            self.leave_out(name, "no time left")
            return
        mark(f"{CASE}{name}")
        try:
            for row, values in work():
                passed = values.pop("passed", None)
                self._report(row, {None: "measured", True: "passed", False: "failed"}[passed], values=values)
        except Exception as error:  # any failure is a result, and the next case runs
            if not must_fit and (isinstance(error, OutOfMemoryError) or is_memory_shortage(error)):
                self.leave_out(name, f"too little memory: {first_line(error)}")
            else:
                traceback.print_exc()
                self._report(name, "failed", reason=f"{type(error).__name__}: {first_line(error)}")
        mark(END)
        free_memory(self.device)

    def leave_out(self, name: str, reason: str) -> None:
        """Report that a case was not run, and why."""
        self._report(name, "left out", reason=reason)

    def _report(self, name: str, status: str, **more: Any) -> None:
        row: Row = {"step": self.step, "name": name, "status": status, **more}
        add_row(self.rows, row)
        say(f"{self.step:10} {status:9} {name}: {brief(row)}")


def free_memory(device: torch.device) -> None:
    """Free the GPU memory of the last case."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float:
    """Return the peak in GiB: reserved by PyTorch since the start of the case, or of the process on the CPU."""
    return peak(device) / 2**30


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return the median of several runs after a warm-up, by GPU events. On the CPU: one run, by the clock."""
    work()
    times: list[float] = []
    fewest, most = (FEWEST_RUNS, MOST_RUNS) if device.type == "cuda" else (1, 1)
    while len(times) < fewest or (len(times) < most and sum(times) < ENOUGH_SECONDS):
        with timed(device) as seconds:
            work()
        times.append(seconds())
    return statistics.median(times)


@contextmanager
def timed(device: torch.device) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds of the block after its end."""
    if device.type != "cuda":
        begun = time.perf_counter()
        ended = begun
        yield lambda: ended - begun
        ended = time.perf_counter()
        return
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    yield lambda: first.elapsed_time(last) / 1000
    last.record()
    torch.cuda.synchronize(device)


def largest_difference(made: Tensor, expected: Tensor) -> float:
    """Return the maximum absolute difference; infinity if a value is not finite."""
    difference = (made.float().cpu() - expected.float().cpu()).abs().max().item()
    return difference if difference == difference else float("inf")


def psnr(made: Tensor, expected: Tensor) -> float:
    """Return the PSNR in dB of two videos in [-1, 1]; values beyond that are clamped, as in written frames."""
    error = (made.float().cpu().clamp(-1, 1) - expected.float().cpu().clamp(-1, 1)).square().mean()
    return (10 * torch.log10(4 / error)).item()


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
