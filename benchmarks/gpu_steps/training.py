"""Measure time and memory of a training step, and check a run that is killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from common import WF_VAE_S
from gpu_steps.context import Context, Values, free_memory, peak_gib, seconds_of
from gpu_steps.models import narrowed, placed
from gpu_steps.program import start
from gpu_steps.train_clips import losses
from vaectl.models import build_model
from vaectl.options.train import TrainOptions
from vaectl.training.determinism import deterministic_algorithms
from vaectl.training.losses import Objective, ObjectiveConfig
from vaectl.training.trainer import ClipBatch, Trainer

PLAIN = TrainOptions(video_path=(Path(),), perceptual_weight=0.0, disc_weight=0.0, disc_start=0)
ADVERSARIAL = replace(PLAIN, disc_weight=0.5)
DETERMINISTIC = "deterministic"
CASES = {
    "L1, KL, wavelets": PLAIN,
    "and gradient checkpointing": replace(PLAIN, gradient_checkpointing=True),
    "and the adversarial term": ADVERSARIAL,
    "and both": replace(ADVERSARIAL, gradient_checkpointing=True),
    DETERMINISTIC: PLAIN,
}
LPIPS = "and the adversarial term, LPIPS (AlexNet)"
STEPS = 20
COMPILING = 60.0
"""Seconds of a case with compilation."""


def run(context: Context) -> None:
    torch.set_grad_enabled(True)
    frames, side = (5, 32) if context.tiny else (25, 256)
    title = f"step of {frames}x{side}x{side}, "
    for name, options in CASES.items():
        with deterministic_algorithms(name == DETERMINISTIC):
            context.case(title + name, partial(step, context, options, frames, side))
    compiled = title + "L1, KL, wavelets, --compile"
    if context.tiny:
        context.leave_out(compiled, "compiling takes longer than the step")
    else:
        options = replace(PLAIN, compile=True)
        context.case(compiled, partial(step, context, options, frames, side), seconds=COMPILING)
    if find_spec("lpips"):
        options = replace(ADVERSARIAL, perceptual_weight=1.0, lpips_net="alex")
        context.case(title + LPIPS, partial(step, context, options, frames, side))
    else:
        context.leave_out(title + LPIPS, "lpips is not installed")
    context.case(f"{STEPS} steps, killed and resumed", lambda: killed_and_resumed(context), seconds=context.processes)


def step(context: Context, options: TrainOptions, frames: int, side: int) -> Values:
    """Measure WF-VAE-S, batch 1, in bfloat16 if the GPU has it; with a discriminator, a step of each network."""
    precision = torch.float32 if context.tiny or not context.bfloat16 else torch.bfloat16
    free_memory(context.device)
    config = narrowed(WF_VAE_S, context)
    with context.device:
        weights = build_model(config).state_dict()
    model = placed(config, weights, context.device, torch.float32).requires_grad_(True).train()
    terms = ObjectiveConfig(
        perceptual_weight=options.perceptual_weight, lpips_net="alex", disc_weight=options.disc_weight
    )
    trainer = Trainer(model, Objective(terms).to(context.device), options, precision, steps=100)
    batch = torch.randint(0, 256, (1, frames, 3, side, side), dtype=torch.uint8)

    def advance() -> None:
        for number in range(2 if trainer.discriminator_optimizer else 1):
            trainer.advance([ClipBatch(batch, [number])])

    return {"seconds": seconds_of(advance, context.device), "peak GiB": peak_gib(context.device)}


def killed_and_resumed(context: Context) -> Values:
    """Check that a run that is killed and resumed has the same losses as an uninterrupted one."""
    with tempfile.TemporaryDirectory() as place:
        runs = [Path(place) / name for name in ("killed", "whole")]
        arguments = ["--steps", str(STEPS), "--batch", "1", "--device", str(context.device)]
        processes = [start("gpu_steps.train_clips", str(run), *arguments) for run in runs]
        try:
            wait_for_steps(runs[0], 7, processes[0])
            os.kill(processes[0].pid, signal.SIGKILL)
            processes[0].wait()
            before = len(losses(runs[0]))
            processes[0] = start("gpu_steps.train_clips", str(runs[0]), *arguments)
            if any(statuses := [process.wait() for process in processes]):
                raise RuntimeError(f"the runs ended with status {statuses}")
        finally:
            for process in processes:
                process.kill()
        killed, whole = (dict(losses(run)) for run in runs)
    difference = largest_relative(whole, killed)
    return {"killed after step": before, "difference": difference, "passed": difference == 0 and before < STEPS}


def wait_for_steps(run: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    while len(losses(run)) < count:
        if process.poll() is not None:
            raise RuntimeError(f"a run ended early, with status {process.returncode}")
        time.sleep(0.02)


def largest_relative(some: dict[int, float], others: dict[int, float]) -> float:
    """Return the maximum relative difference between the losses of the same steps."""
    if some.keys() != others.keys():
        return float("inf")
    return max(abs(others[step] / loss - 1) for step, loss in some.items())
