"""Profile a decode: the time of its kernels, and where the host waits for the GPU."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from common import Shape, input_of, run_of
from gpu_steps.context import Context, Values
from gpu_steps.memory import noise
from gpu_steps.speed import model_of
from vaectl.engine import HostOverhead, reconstruct_frames
from vaectl.memory import Limits
from vaectl.progress import Silent

KERNELS = 10


def run(context: Context) -> None:
    shape: Shape = (5, 32, 32) if context.tiny else (33, 256, 256)
    dtype = torch.float32 if context.tiny else context.dtypes[0]
    context.cases(f"the {KERNELS} most expensive kernels", lambda: kernels(context, dtype, shape))
    if context.device.type == "cuda":
        context.cases("host synchronizations", lambda: synchronizations(context, dtype, shape))
    else:
        context.leave_out("host synchronizations", "only a GPU is waited for")


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


def synchronizations(context: Context, dtype: torch.dtype, shape: Shape) -> Iterator[tuple[str, Values]]:
    """Return the lines of Python at which the engine makes the host wait for the GPU."""
    model = model_of(context, "S", dtype)
    frames, height, width = shape
    clip = noise(frames, height, width)
    overhead = HostOverhead.of(stored=height * width, frame=height * width, shown=height * width)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            reconstruct_frames(model, clip, Path("clip"), Limits(), overhead, Silent())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = [each for each in caught if "synchronizing" in str(each.message)]
    counts = Counter(f"{Path(each.filename).name}:{each.lineno}" for each in places)
    if not counts:
        yield "the host waits nowhere", {"calls": 0}
    for place, count in counts.most_common():
        yield f"the host waits at {place}", {"calls": count}
