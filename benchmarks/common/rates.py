"""What this machine can do at best on the CPU, in float32: the limits that speeds are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vaectl.models import convolution

Clock = Callable[[], float]


@dataclass(frozen=True)
class Rates:
    """Measured rates; a multiplication and an addition count as two operations."""

    product: float
    """FLOP/s of a large matrix product: the faster of `torch.matmul` and oneDNN, which are different libraries."""
    convolution: float
    """FLOP/s of a large 3x3x3 convolution of oneDNN, which multiplies directly."""
    copy: float
    """Bytes per second of a copy that no cache holds, read and written bytes together."""
    cached: float
    """The same of 2 MiB, which the caches hold."""


def measure_rates(clock: Clock = time.perf_counter, *, small: bool = False) -> Rates:
    """Measure them, a few seconds; `small` only tries the code."""

    def seconds(work: Callable[[], object]) -> float:
        work()
        best = float("inf")
        for _ in range(1 if small else 4):
            begun = clock()
            work()
            best = min(best, clock() - begun)
        return max(best, 1e-9)

    size, channels, side, values = (64, 8, 8, 2**12) if small else (2048, 256, 48, 2**26)
    a, b = torch.randn(size, size), torch.randn(size, size)
    x = torch.randn(1, channels, 8, side, side).to(memory_format=torch.channels_last_3d)
    pointwise, cube = (
        torch.randn(channels, channels, k, k, k).to(memory_format=torch.channels_last_3d) for k in (1, 3)
    )
    source = torch.randn(values)
    target = torch.empty_like(source)
    part, times = slice(min(values, 2**19)), 1 if small else 100

    def convolve(weight: torch.Tensor) -> torch.Tensor:
        pad = weight.shape[-1] // 2
        if not convolution.ONEDNN:
            return torch.nn.functional.conv3d(x, weight, None, 1, pad)
        return torch.mkldnn_convolution(x, weight, None, (pad,) * 3, (1, 1, 1), (1, 1, 1), 1)

    with torch.no_grad():
        return Rates(
            product=max(
                2 * size**3 / seconds(lambda: a @ b), operations(x, pointwise) / seconds(lambda: convolve(pointwise))
            ),
            convolution=operations(x, cube) / seconds(lambda: convolve(cube)),
            copy=2 * source.nbytes / seconds(lambda: target.copy_(source)),
            cached=2
            * times
            * source[part].nbytes
            / seconds(lambda: [target[part].copy_(source[part]) for _ in range(times)]),
        )


def operations(y: torch.Tensor, weight: torch.Tensor) -> int:
    """Return the operations of a direct convolution that gives `y`. Products with the zeros of padding count."""
    return 2 * y[:, 0].numel() * weight.numel()
