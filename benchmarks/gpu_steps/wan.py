"""Measure Wan 2.1 and 2.2 at their published width, whole and in windows, next to diffusers if it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from gpu_steps.context import Context, Values, dtype_name, free_memory, largest_difference, peak_gib, seconds_of
from vaectl.models.vae import AnyVAE
from wan import BOUND, JOBS, WAYS, our_model, run_of, their_model

NAMES = ("Wan 2.1", "Wan 2.2")
NARROW = {"Wan 2.1": {"base_dim": 8}, "Wan 2.2": {"base_dim": 8, "decoder_base_dim": 8}}
SECONDS = 30.0
"""Seconds of a case at full width."""


def run(context: Context) -> None:
    peer = find_spec("diffusers") is not None
    if not peer:
        context.leave_out("diffusers", "not installed: install it to compare with it")
    dtypes = [torch.float32] if context.tiny else [each for each in context.dtypes if each != torch.float16]
    for dtype in dtypes:
        for name in NAMES:
            title = f"{name}, {dtype_name(dtype)}"
            work = partial(compare, context, name, dtype, peer)
            context.cases(title, work, seconds=None if context.tiny else SECONDS)


def compare(context: Context, name: str, dtype: torch.dtype, peer: bool) -> Iterator[tuple[str, Values]]:
    """Yield a row for each job and way. In float32, all ways must give the same numbers."""
    narrow = NARROW[name] if context.tiny else {}
    theirs = their_model(name, context.device, dtype, narrow) if peer else None
    ours = our_model(name, context.device, dtype, theirs.state_dict() if theirs else None, narrow)
    for job in JOBS:
        x, expected, first = input_of(context, ours, job), None, 0.0
        for way in WAYS if peer else WAYS[1:]:
            model: Any = theirs if way == WAYS[0] else ours
            work = run_of(way, job, model, x)
            free_memory(context.device)
            made = work()
            difference = largest_difference(made, made if expected is None else expected)
            expected = made if expected is None else expected
            del made
            seconds = seconds_of(work, context.device)
            first = first or seconds
            values: Values = {"ms": 1000 * seconds, "ratio": first / seconds, "peak GiB": peak_gib(context.device)}
            values["difference"] = difference
            if dtype == torch.float32:
                values["passed"] = difference <= BOUND
            yield f"{name}, {job} {'x'.join(map(str, clip(context)))}, {dtype_name(dtype)}, {way}", values


def clip(context: Context) -> tuple[int, int, int]:
    return (5, 32, 32) if context.tiny else (17, 480, 832)


def input_of(context: Context, model: AnyVAE, job: str) -> Tensor:
    frames, height, width = clip(context)
    shape = (1, 3, frames, height, width)
    if job == "decode":
        scale, latent = model.config.space_compression, 1 + (frames - 1) // model.config.time_compression
        shape = (1, model.config.latent_channels, latent, height // scale, width // scale)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x.to(model.device, model.dtype)
