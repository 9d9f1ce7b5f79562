"""Networks and training steps: WF-VAE-S next to the published code, Wan 2.1 next to diffusers, bfloat16, layers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from io import StringIO
from typing import Any

import torch
from torch import Tensor

import wan as wan_benchmark
from common import Shape, flops, input_of, run_of, take_turns, text_of
from common.published import published_model, published_run
from common.rates import measure_rates
from formulation import make_model
from layers import REST, add_up
from performance_sections.rows import AnyRow, LayerRow, LeftOut, Options, Row
from vaectl.models import build_model
from vaectl.models.families.wfvae import WFVAE
from vaectl.options.train import TrainOptions
from vaectl.training.setup import objective_of, trainer_of
from vaectl.training.trainer import ClipBatch

CPU = torch.device("cpu")
TINY_SHAPES: tuple[Shape, ...] = ((5, 32, 32),)
NO_CLONE = LeftOut("the published code", "give a clone of PKU-YuanGroup/WF-VAE with --published")


def shapes_for(options: Options) -> Sequence[Shape]:
    return TINY_SHAPES if options.tiny else options.shapes


def model_for(options: Options) -> tuple[str, WFVAE]:
    name = "built-in" if options.tiny else "WF-VAE-S"
    return name, make_model(name, CPU, torch.float32)


@torch.no_grad()
def networks(job: str, options: Options) -> Iterator[AnyRow]:
    """Encode video to moments, or decode a latent, in float32, without tiles and windows."""
    limit = measure_rates(options.clock, small=options.tiny).convolution
    name, model = model_for(options)
    if options.published is None:
        yield NO_CLONE
    peer = None if options.published is None else published_model(options.published, model)
    for shape in shapes_for(options):
        x = input_of(model, job, shape)
        runs: list[Callable[[], Tensor]] = [partial(run_of(model, job, plain=False), x)]
        if peer is not None:
            runs.append(published_run(peer, job, x))
        results = [run() for run in runs]
        seconds = take_turns(runs, CPU, options.turns, options.clock)
        yield Row(
            what=job,
            on=f"{name}, {text_of(shape)}",
            seconds=seconds[0],
            peer="published" if peer is not None else "",
            peer_seconds=seconds[1] if peer is not None else None,
            work=work_of(model, job, x),
            limit=limit,
            difference=(results[0] - results[1]).abs().max().item() if peer is not None else None,
        )


def work_of(model: Any, job: str, x: Tensor) -> int:
    """Count the operations of a job, on tensors without data."""
    with torch.device("meta"):
        twin = build_model(model.config)
    run = twin.encode if job == "encode" else twin.decode
    return flops(lambda: run(x.to("meta", torch.float32)))


def training(options: Options) -> Iterator[AnyRow]:
    """A step with L1, KL and wavelet losses and AdamW, in float32."""
    limit = measure_rates(options.clock, small=options.tiny).convolution
    if options.published is None:
        yield NO_CLONE
    for batch, shape in [(2, (5, 32, 32))] if options.tiny else [(1, (9, 128, 128)), (2, (17, 64, 64))]:
        frames, size, _ = shape
        name, model = model_for(options)
        steps = [our_step(model, batch, frames, size)]
        if options.published is not None:
            peer = published_model(options.published, model)
            steps.append(published_step(peer, batch, frames, size))
        for step in steps:
            step()  # creates the state of the optimizer
        seconds = take_turns(steps, CPU, options.turns, options.clock)
        clip = input_of(model, "encode", shape)
        with torch.no_grad():
            latent = model.encode(clip).mean
        yield Row(
            what="training step",
            on=f"{name}, {text_of(shape)}, batch {batch}",
            seconds=seconds[0],
            peer="published" if len(steps) > 1 else "",
            peer_seconds=seconds[1] if len(steps) > 1 else None,
            # Backward: the gradient of the input and that of the weight.
            work=3 * batch * (work_of(model, "encode", clip) + work_of(model, "decode", latent)),
            limit=limit,
        )


def our_step(model: WFVAE, batch: int, frames: int, size: int) -> Callable[[], object]:
    chosen = TrainOptions(
        video_path=(),
        num_frames=frames,
        resolution=size,
        perceptual_weight=0.0,
        disc_weight=0.0,
        wavelet_loss=True,
    )
    trainer = trainer_of(model.train(), objective_of(chosen, CPU), chosen, steps=100)
    clips = torch.randint(0, 256, (batch, frames, 3, size, size), dtype=torch.uint8)
    return lambda: trainer.advance([ClipBatch(clips, [*range(batch)])])


def published_step(model: Any, batch: int, frames: int, size: int) -> Callable[[], object]:
    """The same losses: its own loss class would need weights of LPIPS that it downloads."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5)
    x = torch.rand(batch, 3, frames, size, size) * 2 - 1

    def step() -> None:
        with redirect_stdout(StringIO()):  # it prints shapes
            made = model(x)
        first, first_made, second, second_made = made.extra_output
        wavelets = (first - first_made).abs().sum() + (second - second_made).abs().sum()
        loss = (made.sample - x).abs().sum() / batch / frames + 1e-6 * made.latent_dist.kl().mean()
        optimizer.zero_grad()
        (loss + 0.1 * wavelets / batch).backward()
        optimizer.step()

    return step


@torch.no_grad()
def wan(options: Options) -> Iterator[AnyRow]:
    """Wan 2.1 at its published width, in windows of 4 frames on both sides, as `vaectl reconstruct` runs it."""
    if find_spec("diffusers") is None:
        yield LeftOut("diffusers", "is not installed")
        return
    limit = measure_rates(options.clock, small=options.tiny).convolution
    if options.tiny:
        wan_benchmark.MODELS["tiny"] = ("AutoencoderKLWan", {"base_dim": 8})
    name = "tiny" if options.tiny else "Wan 2.1"
    theirs = wan_benchmark.their_model(name, CPU, torch.float32)
    ours = wan_benchmark.our_model(name, CPU, torch.float32, theirs.state_dict())
    frames, size = (5, 32) if options.tiny else (9, 256)
    for job in wan_benchmark.JOBS:
        x = torch.rand(1, 3, frames, size, size) * 2 - 1
        if job == "decode":
            x = ours.encode(x).mean
        runs = [
            wan_benchmark.run_of(way, job, theirs if way == "diffusers" else ours, x)
            for way in ("vaectl, windows", "diffusers")
        ]
        results = [run() for run in runs]
        seconds = take_turns(runs, CPU, options.turns, options.clock)
        yield Row(
            what=job,
            on=f"{name}, {frames}x{size}x{size}",
            seconds=seconds[0],
            peer="diffusers",
            peer_seconds=seconds[1],
            work=work_of(ours, job, x),
            limit=limit,
            difference=(results[0] - results[1]).abs().max().item(),
        )


@torch.no_grad()
def bfloat16(options: Options) -> Iterator[AnyRow]:
    """The built-in model, which is narrow, and WF-VAE-S in bfloat16, next to vaectl in float32."""
    for name in ("built-in",) if options.tiny else ("built-in", "WF-VAE-S"):
        half, exact = (make_model(name, CPU, dtype) for dtype in (torch.bfloat16, torch.float32))
        for shape in shapes_for(options)[:2]:
            for job in ("encode", "decode"):
                runs = [
                    partial(run_of(model, job, plain=False), input_of(model, job, shape)) for model in (half, exact)
                ]
                for run in runs:
                    run()
                seconds = take_turns(runs, CPU, options.turns, options.clock)
                yield Row(f"{job}, bfloat16", f"{name}, {text_of(shape)}", seconds[0], "vaectl, float32", seconds[1])


@torch.no_grad()
def layers(options: Options) -> Iterator[AnyRow]:
    """The time of each kind of layer, next to the least time that this machine can need for it."""
    rates = measure_rates(options.clock, small=options.tiny)
    _, model = model_for(options)
    for shape in shapes_for(options)[:2]:
        for job in ("encode", "decode"):
            run = partial(run_of(model, job, plain=False), input_of(model, job, shape))
            rows, _ = add_up(run, rates, options.clock, options.turns)
            kinds: dict[str, list[Any]] = defaultdict(list)
            for layer, row in rows.items():
                kinds[kind_of(layer, shape)].append(row)
            for kind, found in kinds.items():
                least = tuple(map(sum, zip(*(row.least for row in found), strict=True)))
                seconds, work = sum(row.seconds for row in found), sum(row.work for row in found)
                yield LayerRow(job, text_of(shape), kind, seconds, work, least)


def kind_of(layer: str, shape: Shape) -> str:
    """Return the kind of a row of `layers.py`: for a convolution, its kernel and the size of its output."""
    found = re.fullmatch(r"(\S+) +\d+ to +\d+ +\d+x(\d+)x\d+", layer)
    if found is None:
        return {REST: "the rest"}.get(layer, layer)
    return f"{found[1]} at 1/{round(shape[1] / int(found[2]))} of the size"
