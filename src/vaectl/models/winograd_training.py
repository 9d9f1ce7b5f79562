"""Causal convolutions with gradients through Winograd's algorithm, for training wide layers in float32 on the CPU.

The output and the gradient of the input are convolutions, with other products in time than those of `winograd`. The
gradient of the weight is a sum of products over tiles: of a patch of the input with the gradients of m x m outputs.
With both transformed, a tile needs (m + 2)² products instead of 9 m². The transforms are the transposes of those in
`winograd`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv3d_input

from vaectl.models import winograd

MIN_CHANNELS = 96
"""Input and output channels."""
MIN_POSITIONS = 512
"""Output positions of a batch. For fewer, the products are too small."""
SMALL = 20480
"""PyTorch uses a much slower kernel than oneDNN's up to this size of batch * channels * frames * height."""


def is_faster(x_BCTHW: Tensor, weight: Tensor) -> bool:
    """Whether this is faster for a weight (O, C, k, 3, 3) with stride 1 in float32 on the CPU, with gradients."""
    b, _, t, h, w = x_BCTHW.shape
    return (
        torch.is_grad_enabled()
        and (x_BCTHW.requires_grad or weight.requires_grad)
        and weight.shape[3:] == (3, 3)
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and b * t * h * w >= MIN_POSITIONS
    )


def causal_convolve(x_BCTHW: Tensor, weight: Tensor, bias: Tensor | None, *, repeat_first: bool = True) -> Tensor:
    """Convolve with a weight (O, C, k, 3, 3), padded with a zero on each side in space. Has gradients.

    In time, k - 1 copies of the first frame are in front (`repeat_first`), or as many zeros. Raises NotImplementedError
    for second derivatives.
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # once_differentiable would return constants for a constant `grad`
            raise NotImplementedError("this convolution has no second derivative: leave out create_graph=True")
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            input_gradient(grad, weight, ctx.repeat_first) if of_x else None,
            weight_gradient(x, grad, weight, ctx.repeat_first) if of_weight else None,
            grad.sum(dim=(0, 2, 3, 4)) if of_bias else None,
            None,
        )


def with_first(x_BCTHW: Tensor, frames: int, repeat: bool) -> Tensor:
    """Put copies of the first frame in front, or zeros."""
    if frames == 0:
        return x_BCTHW
    first = x_BCTHW[:, :, :1] if repeat else torch.zeros_like(x_BCTHW[:, :, :1])
    return torch.cat([first] * frames + [x_BCTHW], dim=2)


def output(x_BCTHW: Tensor, weight: Tensor, bias: Tensor | None, repeat_first: bool) -> Tensor:
    """Compute the convolution, (B, O, T, H, W)."""
    t, k = x_BCTHW.shape[2], weight.shape[2]
    m = winograd.tile_size(x_BCTHW, weight, causal=True)
    if m == 1:
        x = with_first(x_BCTHW, k - 1, repeat_first).contiguous(memory_format=torch.channels_last_3d)
        y: Tensor = torch.mkldnn_convolution(x, weight, bias, (0, 1, 1), (1, 1, 1), (1, 1, 1), 1)
        return y

    def multiply(patch_BTHWC: Tensor, weight_OKC: Tensor) -> Tensor:
        return winograd.linear(earlier(patch_BTHWC, k, repeat_first), weight_OKC.flatten(1))

    weights = [[*row] for row in winograd.transformed(weight, winograd.ROOTS[m])]
    return winograd.convolve_tiles(x_BCTHW, weights, multiply, t, bias)


def earlier(x_BTHWC: Tensor, k: int, repeat_first: bool) -> Tensor:
    """Return what the kernel meets at each frame: the k - 1 frames before it, and the frame, (B, T, H, W, k·C)."""
    if k == 1:
        return x_BTHWC
    t = x_BTHWC.shape[1]
    frames = x_BTHWC.new_empty(*x_BTHWC.shape[:-1], k, x_BTHWC.shape[-1])
    for i, place in enumerate(frames.unbind(-2)):
        start = min(k - 1 - i, t)
        place[:, start:] = x_BTHWC[:, : t - start]
        place[:, :start] = x_BTHWC[:, :1] if repeat_first else 0
    return frames.flatten(-2)


def later(x_BTHWC: Tensor, k: int, repeat_first: bool) -> Tensor:
    """Return what the reversed kernel meets at each frame: it and the k - 1 frames after it, (B, T, H, W, k·C).

    The first frame also gets the gradients of its copies in front: it meets sums.
    """
    if k == 1:
        return x_BTHWC
    t = x_BTHWC.shape[1]
    frames = x_BTHWC.new_empty(*x_BTHWC.shape[:-1], k, x_BTHWC.shape[-1])
    for i, place in enumerate(frames.unbind(-2)[::-1]):
        stop = max(t - i, 0)
        place[:, :stop] = x_BTHWC[:, i:]
        place[:, stop:] = 0
        if repeat_first:
            place[:, 0] = x_BTHWC[:, : i + 1].sum(dim=1)
    return frames.flatten(-2)


def input_gradient(grad_BOTHW: Tensor, weight: Tensor, repeat_first: bool) -> Tensor:
    """Compute the gradient of the input (B, C, T, H, W)."""
    t, k = grad_BOTHW.shape[2], weight.shape[2]
    m = winograd.tile_size(grad_BOTHW, weight.transpose(0, 1), causal=True)
    if m == 1:
        return input_gradient_directly(grad_BOTHW, weight, repeat_first)

    def multiply(patch_BTHWO: Tensor, weight_CKO: Tensor) -> Tensor:
        return winograd.linear(later(patch_BTHWO, k, repeat_first), weight_CKO.flatten(1))

    weights = [[*row] for row in winograd.transformed(weight.transpose(0, 1), winograd.ROOTS[m], flip=True)]
    return winograd.convolve_tiles(grad_BOTHW, weights, multiply, t)


def input_gradient_directly(grad_BOTHW: Tensor, weight: Tensor, repeat_first: bool) -> Tensor:
    """Compute the same without Winograd's algorithm."""
    before = weight.shape[2] - 1
    size = (len(grad_BOTHW), weight.shape[1], grad_BOTHW.shape[2] + before, *grad_BOTHW.shape[3:])
    if math.prod(size[:4]) > SMALL:
        grad: Tensor = conv3d_input(size, weight, grad_BOTHW, padding=(0, 1, 1))  # type: ignore[no-untyped-call]
    else:
        flipped = weight.flip(2, 3, 4).transpose(0, 1)
        y = grad_BOTHW.contiguous(memory_format=torch.channels_last_3d)
        grad = torch.mkldnn_convolution(y, flipped, None, (before, 1, 1), (1, 1, 1), (1, 1, 1), 1)
    if before and repeat_first:
        grad[:, :, before] += grad[:, :, :before].sum(dim=2)
    return grad[:, :, before:].contiguous(memory_format=torch.channels_last_3d)


def weight_gradient(x_BCTHW: Tensor, grad_BOTHW: Tensor, weight: Tensor, repeat_first: bool) -> Tensor:
    """Compute the gradient of the weight (O, C, k, 3, 3)."""
    b, c, t, h, w = x_BCTHW.shape
    o, _, k, _, _ = weight.shape
    m = max(2, winograd.tile_size(x_BCTHW, weight, causal=True))  # the direct gradient takes the most time
    roots, tall, wide = winograd.ROOTS[m], -(-h // m), -(-w // m)
    x = x_BCTHW.new_empty(t + k - 1, b, m * tall + 2, m * wide + 2, c)  # time first: a product takes all clips
    x[k - 1 :, :, 1 : h + 1, 1 : w + 1] = x_BCTHW.permute(2, 0, 3, 4, 1)
    for border in (x[:, :, :1], x[:, :, h + 1 :], x[:, :, :, :1], x[:, :, :, w + 1 :]):
        border.zero_()
    x[: k - 1] = x[k - 1] if repeat_first else 0
    y = grad_BOTHW.new_empty(m, m, o, t * b * tall * wide)
    for i in range(m):
        for j in range(m):
            part = grad_BOTHW[..., i::m, j::m].permute(2, 0, 3, 4, 1)
            part = F.pad(part, (0, 0, 0, wide - part.shape[3], 0, tall - part.shape[2]))
            y[i, j] = part.reshape(-1, o).T  # of a matrix, PyTorch has a fast copy
    rows = []
    for x_row, y_row in zip(winograd.transform_input(x, 2, roots), spread(y, roots), strict=True):
        products = []
        for patch, values in zip(winograd.transform_input(x_row, 3, roots), spread(y_row, roots), strict=True):
            products.append(products_in_time(values, [patch[i : i + t].view(-1, c) for i in range(k)]))
        rows.append(gather(products, roots))
    gradient = torch.empty_like(weight, memory_format=torch.channels_last_3d)
    for j, column in enumerate(zip(*rows, strict=True)):
        for i, tap in enumerate(gather(column, roots)):
            gradient[..., i, j] = tap.transpose(1, 2)
    return gradient


def products_in_time(y: Tensor, shifted: Sequence[Tensor]) -> Tensor:
    """Return the products of `y` (O, positions) with the input at each step of the kernel in time, as (O, k, C)."""
    if len(y) >= y.shape[1]:  # copying the inputs takes less time than copying the products
        return winograd.linear(y, torch.cat([*shifted], dim=1).mT).view(len(y), len(shifted), -1)
    return torch.stack([winograd.linear(y, x.mT) for x in shifted], dim=1)


def spread(y: Tensor, roots: Sequence[float]) -> Iterator[Tensor]:
    """Transform the gradients of m outputs, along axis 0.

    The transpose of `winograd.transform_output` without its divisors, which `gather` applies.
    """
    yield y[0]
    for p in roots:
        even, odd = y[0], p * y[1]
        if len(y) == 4:
            even, odd = torch.add(even, y[2], alpha=p * p), odd.add_(y[3], alpha=p**3)
        yield even + odd
        yield even - odd
    yield y[-1]


def gather(products: Sequence[Tensor], roots: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of 3 taps from those of transformed ones.

    The transpose of `winograd.transform_weight`, with the divisors that `spread` leaves out.
    """
    a, *others, c = products
    b: Tensor | None = None
    for p, plus, minus in zip(roots, others[::2], others[1::2], strict=True):
        divisor = winograd.scale(p, roots)
        even, odd = plus + minus, plus - minus
        a = torch.add(a, even, alpha=1 / divisor)
        c = torch.add(c, even, alpha=p * p / divisor)
        b = odd.mul_(p / divisor) if b is None else b.add_(odd, alpha=p / divisor)
    assert b is not None
    return a, b, c
