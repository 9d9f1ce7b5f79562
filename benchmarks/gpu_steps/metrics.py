"""Measure the metrics of `vaectl eval` on the device, and compare their numbers with the CPU."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import torch

from gpu_steps.context import Context, Values, seconds_of
from gpu_steps.memory import noise
from vaectl.metrics import MetricSettings, build
from vaectl.metrics.metric import FrameMetric

NEEDS = {"psnr": None, "ssim": None, "ms_ssim": None, "flicker": None, "lpips": "lpips"}
SAME = 1e-3
"""Maximum relative difference."""


def run(context: Context) -> None:
    for name, package in NEEDS.items():
        if package and find_spec(package) is None:
            context.leave_out(name, f"{package} is not installed")
        else:
            context.case(name, partial(measure, context, name))


def measure(context: Context, name: str) -> Values:
    real = noise(3, 176, 176) if context.tiny else noise(33, 256, 256)
    levels = torch.randint(-9, 10, real.shape, generator=torch.Generator().manual_seed(1))
    made = (real + levels).clamp(0, 255).byte()
    results, rates = [], []
    for device in (context.device, torch.device("cpu")):
        (metric,) = build([name], MetricSettings(), device).values()
        assert isinstance(metric, FrameMetric)
        work = partial(metric.measure, real, made)
        results.append(work())
        rates.append(real.shape[1] / seconds_of(work, device))
    difference = (results[0] / results[1] - 1).abs().max().item()
    values = {"frames/s": rates[0], "on the CPU": rates[1], "relative difference": difference}
    return values | {"passed": difference <= SAME}
