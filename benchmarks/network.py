"""Measure frames per second and GFLOP/s of encode and decode with WF-VAE-S, compared with a large matrix product.

    python benchmarks/network.py [--device cuda] [--dtype bfloat16]

The product is measured in the same process and dtype just before each case; the last column is the rate of the network
relative to it. It may exceed 100 %, because on AMD processors convolutions use a faster library than products. FLOPs
are those of the convolutions and products of the network, counting a multiplication and an addition as two; on the CPU
wide convolutions need fewer (models/winograd.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from common import WF_VAE_S, take_turns
from vaectl.allocator import keep_freed
from vaectl.memory import peak, reuse_freed
from vaectl.models import build_model
from vaectl.models.checkpoint import channels_last
from vaectl.models.device import choose_device, choose_dtype

SHAPES = ((17, 128, 128), (9, 256, 256))


def flops(work: Callable[[], object]) -> int:
    # With gradients, convolutions run directly; without, wide ones use fewer operations, which are not counted.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOP/s of a square matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / seconds(lambda: a @ a, device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    work()
    return take_turns([work], device)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype, device)

    reuse_freed()
    torch.set_grad_enabled(False)
    with torch.device("meta"):
        twin = build_model(WF_VAE_S)
    model = build_model(WF_VAE_S).to(device, dtype).eval()
    model.load_state_dict({name: channels_last(tensor) for name, tensor in model.state_dict().items()}, assign=True)
    keep_freed(model, tight=False)  # as the commands do

    table = Table(title=f"WF-VAE-S on {device} in {str(dtype).removeprefix('torch.')}")
    for column in ("job", "frames", "size", "seconds", "frames/s", "GFLOP/s", "product GFLOP/s", "share"):
        table.add_column(column, justify="right")
    for frames, height, width in SHAPES:
        video = torch.rand(1, 3, frames, height, width, device=device, dtype=dtype) * 2 - 1
        latent = model.encode(video).mean
        jobs = {
            "encode": (lambda x=video: model.encode(x), lambda x=video: twin.encode(x)),
            "decode": (lambda z=latent: model.decode(z), lambda z=latent: twin.decode(z)),
        }
        for job, (work, count) in jobs.items():
            product = product_rate(device, dtype)
            taken, operations = seconds(work, device), flops(count)
            table.add_row(
                job,
                str(frames),
                f"{height}x{width}",
                f"{taken:.2f}",
                f"{frames / taken:.2f}",
                f"{operations / taken / 1e9:.0f}",
                f"{product / 1e9:.0f}",
                f"{operations / taken / product:.0%}",
            )
    console = Console()
    console.print(table)
    memory = f"peak memory {peak(device) / 2**30:.2f} GiB"
    console.print(f"{memory}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
