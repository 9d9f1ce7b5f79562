"""Check that two ranks train as one rank with twice the batch: with nccl on two GPUs, with gloo on the CPU.

There is no adversarial term, because the BatchNorm of the discriminator has the statistics of one rank.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from gpu_steps.context import Context, Values
from gpu_steps.program import start, start_ranks
from gpu_steps.train_clips import losses
from gpu_steps.training import largest_relative

STEPS = 4
SAME_LOSSES = 1e-4
"""Maximum relative difference: ranks add in another order, and the difference grows with every step."""


def run(context: Context) -> None:
    name = f"two ranks over {'nccl' if context.device.type == 'cuda' else 'gloo'}"
    if context.device.type == "cuda" and torch.cuda.device_count() < 2:
        context.leave_out(name, "needs two GPUs")
    else:
        context.case(name, lambda: two_ranks(context), seconds=context.processes)


def two_ranks(context: Context) -> Values:
    with tempfile.TemporaryDirectory() as place:
        runs = [Path(place) / name for name in ("one", "two")]
        shared = ["--steps", str(STEPS), "--device", context.device.type, "--no-discriminator"]
        processes = [
            start("gpu_steps.train_clips", str(runs[0]), *shared, "--batch", "2"),
            *start_ranks(2, "gpu_steps.train_clips", str(runs[1]), *shared, "--batch", "1"),
        ]
        try:
            if any(statuses := [process.wait() for process in processes]):
                raise RuntimeError(f"ended with status {statuses}")
        finally:
            for process in processes:
                process.kill()
        one, two = (dict(losses(run)) for run in runs)
    difference = largest_relative(one, two)
    return {"difference": difference, "bound": SAME_LOSSES, "passed": difference <= SAME_LOSSES}
