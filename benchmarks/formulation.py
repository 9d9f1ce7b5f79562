"""Compare the fast network with the straightforward formulation of the same layers, with the same weights.

    python benchmarks/formulation.py [--device cuda --dtype bfloat16 [--compile]]

Both run in one process, in turns; the best time of each counts. The difference is the maximum between their outputs,
which are of order 1. Peak memory is measured in one process per case: resident on the CPU, reserved by PyTorch on a
GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from common import WF_VAE_S, in_another_process, input_of, run_of, take_turns
from vaectl.allocator import reuse_memory
from vaectl.memory import peak, reuse_freed
from vaectl.models import build_model, load_model
from vaectl.models.checkpoint import channels_last
from vaectl.models.device import choose_device, choose_dtype
from vaectl.models.families.wfvae import WFVAE

MODELS = ("built-in", "WF-VAE-S")
SIDES = ("fast", "straightforward")
JOBS = ("encode", "decode")
SHAPES = ((17, 128, 128), (9, 256, 256))
TURNS = 5


def make_model(name: str, device: torch.device, dtype: torch.dtype) -> WFVAE:
    """Return the built-in model, or WF-VAE-S with random weights, which are the same in every process."""
    if name == "built-in":
        model = load_model(device=device, dtype=dtype)
    else:
        torch.manual_seed(0)
        model = build_model(WF_VAE_S).to(device, dtype).eval().requires_grad_(False)
        state = {key: channels_last(tensor) for key, tensor in model.state_dict().items()}
        model.load_state_dict(state, assign=True)
    assert isinstance(model, WFVAE)
    reuse_memory(model, tight=False, limited=False)  # as the commands do
    return model


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

    def prepare(side: str, job: str, model: WFVAE) -> Callable[[Tensor], Tensor]:
        run = run_of(model, job, plain=side == "straightforward")
        return torch.compile(run, dynamic=False) if arguments.compile else run

    if arguments.peak_of:
        name, shape, side, job = arguments.peak_of
        model = make_model(name, device, dtype)
        prepare(side, job, model)(input_of(model, job, SHAPES[int(shape)]))
        print(peak(device))
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
                x = input_of(model, job, (frames, height, width))
                runs = [partial(prepare(side, job, model), x) for side in SIDES]
                fast, plain = (run() for run in runs)
                difference = (fast - plain).abs().max().item()
                fast_seconds, plain_seconds = take_turns(runs, device, TURNS)
                peaks = [in_another_process("--peak-of", name, str(index), side, job) / 2**30 for side in SIDES]
                table.add_row(
                    name,
                    job,
                    f"{frames}x{height}x{width}",
                    f"{fast_seconds:.2f}",
                    f"{plain_seconds:.2f}",
                    f"{plain_seconds / fast_seconds:.2f}",
                    f"{difference:.1e}",
                    *(f"{gib:.2f}" for gib in peaks),
                )
    Console().print(table)


if __name__ == "__main__":
    main()
