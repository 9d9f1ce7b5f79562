"""Add up the time of encode and decode by kind of layer, next to the least time that this machine can need for each.

    python benchmarks/layers.py [--model WF-VAE-S] [--shapes 17x128x128 9x256x256] [--jobs encode decode] [--turns 3]
                                [--processor-time]

GFLOP counts a multiplication and an addition as two, as the direct formulation of each convolution has them. The least
time of a layer is the larger of its arithmetic at the measured rate and its input, output and weights at the measured
rate of a copy. There are three such sums, which differ in the 3x3 and 3x3x3 convolutions of stride 1:

    direct       at the rate of a large 3x3x3 convolution of oneDNN
    reachable    the fastest of that and Winograd F(2x2, 3x3) and F(4x4, 3x3): 16 products for 36, or 36 for 144, at the
                 rate of a large matrix product; the patches and the products are written and read once each, at the
                 rate of a copy within the caches, and the transformed weights at the rate of a copy
    products     the same, without the transforms

SiLU (a norm can apply it) and concatenations (a convolution can read from two places) count nothing; a residual sum
counts one more input. So a program with one kernel for each transform could come near to the reachable sum, and none
can reach that of the products. The last line of each table is the share that vaectl reaches.

With several threads on a busy machine, times mean nothing. There, use `OMP_NUM_THREADS=1` and `--processor-time`.
"""

from __future__ import annotations

import argparse
import math
import pkgutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any
from unittest.mock import patch

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from common import flops, input_of, run_of, shape, text_of
from common.rates import Clock, Rates, measure_rates, operations
from formulation import JOBS, make_model
from vaectl.memory import reuse_freed
from vaectl.models import build_model
from vaectl.models.families.wfvae import WFVAE

Least = tuple[float, float, float]
"""Seconds: direct, reachable, products alone."""
Measure = Callable[[Rates, Any, Any], tuple[str, int, Least]]
"""From rates, arguments and result of a call: the row that it belongs to, its operations, and the least time."""


def convolution(rates: Rates, arguments: Any, y: Tensor) -> tuple[str, int, Least]:
    x, weight = arguments[:2]
    kernel, (out_channels, in_channels) = weight.shape[2:], weight.shape[:2]
    work = operations(y, weight)
    traffic = (x.nbytes + weight.nbytes + y.nbytes) / rates.copy
    name = f"{'x'.join(map(str, kernel))}  {in_channels:>3} to {out_channels:>3}  {size_of(y)}"
    if weight.shape[2:].numel() == 1:
        return name, work, (max(work / rates.product, traffic),) * 3
    direct = work / rates.convolution
    reachable, products = direct, direct
    if kernel[-2:] == (3, 3) and arguments[3] in (1, (1, 1, 1)):
        for tile in (2, 4):
            ratio = (tile + 2) ** 2
            alone = work * ratio / (9 * tile**2) / rates.product
            transforms = 2 * (x.nbytes + y.nbytes) * ratio / tile**2 / rates.cached
            weights = 2 * weight.nbytes * ratio / 9 / rates.copy
            products = min(products, alone)
            reachable = min(reachable, alone + transforms + weights)
    return name, work, (max(direct, traffic), max(reachable, traffic), max(products, traffic))


def attention(rates: Rates, arguments: Any, y: Tensor) -> tuple[str, int, Least]:
    keys = arguments[1]
    work = 4 * y.numel() * keys.shape[-2]
    return "attention", work, (work / rates.product,) * 3


def one_pass(kind: str, rates: Rates, arguments: Any, y: Tensor) -> tuple[str, int, Least]:
    """A layer that reads its first tensor and writes its result."""
    x = next(each for each in arguments if isinstance(each, Tensor))
    return kind, 0, ((x.nbytes + y.nbytes) / rates.copy,) * 3


def residual_sum(rates: Rates, arguments: Any, y: Tensor) -> tuple[str, int, Least]:
    return "residual sums", 0, (y.nbytes / rates.copy,) * 3


def avoidable(kind: str, rates: Rates, arguments: Any, y: Tensor) -> tuple[str, int, Least]:
    return kind, 0, (0.0, 0.0, 0.0)


HAAR = [f"vaectl.models.haar.{name}HaarWaveletTransform{axes}D.forward" for name in ("", "Inverse") for axes in (2, 3)]
LEAVES: dict[str, Measure] = {
    "vaectl.models.convolution.conv3d": convolution,
    "vaectl.models.convolution.conv2d": convolution,
    "torch.nn.functional.scaled_dot_product_attention": attention,
    "vaectl.models.layers.ChannelLayerNorm.forward": partial(one_pass, "norms"),
    "vaectl.models.layers.GroupNorm.direct": partial(one_pass, "norms"),
    "torch.nn.functional.silu": partial(avoidable, "SiLU"),
    **dict.fromkeys(HAAR, partial(one_pass, "Haar")),
    "vaectl.models.resample.upsample_time": partial(one_pass, "interpolation"),
    "vaectl.models.resample.bilinear_2x": partial(one_pass, "interpolation"),
    "vaectl.models.resample.nearest_2x": partial(one_pass, "interpolation"),
    "torch.cat": partial(avoidable, "concatenations"),
    "torch.nn.functional.pad": partial(avoidable, "concatenations"),
}
"""The functions that are timed. Calls inside of another one count for the outer one. Add a function here when a layer
gets one of its own."""
AROUND: dict[str, Measure] = {"vaectl.models.blocks.ResnetBlock.second": residual_sum}
"""Functions that count without the leaves inside."""
REST = "rest"


@dataclass
class Row:
    """A kind of layer: number of calls, seconds, operations and least seconds."""

    calls: int = 0
    seconds: float = 0.0
    work: int = 0
    least: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])


def size_of(x_BCTHW: Tensor) -> str:
    return "x".join(map(str, x_BCTHW.shape[2:]))


@contextmanager
def timed_layers(rates: Rates, clock: Clock) -> Iterator[dict[str, Row]]:
    """Time every call of the functions in `LEAVES` and `AROUND`; gives the rows, which fill up."""
    rows: dict[str, Row] = {}
    inner: list[float] = []  # seconds of leaves inside of each open call of `AROUND`
    busy = False

    def record(measure: Measure, arguments: Any, result: Any, seconds: float) -> None:
        name, work, least = measure(rates, arguments, result)
        row = rows.setdefault(name, Row())
        row.calls, row.seconds, row.work = row.calls + 1, row.seconds + seconds, row.work + work
        row.least = [a + b for a, b in zip(row.least, least, strict=True)]

    def leaf(function: Callable[..., Any], measure: Measure) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal busy
            if busy:
                return function(*arguments, **options)
            begun, busy = clock(), True
            try:
                result = function(*arguments, **options)
            finally:
                busy = False
            seconds = clock() - begun
            if inner:
                inner[-1] += seconds
            record(measure, arguments, result, seconds)
            return result

        return call

    def around(function: Callable[..., Any], measure: Measure) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            inner.append(0.0)
            begun = clock()
            result = function(*arguments, **options)
            record(measure, arguments, result, clock() - begun - inner.pop())
            return result

        return call

    with ExitStack() as stack:
        for wrap, table in ((leaf, LEAVES), (around, AROUND)):
            for name, measure in table.items():
                stack.enter_context(patch(name, wrap(pkgutil.resolve_name(name), measure)))
        yield rows


def add_up(run: Callable[[], object], rates: Rates, clock: Clock, turns: int) -> tuple[dict[str, Row], float]:
    """Return the rows and the seconds of the fastest of several runs; a first one is not timed."""
    best: dict[str, Row] = {}
    fastest = float("inf")
    run()
    for _ in range(turns):
        with timed_layers(rates, clock) as rows:
            begun = clock()
            run()
            seconds = clock() - begun
        if seconds < fastest:
            best, fastest = rows, seconds
    best[REST] = Row(seconds=fastest - sum(row.seconds for row in best.values()))
    return best, fastest


def needed_operations(model: WFVAE, job: str, x: Tensor) -> int:
    """Count the operations of convolutions, products and attention without running them."""
    with torch.device("meta"):
        twin = build_model(model.config)
    run = twin.encode if job == "encode" else twin.decode
    return flops(lambda: run(x.to("meta")))


def render(title: str, rows: dict[str, Row], seconds: float) -> Table:
    table = Table(title=title, box=SIMPLE)
    sums = ("least\ndirect", "reach-\nable", "prod-\nucts")
    for column in ("layers", "calls", "ms", "GFLOP\n/s", *sums):
        first = column == "layers"
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    ordered = sorted(rows.items(), key=lambda each: (each[0] == REST, -each[1].seconds))
    total = Row(calls=0, seconds=seconds)
    for name, row in ordered:
        total.work += row.work
        total.least = [a + b for a, b in zip(total.least, row.least, strict=True)]
        table.add_row(name, *cells(row), end_section=name == REST)
    table.add_row("all", *cells(total))
    reached = [f"{least / seconds:.0%}" for least in total.least]
    table.add_row("share reached", *[""] * 3, *reached)
    return table


def cells(row: Row) -> list[str]:
    rate = f"{row.work / row.seconds / 1e9:.0f}" if row.work else ""
    least = [f"{1000 * each:.1f}" if each else "" for each in row.least]
    return [str(row.calls or ""), f"{1000 * row.seconds:.1f}", rate, *least]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", choices=("built-in", "WF-VAE-S"), default="WF-VAE-S")
    parser.add_argument("--shapes", nargs="+", type=shape, default=[(17, 128, 128), (9, 256, 256)])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--processor-time", action="store_true")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    reuse_freed()
    torch.set_grad_enabled(False)
    console = Console()
    rates = measure_rates(clock)
    console.print(
        f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}: matrix product {rates.product / 1e9:.0f}"
        f" GFLOP/s, 3x3x3 convolution {rates.convolution / 1e9:.0f} GFLOP/s, copy {rates.copy / 1e9:.1f} GB/s,"
        f" within the caches {rates.cached / 1e9:.0f} GB/s"
    )
    model = make_model(arguments.model, torch.device("cpu"), torch.float32)
    for clip in arguments.shapes:
        for job in arguments.jobs:
            x = input_of(model, job, clip)
            rows, seconds = add_up(partial(run_of(model, job, plain=False), x), rates, clock, arguments.turns)
            console.print(render(f"{arguments.model}, {job}, {text_of(clip)}", rows, seconds))
            seen, needed = sum(row.work for row in rows.values()), needed_operations(model, job, x)
            if not math.isclose(seen, needed, rel_tol=0.01):
                console.print(
                    f"This table has {seen / 1e9:.1f} of {needed / 1e9:.1f} GFLOP; which function is not in LEAVES?"
                )


if __name__ == "__main__":
    main()
