"""Profile a decode: the time of its kernels, and where the host waits for the GPU."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from common import Shape, input_of, run_of
from gpu_steps.context import Context, Values
from gpu_steps.memory import noise
from gpu_steps.speed import model_of
from vaectl.engine import Run, _run_windows
from vaectl.tiling.plan import uniform_plan
from vaectl.tiling.storage import Place

KERNELS = 10
LOOPS: dict[str, Place | None] = {"whole frames": None, "tiles": "device", "tiles, state on host": "host"}


def run(context: Context) -> None:
    shape: Shape = (5, 32, 32) if context.tiny else (33, 256, 256)
    dtype = torch.float32 if context.tiny else context.dtypes[0]
    context.cases(f"the {KERNELS} most expensive kernels", lambda: kernels(context, dtype, shape))
    if context.device.type == "cuda":
        for name, place in LOOPS.items():
            context.cases(f"{name}: waits of the host", partial(synchronizations, context, dtype, name, place))
    else:
        context.leave_out("waits of the host", "only a GPU is waited for")


def kernels(context: Context, dtype: torch.dtype, shape: Shape) -> Iterator[tuple[str, Values]]:
    """Return the kernels of a decode that take the most time."""
    model = model_of(context, "S", dtype)
    decode, z = run_of(model, "decode", plain=False), input_of(model, "decode", shape)
    decode(z)  # exclude the time to choose kernels
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (context.device.type == "cuda")
    with profile(activities=activities) as profiler:
        decode(z)
    times = [(event, own_time(context, event)) for event in profiler.key_averages()]
    total = sum(microseconds for _, microseconds in times)
    if total == 0:
        raise RuntimeError("the profiler sees no kernels; does the system let it read the GPU's counters?")
    for event, microseconds in sorted(times, key=lambda each: each[1], reverse=True)[:KERNELS]:
        yield event.key[:100], {"ms": microseconds / 1000, "share": microseconds / total, "calls": event.count}


def own_time(context: Context, event: Any) -> float:
    """Return the microseconds of a kernel itself."""
    if context.device.type == "cpu":
        return float(event.self_cpu_time_total)
    if event.device_type != torch.autograd.DeviceType.CUDA:
        return 0.0  # an operator; its kernels have their own entries
    return float(event.self_device_time_total)


def synchronizations(
    context: Context, dtype: torch.dtype, name: str, place: Place | None
) -> Iterator[tuple[str, Values]]:
    """Check that the loop over windows never makes the host wait for the GPU; else return the lines that do."""
    model = model_of(context, "S", dtype)
    frames = noise(33, 256, 256)
    plan = uniform_plan(model, 33, 256, 256, tile=16, window=8, place=place) if place else None
    run = Run(model, 8, plan, lambda _: None)

    def loop() -> None:
        for _ in _run_windows(run, frames.split(8, dim=1), None, Path("clip")):
            pass

    loop()  # exclude the time to choose kernels and to allocate memory
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            loop()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = [each for each in caught if "synchronizing" in str(each.message)]
    counts = Counter(f"{Path(each.filename).name}:{each.lineno}" for each in places)
    if not counts:
        yield f"{name}: the host waits nowhere", {"calls": 0, "passed": True}
    for line, count in counts.most_common():
        yield f"{name}: the host waits at {line}", {"calls": count, "passed": False}
