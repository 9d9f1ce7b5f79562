"""The fast network beside the straightforward formulation of the same layers, with the same weights, in one process.

    python benchmarks/formulation.py [--device cuda --dtype bfloat16 [--compile]]

The sides take turns, and the best time of each counts. The difference is the largest between their outputs, which are
of order 1. Peak memory is that of a process for each case: all of it on the CPU, what PyTorch reserves on a GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from network import SHAPES, WF_VAE_S
from vaectl.engine import Limits, keep_freed
from vaectl.geometry import latent_frames
from vaectl.memory import reuse_freed
from vaectl.models import build_model, load_model
from vaectl.models.checkpoint import channels_last
from vaectl.models.piece import Piece
from vaectl.models.placement import choose_device, choose_dtype
from vaectl.models.wfvae import WFVAE

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests import straightforward

MODELS = ("built-in", "WF-VAE-S")
SIDES = ("fast", "straightforward")
JOBS = ("encode", "decode")
TURNS = 5

Run = Callable[[Tensor], Tensor]


def make_model(name: str, device: torch.device, dtype: torch.dtype) -> WFVAE:
    """The built-in model, or WF-VAE-S with random weights: the same ones in every process."""
    if name == "built-in":
        model = load_model(device=device, dtype=dtype)
    else:
        torch.manual_seed(0)
        model = build_model(WF_VAE_S).to(device, dtype).eval()
        state = {key: channels_last(tensor) for key, tensor in model.state_dict().items()}
        model.load_state_dict(state, assign=True)
    assert isinstance(model, WFVAE)
    keep_freed(model, Limits())  # as the commands do
    return model


def make_run(side: str, job: str, model: WFVAE) -> Run:
    """One side's encoder, from video to moments, or decoder, from latent to video."""
    if side == "fast":
        piecewise = model.encode_piece if job == "encode" else model.decode_piece
        return lambda x: piecewise(model.prepare(x), Piece())
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    plain = straightforward.encode if job == "encode" else straightforward.decode
    return lambda x: plain(weights, model.config, x)[0]


def make_input(job: str, model: WFVAE, shape: tuple[int, int, int]) -> Tensor:
    frames, height, width = shape
    size = (1, 3, frames, height, width)
    if job == "decode":
        length = latent_frames(frames, model.config.time_compression)
        size = (1, model.config.latent_dim, length, height // 8, width // 8)
    x = torch.rand(size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x.to(model.device, model.dtype)


def take_turns(runs: list[Callable[[], object]], device: torch.device) -> list[float]:
    """The best time in seconds of each, all warmed up before: what else slows the machine slows all of them alike."""
    best = [float("inf")] * len(runs)
    for _ in range(TURNS):
        for i, run in enumerate(runs):
            synchronize(device)
            begun = time.perf_counter()
            run()
            synchronize(device)
            best[i] = min(best[i], time.perf_counter() - begun)
    return best


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held so far: on a GPU what PyTorch has reserved, else all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def in_another_process(*arguments: str) -> float:
    """This benchmark's output of one number, asked for with other arguments."""
    command = [sys.executable, *sys.argv, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compile", action="store_true", help="both sides through torch.compile")
    parser.add_argument("--peak-of", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype, device)
    reuse_freed()
    torch.set_grad_enabled(False)

    def prepare(side: str, job: str, model: WFVAE) -> Run:
        run = make_run(side, job, model)
        return torch.compile(run, dynamic=False) if arguments.compile else run

    if arguments.peak_of:
        name, shape, side, job = arguments.peak_of
        model = make_model(name, device, dtype)
        prepare(side, job, model)(make_input(job, model, SHAPES[int(shape)]))
        print(peak_memory(device))
        return

    title = (
        f"{device}, {str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    table = Table(title=title + (", compiled" if arguments.compile else ""), box=SIMPLE)
    for column in ("model", "job", "clip", "fast\ns", "plain\ns", "ratio", "differ-\nence", "fast\nGiB", "plain\nGiB"):
        table.add_column(column, justify="right")
    for name in MODELS:
        model = make_model(name, device, dtype)
        for index, (frames, height, width) in enumerate(SHAPES):
            for job in JOBS:
                x = make_input(job, model, (frames, height, width))
                runs = [partial(prepare(side, job, model), x) for side in SIDES]
                fast, plain = (run() for run in runs)
                difference = (fast - plain).abs().max().item()
                fast_seconds, plain_seconds = take_turns(runs, device)
                peaks = [in_another_process("--peak-of", name, str(index), side, job) / 2**30 for side in SIDES]
                table.add_row(
                    name,
                    job,
                    f"{frames}x{height}x{width}",
                    f"{fast_seconds:.2f}",
                    f"{plain_seconds:.2f}",
                    f"{plain_seconds / fast_seconds:.2f}",
                    f"{difference:.1e}",
                    *(f"{peak:.2f}" for peak in peaks),
                )
    Console().print(table)


if __name__ == "__main__":
    main()
