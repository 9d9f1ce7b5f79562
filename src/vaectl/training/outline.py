"""What a run is about to do, in a few lines: shown before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vaectl import distributed
from vaectl.data import ClipDataset
from vaectl.models.config import FamilyConfig
from vaectl.models.device import choose_dtype
from vaectl.models.vae import AnyVAE
from vaectl.options.train import TrainOptions


def outline(
    run: Path,
    options: TrainOptions,
    data: ClipDataset,
    model: AnyVAE,
    steps: int,
    validation: Sequence[Path],
    checkpoint: Path | None,
    step: int = 0,
) -> list[tuple[str, str]]:
    """Return names and values, at most 60 columns wide unless a path is long.

    `steps`: those of the whole run. `checkpoint`, `step`: what the run resumes, and where.
    """
    side = options.crop_size or options.resolution
    ranks, accumulated = distributed.world_size(), options.gradient_accumulation_steps
    batch = options.batch_size * ranks * accumulated
    factors = f" ({options.batch_size} x {counted(ranks, 'rank')} x {accumulated} accumulated)"
    start = f"resumed at step {step}" if step else "new"
    precision = str(choose_dtype(options.mix_precision, model.device)).removeprefix("torch.")
    epochs = steps * batch / len(data)
    minutes = f" or {options.save_ckpt_minutes:g} min" if options.save_ckpt_minutes else ""
    best = " and the best" if validation else ""
    pixels = options.eval_resolution
    clips = f"{counted(len(validation), 'clip')}, {options.eval_num_frames}x{pixels}x{pixels}"
    return [
        ("run", f"{run} ({start})"),
        ("clips", videos(data)),
        ("model", f"{model.config.class_name}, {parameters(model)}, {origin(options, checkpoint)}"),
        ("device", f"{hardware(model.device)}, {precision}"),
        ("batch", f"{counted(batch, 'clip')}{factors if batch > options.batch_size else ''}"),
        ("frames", f"{options.num_frames} of {side}x{side} pixels"),
        ("steps", f"{steps} ({epochs:.{0 if epochs >= 10 else 1}f} epochs of {counted(len(data), 'clip')})"),
        ("validation", f"every {counted(options.eval_steps, 'step')}: {clips}" if validation else "none"),
        ("checkpoints", f"every {counted(options.save_ckpt_step, 'step')}{minutes}; last {options.keep}{best}"),
    ]


def changing_statistics(config: FamilyConfig) -> str:
    """Return the fields of the config with statistics of its latents, which training the encoder changes.

    Empty if they say nothing of the latents: shifts of 0, and scales of 1 or the 0.18215 of every Open-Sora config.
    """
    shift, scale = config.latent_statistics
    if {*shift} == {0.0} and {*scale} <= {1.0, 0.18215}:
        return ""
    names = ("latents_mean", "latents_std", "shift", "scale")
    return " and ".join(name for name in names if name in type(config).model_fields)


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


def parameters(model: AnyVAE) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.3g}M parameters"


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
