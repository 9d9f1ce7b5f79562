"""What a run is about to do, in a few lines: shown before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vaectl import distributed
from vaectl.data import ClipDataset
from vaectl.options.train import TrainOptions
from vaectl.training.trainer import Trainer


def outline(
    run: Path,
    options: TrainOptions,
    data: ClipDataset,
    trainer: Trainer,
    validation: Sequence[Path],
    checkpoint: Path | None,
) -> list[tuple[str, str]]:
    """Return names and values, at most 60 columns wide unless a path is long. `checkpoint`: what the run resumes."""
    side = options.crop_size or options.resolution
    ranks, accumulated = distributed.world_size(), options.gradient_accumulation_steps
    batch = options.batch_size * ranks * accumulated
    factors = f" ({options.batch_size} x {counted(ranks, 'rank')} x {accumulated} accumulated)"
    start = f"resumed at step {trainer.step}" if trainer.step else "new"
    epochs = trainer.steps * batch / len(data)
    minutes = f" or {options.save_ckpt_minutes:g} min" if options.save_ckpt_minutes else ""
    best = " and the best" if validation else ""
    pixels = options.eval_resolution
    clips = f"{counted(len(validation), 'clip')}, {options.eval_num_frames}x{pixels}x{pixels}"
    return [
        ("run", f"{run} ({start})"),
        ("clips", videos(data)),
        ("model", f"{trainer.model.config.class_name}, {parameters(trainer)}, {origin(options, checkpoint)}"),
        ("device", f"{hardware(trainer.device)}, {str(trainer.precision).removeprefix('torch.')}"),
        ("batch", f"{counted(batch, 'clip')}{factors if batch > options.batch_size else ''}"),
        ("frames", f"{options.num_frames} of {side}x{side} pixels"),
        ("steps", f"{trainer.steps} ({epochs:.{0 if epochs >= 10 else 1}f} epochs of {counted(len(data), 'clip')})"),
        ("validation", f"every {counted(options.eval_steps, 'step')}: {clips}" if validation else "none"),
        ("checkpoints", f"every {counted(options.save_ckpt_step, 'step')}{minutes}; last {options.keep}{best}"),
    ]


def counted(number: int, noun: str) -> str:
    """Return 1 clip, 2 clips."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


def videos(data: ClipDataset) -> str:
    """Return the number of videos and their length, or the number of images if there are no others."""
    return f"{counted(data.videos, 'video')}, {length(data.seconds)}" if data.seconds else counted(data.videos, "image")


def length(seconds: float) -> str:
    """Return the length of videos in hours, or in minutes or seconds if it is short."""
    unit, name = next(((unit, name) for unit, name in ((3600, "hours"), (60, "minutes")) if seconds >= unit), (1, "s"))
    return f"{seconds / unit:.1f} {name}"


def parameters(trainer: Trainer) -> str:
    return f"{sum(parameter.numel() for parameter in trainer.model.parameters()) / 1e6:.3g}M parameters"


def origin(options: TrainOptions, checkpoint: Path | None) -> str:
    """Return where the weights come from."""
    if checkpoint is not None:
        return "resumed"
    if options.model is not None:
        return f"from {options.model}"
    return "new" if options.init == "random" else f"new ({options.init})"


def hardware(device: torch.device) -> str:
    """Return the device with its name, or its number of threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu, {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else str(device)
