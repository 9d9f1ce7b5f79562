"""Winograd convolutions F(2x2, 3x3) with fewer products, for wide layers on the CPU.

2x2 outputs need 16 products of a 4x4 patch instead of 36 (Lavin and Gray 2016, "Fast Algorithms for Convolutional
Neural Networks", section 4.1). A kernel in time is not transformed. The transforms need a few sums for each value, and
16 weights for every 9, so this is faster only for many channels. The result equals the convolution up to rounding,
about 1e-6 on outputs of order 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_CHANNELS = 96
"""Input and output channels."""
MIN_PRODUCTS = 256
"""Products for each output value and tap in space: input channels times kernel size in time."""
MIN_VALUES = 2**20
"""Input values. For fewer, the transform of the weights takes too long."""
STRIP_BYTES = 4 * 2**20
"""Input of one strip. Small enough that its transform stays in the caches."""
STRIP_COPIES = 6
"""Peak memory of the transforms of a strip, in strips."""


def available() -> bool:
    """Whether this build of PyTorch has the operators."""
    return hasattr(torch.ops.mkldnn, "_reorder_convolution_weight") and hasattr(
        torch.ops.mkldnn, "_convolution_pointwise"
    )


def is_faster(x_BCTHW: Tensor, weight: Tensor, stride: tuple[int, int, int], padding: tuple[int, int, int]) -> bool:
    """Whether this is faster for a weight (O, C, k, 3, 3) in float32 on the CPU."""
    return (
        stride == (1, 1, 1)
        and padding == (0, 1, 1)
        and weight.shape[-2:] == (3, 3)
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and weight.shape[1:].numel() // 9 >= MIN_PRODUCTS
        and x_BCTHW.numel() >= MIN_VALUES
        and not torch.is_grad_enabled()
    )


def workspace(x_BCTHW: Tensor, weight: Tensor) -> int:
    """Return the most temporary values, without input and output."""
    b, c, t, h, w = x_BCTHW.shape
    return 16 * weight.numel() // 9 + STRIP_COPIES * min(h, strip_rows(x_BCTHW)) * b * c * t * w


def strip_rows(x_BCTHW: Tensor) -> int:
    """Return the number of rows in a strip, which is even."""
    return max(2, STRIP_BYTES // x_BCTHW[..., 0, :].nbytes // 2 * 2)


def convolve(x_BCTHW: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with `weight` (O, C, k, 3, 3), padded with one zero on each side in space, and not in time."""
    b, _, t, h, w = x_BCTHW.shape
    out = x_BCTHW.new_empty((b, t - weight.shape[2] + 1, h, w, len(weight)))
    x = x_BCTHW.permute(0, 2, 3, 4, 1)
    rows = strip_rows(x_BCTHW)
    weights = [[reordered(tap) for tap in transform_weight(row)] for row in transform_weight(weight)]
    for top in range(0, h, rows):
        stop = min(top + rows, h)
        strip = x[:, :, max(top - 1, 0) : stop + 1]
        above, below = int(top == 0), int(stop == h) + (stop - top) % 2
        strip = F.pad(strip, (0, 0, 1, 1 + w % 2, above, below))
        made = (
            transform_output(
                [product(patch, one) for patch, one in zip(transform_input(row, axis=3), weights[i], strict=True)]
            )
            for i, row in enumerate(transform_input(strip, axis=2))
        )
        for column, products in enumerate(zip(*made, strict=True)):
            for row, values in enumerate(transform_output(products)):
                place = out[:, :, top + row : stop : 2, column::2]
                values = values[:, :, : place.shape[2], : place.shape[3]]
                torch.add(values, bias, out=place) if bias is not None else place.copy_(values)
    return out.permute(0, 4, 1, 2, 3)


def transform_weight(weight: Tensor) -> Iterator[Tensor]:
    """Transform 3 taps to 4, along the height if the weight has a time axis, else along the width."""
    a, b, c = weight.unbind(-2 if weight.ndim == 5 else -1)
    yield a
    yield (a + b + c) / 2
    yield (a - b + c) / 2
    yield c


def reordered(weight_OIK: Tensor) -> Tensor:
    """Convert a weight to oneDNN's memory format. Else each product would convert it, which can take longer."""
    weight: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight_OIK[..., None, None], padding=(0, 0, 0), stride=(1, 1, 1), dilation=(1, 1, 1)
    )
    return weight


def transform_input(x: Tensor, axis: int) -> Iterator[Tensor]:
    """Transform 4 positions along an axis, starting at every second one."""
    size = x.shape[axis] - 2
    a, b, c, d = (x.narrow(axis, i, size - 1).unfold(axis, 1, 2).squeeze(-1) for i in range(4))
    yield a - c
    yield b + c
    yield c - b
    yield b - d


def product(patch_BTHWC: Tensor, weight: Tensor) -> Tensor:
    """Multiply over channels and time: a convolution with a kernel of 1x1 in space."""
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        patch_BTHWC.permute(0, 4, 1, 2, 3), weight, None, (0, 0, 0), (1, 1, 1), (1, 1, 1), 1, "none", [], ""
    )
    return y.permute(0, 2, 3, 4, 1)


def transform_output(products: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the 2 outputs of the 4 products along an axis. Overwrites the products."""
    a, b, c, d = products
    return a.add_(b).add_(c), b.sub_(c).sub_(d)
