"""Compare the networks of Wan 2.1, Wan 2.2 and Qwen-Image with those of diffusers, at their published width.

    python benchmarks/wan.py [--models "Wan 2.1"] [--frames 9] [--size 256] [--device cuda --dtype bfloat16]

Both have the same random weights, encode the same noise and decode the same latent, without tiles. diffusers passes 4
frames at a time through its network; vaectl does the same (windows), or passes the whole clip (whole). All run in one
process, in turns; ratios are times of diffusers divided by those of vaectl, best and median. Peak memory is measured in
one process per way: what the run adds to the weights, resident on the CPU, reserved by PyTorch on a GPU. In float32,
the exit status is 1 if a value differs by more than 1e-4. Values of diffusers are not clamped here.

On a machine that is busy, set OMP_NUM_THREADS=1: threads that wait for each other take most of the time there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from common import all_turns, in_another_process, reset_peak
from vaectl.allocator import reuse_memory
from vaectl.memory import peak, resident, reuse_freed
from vaectl.models import build_model
from vaectl.models.build import FAMILIES
from vaectl.models.checkpoint import channels_last
from vaectl.models.device import choose_device, choose_dtype
from vaectl.models.vae import AnyVAE
from vaectl.tiling.stream import executors, mark_last

WAN_2_2 = {
    **{"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12},
    **{"out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16},
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Wan 2.1": ("AutoencoderKLWan", {}),
    "Wan 2.2": ("AutoencoderKLWan", WAN_2_2),
    "Qwen-Image": ("AutoencoderKLQwenImage", {}),
}
JOBS = ("encode", "decode")
WAYS = ("diffusers", "vaectl, windows", "vaectl, whole")
BOUND = 1e-4
"""Largest difference of a value in float32."""


def diffusers_run(model: Any, job: str, x: Tensor) -> Tensor:
    if job == "encode":
        moments: Tensor = model.encode(x).latent_dist.parameters
        return moments
    with patch.object(torch, "clamp", lambda x, **_: x):
        video: Tensor = model.decode(x).sample
    return video


def vaectl_run(model: AnyVAE, job: str, x: Tensor, window: int) -> Tensor:
    executor = executors(model)[JOBS.index(job)]
    return torch.cat([*executor.run(mark_last(model.prepare(x).split(window, dim=2)))], dim=2)


def their_model(name: str, device: torch.device, dtype: torch.dtype, narrow: dict[str, Any] | None = None) -> Any:
    """Build a model of diffusers with random weights; `narrow` changes its config."""
    from tests.models.oracle import diffusers_class

    family, config = MODELS[name]
    torch.manual_seed(0)
    return diffusers_class(family)(**config | (narrow or {})).to(device, dtype).eval()


def our_model(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    weights: dict[str, Tensor] | None = None,
    narrow: dict[str, Any] | None = None,
) -> AnyVAE:
    family, config = MODELS[name]
    config = config | (narrow or {})
    built = FAMILIES[family].config_class.model_validate(config)
    model = build_model(built).to(device, dtype).eval().requires_grad_(False)
    if weights is not None:
        model.load_state_dict(weights)
    for parameter in model.parameters():
        parameter.data = channels_last(parameter.data)
    reuse_memory(model, tight=False, limited=False)  # as the commands do
    return model


def run_of(way: str, job: str, model: Any, x: Tensor) -> Callable[[], Tensor]:
    if way == "diffusers":
        return partial(diffusers_run, model, job, x)
    frames = model.config.time_compression if job == "encode" else 1
    return partial(vaectl_run, model, job, x, x.shape[2] if way == "vaectl, whole" else frames)


def added_memory(name: str, job: str, way: str, x: Tensor) -> int:
    """Return the bytes that a run adds. In a process of its own."""
    if way == "diffusers":
        model = their_model(name, x.device, x.dtype)
    else:
        reuse_freed()  # as the commands do
        model = our_model(name, x.device, x.dtype)
    before = torch.cuda.memory_reserved(x.device) if x.device.type == "cuda" else resident()
    reset_peak()
    run_of(way, job, model, x)()
    return peak(x.device) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["Wan 2.1"])
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--peak-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype, device)
    torch.set_grad_enabled(False)

    def input_of(name: str, job: str) -> Tensor:
        family, config = MODELS[name]
        sizes = FAMILIES[family].config_class.model_validate(config)
        shape = [1, 3, arguments.frames, arguments.size, arguments.size]
        if job == "decode":
            latent = arguments.size // sizes.space_compression
            shape = [1, sizes.latent_channels, 1 + (arguments.frames - 1) // sizes.time_compression, latent, latent]
        return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(device, dtype)

    if arguments.peak_of:
        name, job, way = arguments.peak_of
        print(added_memory(name, job, way, input_of(name, job)))
        return

    reuse_freed()
    clip = f"{arguments.frames} frames of {arguments.size}x{arguments.size}"
    where = f"{device}, {str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads"
    worst = 0.0
    for name in arguments.models:
        theirs = their_model(name, device, dtype)
        ours = our_model(name, device, dtype, theirs.state_dict())
        table = Table(title=f"{name}, {clip}, {where}", box=SIMPLE)
        for column in ("job", "way", "best\ns", "ratio", "median\ns", "ratio", "differ-\nence", "peak\nGiB"):
            table.add_column(column, justify="left" if column in ("job", "way") else "right")
        for job in JOBS:
            x = input_of(name, job)
            works = [run_of(way, job, theirs if way == "diffusers" else ours, x) for way in WAYS]
            results = [work() for work in works]
            seconds = all_turns(works, device, arguments.turns)
            for way, result, taken in zip(WAYS, results, seconds, strict=True):
                difference = (result - results[0]).abs().max().item()
                worst = max(worst, difference)
                times = [f"{figure:.2f}" for of in (min, median) for figure in (of(taken), of(seconds[0]) / of(taken))]
                added = in_another_process("--peak-of", name, job, way) / 2**30
                table.add_row(job, way, *times, f"{difference:.1e}", f"{added:.2f}")
        Console().print(table)
    if dtype == torch.float32 and not worst <= BOUND:
        sys.exit(f"the outputs differ by {worst:.1e}, more than {BOUND}")


if __name__ == "__main__":
    main()
