"""Measure the cost and the savings of windows and tiles: time, memory, and the difference of the output.

    python benchmarks/tiling.py [--model WF-VAE-S] [--frames 17] [--size 512] [--device cuda --dtype bfloat16]

A model encodes and decodes a clip of noise. The ways run in turns, and the best time of each counts; ratios are
relative to an untiled run. Peak memory is measured in one process per way: resident on the CPU, reserved by PyTorch on
a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from common import in_another_process, take_turns
from formulation import MODELS, TURNS, make_model
from vaectl.allocator import returning_freed
from vaectl.memory import peak, reuse_freed
from vaectl.models.device import choose_device, choose_dtype
from vaectl.models.families.wfvae import WFVAE
from vaectl.tiling.plan import uniform_plan
from vaectl.tiling.storage import Place
from vaectl.tiling.stream import reconstruct_windows

TILE = 256
WINDOW = 8


def in_windows(model: WFVAE, window: int | None, clip: Tensor, *, tile: int = 0, place: Place = "device") -> Tensor:
    """Run in windows of so many frames (None: all), in tiles of so many pixels (0: whole frames)."""
    window = window or clip.shape[2]
    tile //= model.config.space_compression
    plan = uniform_plan(model, *clip.shape[2:], tile, window, place) if tile else None
    return torch.cat(list(reconstruct_windows(model, clip.split(window, dim=2), plan)), dim=2)


WAYS: dict[str, Callable[[WFVAE, Tensor], Tensor]] = {
    "in one go": lambda model, clip: model.reconstruct(clip),
    f"windows of {WINDOW} frames": lambda model, clip: in_windows(model, WINDOW, clip),
    f"tiles of {TILE} pixels": lambda model, clip: in_windows(model, None, clip, tile=TILE),
    "both": lambda model, clip: in_windows(model, WINDOW, clip, tile=TILE),
    "both, state on disk": lambda model, clip: in_windows(model, WINDOW, clip, tile=TILE, place="disk"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    reuse_freed()
    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype, device)
    torch.set_grad_enabled(False)

    model = make_model(arguments.model, device, dtype)
    shape = (1, 3, arguments.frames, arguments.size, arguments.size)
    clip = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with returning_freed(model):  # as the commands do
        measure(arguments, model, clip)


def measure(arguments: argparse.Namespace, model: WFVAE, clip: Tensor) -> None:
    device = model.device
    if arguments.peak_of:
        WAYS[arguments.peak_of](model, clip)
        print(peak(device))
        return

    whole = WAYS["in one go"](model, clip).cpu()
    differences = [(way(model, clip).cpu() - whole).abs().max().item() for way in WAYS.values()]
    seconds = take_turns([partial(way, model, clip) for way in WAYS.values()], device, TURNS)
    table = Table(title=f"{arguments.model}, {arguments.frames} frames of {arguments.size}x{arguments.size}, {device}")
    for column in ("way", "seconds", "ratio", "difference", "peak GiB"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way, difference, taken in zip(WAYS, differences, seconds, strict=True):
        most = in_another_process("--peak-of", way) / 2**30
        table.add_row(way, f"{taken:.2f}", f"{taken / seconds[0]:.2f}", f"{difference:.1e}", f"{most:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
