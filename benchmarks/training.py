"""Measure training steps of WF-VAE-S on 9 frames of 128x128: time and peak memory for several objectives.

    python benchmarks/training.py [--device cuda]

Times are measured in one process, in turns; the best round counts, and ratios are relative to the first row. Peaks are
measured in one process per case. The last line is a real run with two data workers on the 720p clip, and the share of
time spent waiting for clips.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from common import WF_VAE_S
from vaectl.memory import peak
from vaectl.models import build_model, save_model
from vaectl.models.device import choose_device
from vaectl.options.train import TrainOptions
from vaectl.progress import Silent
from vaectl.training.job import train
from vaectl.training.setup import objective_of, placed, trainer_of
from vaectl.training.trainer import ClipBatch, Trainer

CLIP = Path(".samples/bigbuckbunny.mp4")
PLAIN = TrainOptions(
    video_path=(CLIP,),
    num_frames=9,
    resolution=128,
    sample_rate=1,
    perceptual_weight=0.0,
    disc_weight=0.0,
    wavelet_loss=True,
    lpips_net="alex",
    disc_start=0,
    num_workers=2,
)
CASES = {
    "L1, KL, wavelets": PLAIN,
    "the same, gradient checkpointing": replace(PLAIN, gradient_checkpointing=True),
    "with LPIPS (alex)": replace(PLAIN, perceptual_weight=1.0),
    "with LPIPS and the adversarial term": replace(PLAIN, perceptual_weight=1.0, disc_weight=0.5),
}
ROUNDS = 2


def trainer_for(options: TrainOptions, device: torch.device) -> Trainer:
    model = placed(build_model(WF_VAE_S), device).train()
    return trainer_of(model, objective_of(options, device), options, steps=1)


def step(trainer: Trainer) -> float:
    """Time a step of the generator; with an adversarial term, also the step of the discriminator."""
    frames = torch.randint(0, 256, (1, 9, 3, 128, 128), dtype=torch.uint8)
    begun = time.perf_counter()
    trainer.advance([ClipBatch(frames, [0])])
    if trainer.discriminator_optimizer:
        trainer.advance([ClipBatch(frames, [1])])
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    if arguments.case:
        trainer = trainer_for(CASES[arguments.case], device)
        for _ in range(2):
            step(trainer)
        print(peak(device))
        return

    times = {case: [] for case in CASES}
    for attempt in range(ROUNDS + 1):
        for case, options in CASES.items():
            trainer = trainer_for(options, device)
            step(trainer)  # creates the state of the optimizer
            times[case] += [step(trainer)] * bool(attempt)
            del trainer
            gc.collect()
    table = Table(title=f"WF-VAE-S, 9 frames of 128x128, batch 1, {device}")
    for name in ("objective", "seconds", "ratio", "clips/s", "peak GiB"):
        table.add_column(name, justify="left" if name == "objective" else "right")
    first = min(times[next(iter(CASES))])
    for case in CASES:
        command = [sys.executable, __file__, "--device", str(device), "--case", case]
        peak_memory = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        best = min(times[case])
        steps = 2 if CASES[case].disc_weight else 1
        table.add_row(case, f"{best:.2f}", f"{best / first:.2f}", f"{steps / best:.2f}", f"{peak_memory / 2**30:.2f}")
    Console().print(table)

    with tempfile.TemporaryDirectory() as folder:
        save_model(build_model(WF_VAE_S), Path(folder) / "model")
        options = replace(PLAIN, model=Path(folder) / "model", ckpt_dir=Path(folder), max_steps=8)
        result = train(options, Silent())
    print(f"a run of {result.step} steps with two data workers: {result.waiting:.1%} of it waiting for clips")


if __name__ == "__main__":
    main()
