"""Convolutions with their gradients through Winograd's F(2x2, 3x3), for training wide layers in float32 on the CPU.

The three products of a layer are computed in the transformed domain (Lavin and Gray 2016, "Fast Algorithms for
Convolutional Neural Networks"): its output, the gradient of its input, and the gradient of its weight. A tile of 2x2
outputs needs 16 products instead of 36.

A causal kernel in time needs fewer still. Frames before the clip are copies of the first one (or zeros), so their
weights are summed (or left out): the output at frame 0 needs one product instead of three, and at frame 1 two. The
results equal those of `torch.nn.functional.conv3d` up to rounding, about 1e-6 of the largest value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MIN_CHANNELS = 96
"""Input and output channels."""
MIN_PRODUCTS = 256
"""Products for each output value and tap in space: input channels times kernel size in time."""
MIN_POSITIONS = 1024
"""Output positions of a batch. For fewer, transforming the weights takes too long."""
PAIRS = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (3, 1, -1))
"""The transform of 4 inputs: x[0] - x[2], x[1] + x[2], ..."""


def available() -> bool:
    """Whether this build of PyTorch has the matrix product of oneDNN. For float32, it is twice as fast as `@`."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_faster(x_BCTHW: Tensor, weight: Tensor) -> bool:
    """Whether this is faster for a weight (O, C, k, 3, 3) with stride 1 in float32 on the CPU, with gradients."""
    b, _, t, h, w = x_BCTHW.shape
    return (
        torch.is_grad_enabled()
        and (x_BCTHW.requires_grad or weight.requires_grad)
        and weight.shape[2] in (1, 3)
        and weight.shape[3:] == (3, 3)
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and weight.shape[1:3].numel() >= MIN_PRODUCTS
        and b * t * h * w >= MIN_POSITIONS
    )


def causal_convolve(x_BCTHW: Tensor, weight: Tensor, bias: Tensor | None, *, repeat_first: bool = True) -> Tensor:
    """Convolve with a weight (O, C, k, 3, 3), k 1 or 3, padded with a zero on each side in space. Has gradients.

    In time, k - 1 copies of the first frame are in front (`repeat_first`), or as many zeros.
    """
    y: Tensor = _CausalConvolution.apply(x_BCTHW, weight, bias, repeat_first)  # type: ignore[no-untyped-call]
    return y


class _CausalConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, repeat_first: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.repeat_first = repeat_first
        return output(x, weight, bias, repeat_first)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            input_gradient(grad, weight, ctx.repeat_first) if of_x else None,
            weight_gradient(x, grad, weight, ctx.repeat_first) if of_weight else None,
            grad.sum(dim=(0, 2, 3, 4)) if of_bias else None,
            None,
        )


def output(x_BCTHW: Tensor, weight: Tensor, bias: Tensor | None, repeat_first: bool) -> Tensor:
    """Compute the output (B, O, T, H, W)."""
    k = weight.shape[2]

    def matrices(taps_OkC: Tensor) -> list[Tensor]:
        """Return the weights (O, n·C) of the newest n frames, for n from 1 to k."""
        sums = taps_OkC.clone()
        if repeat_first:
            for i in range(1, k):
                sums[:, i] += sums[:, i - 1]
        starts = (torch.cat([sums[:, k - n : k - n + 1], taps_OkC[:, k - n + 1 :]], dim=1) for n in range(1, k))
        return [w.flatten(1) for w in (*starts, taps_OkC)]

    weights = (matrices(taps) for taps in transformed_weights(weight.permute(0, 2, 3, 4, 1)))
    frames = [(max(0, t - k + 1), t + 1) for t in range(x_BCTHW.shape[2])]
    return convolved(x_BCTHW, len(weight), weights, frames, bias)


def input_gradient(grad_BOTHW: Tensor, weight: Tensor, repeat_first: bool) -> Tensor:
    """Compute the gradient of the input (B, C, T, H, W)."""
    k, t = weight.shape[2], grad_BOTHW.shape[2]

    def matrices(taps_kOC: Tensor) -> list[Tensor]:
        """Return the weights (C, n·O) of n frames from each input frame on; the first of all frames is the last."""
        first = taps_kOC.flip(0).cumsum(0).flip(0) if repeat_first else taps_kOC
        return [w.flatten(0, 1).mT for w in (*(taps_kOC[: n + 1] for n in range(k)), first[:t])]

    flipped = weight.flip(2, 3, 4).permute(2, 0, 3, 4, 1)
    weights = map(matrices, transformed_weights(flipped))
    frames = [(i, min(i + k, t)) for i in range(t)]
    return convolved(grad_BOTHW, weight.shape[1], weights, frames, None, own_first=True)


def convolved(
    x_BCTHW: Tensor,
    out_channels: int,
    weights: Iterator[list[Tensor]],
    frames: list[tuple[int, int]],
    bias: Tensor | None,
    own_first: bool = False,
) -> Tensor:
    """Convolve in the transformed domain: output frame t sees the input frames from frames[t][0] to frames[t][1].

    `weights`: for each of the 16 products, the matrices for 1, 2, ... input frames, and with `own_first` another one
    for output frame 0.
    """
    b, c, t, h, w = x_BCTHW.shape
    x = x_BCTHW.permute(0, 3, 4, 2, 1)
    x = F.pad(x, (0, 0, 0, 0, 1, 1 + w % 2, 1, 1 + h % 2))
    tall, wide = (x.shape[1] - 2) // 2, (x.shape[2] - 2) // 2
    # Not a view, because the next layer may change it in place.
    y = torch.empty((b, out_channels, t, h, w), dtype=x.dtype, memory_format=torch.channels_last_3d)
    rows: list[list[tuple[Tensor, Tensor]]] = []
    columns: list[list[Tensor]] = []
    for patch, matrices in zip(transformed(x), weights, strict=True):
        patch = patch.flatten(3).flatten(0, 2)
        own = [matrices[-1 if own_first and i == 0 else stop - start - 1] for i, (start, stop) in enumerate(frames)]
        columns.append([product(patch[:, a * c : z * c], matrix) for (a, z), matrix in zip(frames, own, strict=True)])
        if len(columns) == 4:
            rows.append([two_outputs(*products) for products in zip(*columns, strict=True)])
            columns = []
    for i, values in enumerate(zip(*rows, strict=True)):
        for j, column in enumerate(zip(*values, strict=True)):
            for row, value in enumerate(two_outputs(*column)):
                place = y[:, :, i, row::2, j::2].permute(0, 2, 3, 1)
                value = value.view(b, tall, wide, out_channels)[:, : place.shape[1], : place.shape[2]]
                torch.add(value, bias, out=place) if bias is not None else place.copy_(value)
    return y


def two_outputs(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 2 outputs of 4 products, which it overwrites."""
    return a.add_(b).add_(c), b.sub_(c).add_(d)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x @ weight.mT."""
    # With gaps between the rows of `weight`, oneDNN takes a kernel that is hundreds of times slower.
    assert weight.is_contiguous() or weight.mT.is_contiguous()
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return y


def transformed(x: Tensor) -> Iterator[Tensor]:
    """Transform tiles along axis 1 and axis 2."""
    tall, wide = (x.shape[1] - 2) // 2, (x.shape[2] - 2) // 2
    row = x.new_empty(x.shape[0], tall, *x.shape[2:])
    patch = x.new_empty(x.shape[0], tall, wide, *x.shape[3:])
    for p, q, sign in PAIRS:
        torch.add(x[:, p : p + 2 * tall : 2], x[:, q : q + 2 * tall : 2], alpha=sign, out=row)
        for r, s, other in PAIRS:
            torch.add(row[:, :, r : r + 2 * wide : 2], row[:, :, s : s + 2 * wide : 2], alpha=other, out=patch)
            yield patch


def transformed_weights(taps: Tensor) -> Iterator[Tensor]:
    """Transform axes 2 and 3 of 3 taps each: the 16 products, in the order of `transformed`."""
    for row in four(taps, 2):
        yield from (tap.contiguous() for tap in four(row, 2))


def four(taps: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return 4 transformed weights of 3 taps."""
    a, b, c = taps.unbind(axis)
    half = (a + c) / 2
    return a, torch.add(half, b, alpha=0.5), torch.sub(half, b, alpha=0.5), c


def weight_gradient(x_BCTHW: Tensor, grad_BOTHW: Tensor, weight: Tensor, repeat_first: bool) -> Tensor:
    """Compute the gradient of the weight (O, C, k, 3, 3)."""
    _, c, t, h, w = x_BCTHW.shape
    o, k = weight.shape[0], weight.shape[2]
    x, y = (v.permute(2, 0, 3, 4, 1).flatten(0, 1) for v in (x_BCTHW, grad_BOTHW))
    x = F.pad(x, (0, 0, 1, 1 + w % 2, 1, 1 + h % 2))
    y = F.pad(y, (0, 0, 0, w % 2, 0, h % 2)) if h % 2 or w % 2 else y
    sums: list[tuple[Tensor, ...]] = []
    columns: list[Tensor] = []
    for patch, grad in zip(transformed(x), spread(y), strict=True):
        patch, grad = (v.view(t, -1, v.shape[-1]) for v in (patch, grad))
        products = x.new_zeros(k, o, c)
        for back in range(k):
            if back < t:
                if back and repeat_first:  # the frames before the clip are copies of the first one
                    grad[back] += grad[back - 1]
                products[k - 1 - back] = product(grad[back:].flatten(0, 1).mT, patch[: t - back].flatten(0, 1).mT)
            elif repeat_first:
                products[k - 1 - back] = products[k - back]
        columns.append(products)
        if len(columns) == 4:
            sums.append(three_taps(*columns))
            columns = []
    gradient = torch.empty_like(weight, memory_format=torch.channels_last_3d)
    for j, column in enumerate(zip(*sums, strict=True)):
        for i, tap in enumerate(three_taps(*column)):
            gradient[..., i, j] = tap.permute(1, 2, 0)
    return gradient


def three_taps(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of 3 taps of a weight from those of its 4 transformed ones."""
    half = (b + c) / 2
    return a.add_(half), (b.sub_(c)).mul_(0.5), half.add_(d)


def spread(y: Tensor) -> Iterator[Tensor]:
    """Transform the gradients of tiles of 2x2 outputs along axis 1 and axis 2: the transpose of `two_outputs`."""
    tall, wide = y.shape[1] // 2, y.shape[2] // 2
    row = y.new_empty(y.shape[0], tall, *y.shape[2:])
    patch = y.new_empty(y.shape[0], tall, wide, *y.shape[3:])
    for i in range(4):
        place(y[:, 0::2], y[:, 1::2], i, row)
        for j in range(4):
            place(row[:, :, 0::2], row[:, :, 1::2], j, patch)
            yield patch


def place(a: Tensor, b: Tensor, i: int, out: Tensor) -> None:
    """Write the gradient of product `i` of 4 from those of 2 outputs."""
    if i in (0, 3):
        out.copy_(a if i == 0 else b)
    else:
        torch.add(a, b, alpha=1 if i == 1 else -1, out=out)
