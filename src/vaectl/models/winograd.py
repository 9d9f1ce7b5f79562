"""Winograd convolutions F(2x2, 3x3) and F(4x4, 3x3) with fewer products, for wide layers on the CPU.

2x2 outputs need 16 products of a 4x4 patch instead of 36, and 4x4 outputs 36 of a 6x6 patch instead of 144 (Lavin and
Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1). A kernel in time is not transformed. The
transforms need sums for each value, and 16 or 36 weights for every 9, so `tile_size` weighs these against the products.

The polynomials of the transforms have the roots 0, ±1 and infinity for 2x2 outputs, and 0, ±3/4, ±3/2 and infinity for
4x4: with the usual 0, ±1, ±2 the rounding errors are four times as large (Barabasz et al. 2020, "Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks"). The largest error of a layer is up to ten
times that of a direct convolution, about 2e-5 on outputs of order 1. Over a whole WF-VAE-S it is the same, about 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vaectl.models.kept_weights import KeptWeights

ROOTS = {2: (1.0,), 4: (0.75, 1.5)}
"""The positive roots for each size of the tiles of outputs."""
TRANSFORM_COST = {2: 340, 4: 450}
"""Time to transform an input or output value, in products. Measured on a CPU with AVX-512, as the next."""
WEIGHT_COST = 70
"""Time to transform a weight, for each weight that results, in products."""
STRIP_COST = 12_000_000
"""Time between the operators of a strip, for each of its (m + 2)² patches, in products."""
STRIP_BYTES = 12 * 2**20
"""Input of one strip. In smaller ones, the time between operators counts more; larger ones only take more memory."""
STRIP_COPIES = {2: (2.1, 3.2), 4: (3.3, 2.1)}
"""Peak memory of the transforms of a strip, in strips of the input and of the output."""
FEW_TILES = 1500
"""For fewer, the time to transform the weights counts: they are kept, and not converted for faster products."""
KEPT = KeptWeights()
"""Transformed weights."""
WEIGHT_COPIES = {True: 18, False: 24}
"""Peak memory of the transform of weights, in weights of 1x1 in space, next to the result; with few tiles or many."""


def available() -> bool:
    """Whether this build of PyTorch has the operators."""
    operators = ("_reorder_convolution_weight", "_convolution_pointwise", "_linear_pointwise")
    return all(hasattr(torch.ops.mkldnn, name) for name in operators)


def is_faster(x_BCTHW: Tensor, weight: Tensor, stride: tuple[int, int, int], padding: tuple[int, int, int]) -> bool:
    """Whether this is faster for a weight (O, C, k, 3, 3) in float32 on the CPU."""
    return (
        stride == (1, 1, 1)
        and padding == (0, 1, 1)
        and weight.shape[-2:] == (3, 3)
        and tile_size(x_BCTHW, weight) > 1
        and not torch.is_grad_enabled()
    )


def tile_size(x_BCTHW: Tensor, weight: Tensor, *, causal: bool = False) -> int:
    """Return the height and width of the tiles of outputs that take the least time; 1 for a direct convolution.

    `causal`: there are as many outputs in time as inputs.
    """
    (b, c, t, h, w), (out_channels, _, k, _, _) = x_BCTHW.shape, weight.shape
    frames = b * (t if causal else t - k + 1)

    def cost(m: int) -> float:
        tiles = frames * -(-h // m) * -(-w // m)
        products = k * c * out_channels * (tiles + WEIGHT_COST)
        strips = -(-h // strip_rows(x_BCTHW, m))
        return (m + 2) ** 2 * (products + strips * STRIP_COST) + TRANSFORM_COST[m] * m * m * tiles * (c + out_channels)

    best = min(ROOTS, key=cost)
    return best if cost(best) < 9 * k * c * out_channels * frames * h * w else 1


def workspace(x_BCTHW: Tensor, weight: Tensor) -> int:
    """Return the most temporary values, without input and output."""
    (b, c, t, h, w), m = x_BCTHW.shape, tile_size(x_BCTHW, weight)
    of_input, of_output = STRIP_COPIES[m]
    of_input += weight.shape[2] / (m * m)  # side by side in time, for few tiles
    copies = of_input * c * t + of_output * len(weight) * (t - weight.shape[2] + 1)
    strip = int(copies * b * min(h, strip_rows(x_BCTHW, m)) * w)
    tap = weight.numel() // 9
    return (m + 2) ** 2 * tap + max(WEIGHT_COPIES[has_few_tiles(x_BCTHW, weight, m)] * tap, strip)


def has_few_tiles(x_BCTHW: Tensor, weight: Tensor, m: int) -> bool:
    b, _, t, h, w = x_BCTHW.shape
    return b * (t - weight.shape[2] + 1) * h * w < FEW_TILES * m * m


def strip_rows(x_BCTHW: Tensor, m: int) -> int:
    """Return the number of rows in a strip, a multiple of `m`."""
    return max(m, STRIP_BYTES // max(1, x_BCTHW[..., 0, :].nbytes) // m * m)


def convolve(
    x_BCTHW: Tensor, weight: Tensor, bias: Tensor | None, *, m: int | None = None, parameter: Tensor | None = None
) -> Tensor:
    """Convolve with `weight` (O, C, k, 3, 3), padded with one zero on each side in space, and not in time.

    `m`: the size of the tiles; by default that of `tile_size`. `parameter`: what `weight` is a view of, if it is one.
    """
    m = m or tile_size(x_BCTHW, weight)
    frames = x_BCTHW.shape[2] - weight.shape[2] + 1
    if has_few_tiles(x_BCTHW, weight, m):
        return convolve_tiles(x_BCTHW, kept(weight, m, parameter), product_of_shifts, frames, bias)
    weights = [[*map(reordered, row)] for row in transformed(weight, ROOTS[m])]
    return convolve_tiles(x_BCTHW, weights, product, frames, bias)


def convolve_tiles(
    x_BCTHW: Tensor,
    weights: Sequence[Sequence[Tensor]],
    multiply: Callable[[Tensor, Tensor], Tensor],
    frames: int,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolve with a transformed weight, padded with one zero on each side in space. In time, as `multiply` does.

    `multiply` makes (B, `frames`, H, W, O) of a patch (B, T, H, W, C) and its weight.
    """
    m = len(weights) - 2
    roots = ROOTS[m]
    b, _, _, h, w = x_BCTHW.shape
    shape = (b, len(weights[0][0]), frames, h, w)
    # Not a view, because the next layer may change it in place.
    y = torch.empty(shape, dtype=x_BCTHW.dtype, device=x_BCTHW.device, memory_format=torch.channels_last_3d)
    out = y.permute(0, 2, 3, 4, 1)
    x = x_BCTHW.permute(0, 2, 3, 4, 1)
    rows = strip_rows(x_BCTHW, m)
    for top in range(0, h, rows):
        stop = min(top + rows, h)
        above, below = int(top == 0), int(stop == h) + (top - stop) % m
        strip = F.pad(x[:, :, max(top - 1, 0) : stop + 1], (0, 0, 1, 1 + -w % m, above, below))
        for row, column, values in convolve_strip(strip, weights, roots, multiply):
            place = out[:, :, top + row : stop : m, column::m]
            values = values[:, :, : place.shape[2], : place.shape[3]]
            torch.add(values, bias, out=place) if bias is not None else place.copy_(values)
        del strip
    return y


def convolve_strip(
    strip_BTHWC: Tensor,
    weights: Iterable[Iterable[Tensor]],
    roots: Sequence[float],
    multiply: Callable[[Tensor, Tensor], Tensor],
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield a row and a column in the tiles of outputs, and the outputs there."""
    made = []
    for rows, taps in zip(transform_input(strip_BTHWC, 2, roots), weights, strict=True):
        patches = transform_input(rows, 3, roots)
        products = [multiply(patch, tap) for patch, tap in zip(patches, taps, strict=True)]
        made.append(transform_output(products, roots))
        del products
    for column, values_of_rows in enumerate(zip(*made, strict=True)):
        for row, values in enumerate(transform_output(values_of_rows, roots)):
            yield row, column, values


def kept(weight: Tensor, m: int, parameter: Tensor | None) -> list[list[Tensor]]:
    """Return the transformed weight, (O, k, C), kept from before or new."""

    def compute() -> list[list[Tensor]]:
        rows = [[*row] for row in transformed(weight, ROOTS[m])]
        for row in (rows[0], rows[-1]):  # these would keep the whole weight in memory
            row[0], row[-1] = row[0].clone(), row[-1].clone()
        return rows

    size = (m + 2) ** 2 * weight.nbytes // 9
    weights: list[list[Tensor]] = KEPT.get(weight if parameter is None else parameter, m, size, compute)
    return weights


def transformed(weight: Tensor, roots: Sequence[float], *, flip: bool = False) -> Iterator[Iterator[Tensor]]:
    """Transform a weight (O, C, k, 3, 3): yields, by root of the height and of the width, (O, k, C).

    `flip`: reverse it in space before.
    """
    # With the fastest dimension in memory last, which is O in the gradient of the input.
    order, back = ((0, 2, 1), (0, 1, 2)) if weight.stride(1) <= weight.stride(0) else ((2, 1, 0), (2, 0, 1))
    in_space = slice(None, None, -1 if flip else 1)
    for row in transform_weight([*weight.permute(3, 4, *order).contiguous()][in_space], roots):
        yield (tap.permute(back) for tap in transform_weight([*row][in_space], roots))


def reordered(weight_OKC: Tensor) -> Tensor:
    """Convert a weight to oneDNN's memory format. Else each product would convert it, which can take longer."""
    weight: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight_OKC.transpose(1, 2)[..., None, None], padding=(0, 0, 0), stride=(1, 1, 1), dilation=(1, 1, 1)
    )
    return weight


def transform_weight(taps: Sequence[Tensor], roots: Sequence[float]) -> Iterator[Tensor]:
    """Yield the values of the polynomial of 3 taps at each root: at 0, p, -p, ..., and infinity."""
    a, b, c = taps
    yield a
    for p in roots:
        even = torch.add(a, c, alpha=p * p)
        yield torch.add(even, b, alpha=p)
        yield even.sub_(b, alpha=p)
    yield c


def scale(root: float, roots: Sequence[float]) -> float:
    """Return the divisor of the value at `root`: the product of its differences from the other roots.

    The transforms of the input (at 0) and of the output divide by it, where it takes no time of its own.
    """
    return math.prod(root * root - p * p for p in roots if p != root) * (2 * root * root if root else 1)


def transform_input(x: Tensor, axis: int, roots: Sequence[float]) -> Iterator[Tensor]:
    """Transform m + 2 positions along an axis, starting at every m-th one; for each root, in the order above."""
    m = 2 * len(roots)
    size = x.shape[axis] - m - 1
    d = [x.narrow(axis, i, size).unfold(axis, 1, m).squeeze(-1) for i in range(m + 2)]
    *others, p = roots
    pairs: list[tuple[float, Tensor, Tensor]] = []
    for q in others:  # of two pairs of roots, each difference removes one
        pairs.append((q, torch.add(d[3], d[1], alpha=-p * p), torch.add(d[4], d[2], alpha=-p * p)))
        first = torch.add(d[0], d[2], alpha=-1 / (q * q))
        d = [first, *(torch.add(d[i + 2], d[i], alpha=-q * q) for i in range(1, 4))]
    pairs.append((p, d[1], d[2]))
    yield torch.add(d[0], d[2], alpha=1 / scale(0, roots))
    for root, odd, even in pairs:
        yield torch.add(even, odd, alpha=root)
        yield torch.add(even, odd, alpha=-root)
    yield torch.add(d[3], d[1], alpha=-p * p)


def product(patch_BTHWC: Tensor, weight: Tensor) -> Tensor:
    """Multiply over channels and time: a convolution with a kernel of 1x1 in space."""
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        patch_BTHWC.permute(0, 4, 1, 2, 3), weight, None, (0, 0, 0), (1, 1, 1), (1, 1, 1), 1, "none", [], ""
    )
    return y.permute(0, 2, 3, 4, 1)


def product_of_shifts(patch_BTHWC: Tensor, weight_OKC: Tensor) -> Tensor:
    """Compute the same for a weight in PyTorch's memory format, with copies of the patch side by side in time."""
    k = weight_OKC.shape[1]
    t = patch_BTHWC.shape[1] - k + 1
    return linear(torch.cat([patch_BTHWC[:, i : i + t] for i in range(k)], dim=-1), weight_OKC.flatten(1))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Compute `torch.nn.functional.linear` with oneDNN: for float32, it is twice as fast."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x.flatten(0, -2), weight, None, "none", [], "")
    return y.view(*x.shape[:-1], len(weight))


def transform_output(products: Sequence[Tensor], roots: Sequence[float]) -> list[Tensor]:
    """Return the m outputs of the products for all roots. Overwrites the products."""
    at_zero, *others, at_infinity = products
    pairs = [
        (root, (plus + minus, plus.sub_(minus)))
        for root, plus, minus in zip(roots, others[::2], others[1::2], strict=True)
    ]
    outputs = []
    last = 2 * len(roots) - 1
    for power in range(last + 1):
        terms = [(root**power / scale(root, roots), even_odd[power % 2]) for root, even_odd in pairs]
        if power in (0, last):
            y = at_infinity if power else at_zero
        else:
            factor, term = terms.pop()
            y = term * factor
        for factor, term in terms:
            y.add_(term, alpha=factor)
        outputs.append(y)
    return outputs
