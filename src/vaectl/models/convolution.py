"""Choose the kernel of a convolution. No other place decides this.

`torch.nn.functional` works everywhere. For float32 on the CPU there are faster kernels, which are not part of PyTorch's
public API. If a build lacks one, the public function computes the same result.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vaectl.models import winograd, winograd_training

Triple = tuple[int, int, int]

ONEDNN = bool(torch.backends.mkldnn.is_available()) and hasattr(torch, "mkldnn_convolution")  # type: ignore[no-untyped-call]
"""Whether oneDNN can be called directly. Not every build of PyTorch has it."""
WINOGRAD = ONEDNN and winograd.available()


def conv3d(x_BCTHW: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple) -> Tensor:
    """Compute `torch.nn.functional.conv3d` with the fastest kernel."""
    if can_use_onednn(x_BCTHW, weight):
        if WINOGRAD and winograd.is_faster(x_BCTHW, weight, stride, padding):
            return winograd.convolve(x_BCTHW, weight, bias)
        # F.conv3d chooses a much slower kernel if batch * channels * frames * height <= 20480, as in the windows of a
        # clip.
        return torch.mkldnn_convolution(x_BCTHW, weight, bias, padding, stride, (1, 1, 1), 1)
    return F.conv3d(x_BCTHW, weight, bias, stride, padding)


def conv2d(x_BCTHW: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Compute `torch.nn.functional.conv2d` of every frame with the fastest kernel."""
    steps, pads = (1, stride, stride), (0, padding, padding)
    if trains_in_winograd(x_BCTHW, weight.unsqueeze(2), steps, pads):
        return winograd_training.causal_convolve(x_BCTHW, weight.unsqueeze(2), bias)
    if WINOGRAD and can_use_onednn(x_BCTHW, weight) and winograd.is_faster(x_BCTHW, weight.unsqueeze(2), steps, pads):
        return winograd.convolve(x_BCTHW, weight.unsqueeze(2), bias, parameter=weight)
    b, _, t, _, _ = x_BCTHW.shape
    frames = F.conv2d(x_BCTHW.transpose(1, 2).flatten(0, 1), weight, bias, stride, padding)
    return frames.reshape(b, t, *frames.shape[1:]).transpose(1, 2)


def trains_in_winograd(x: Tensor, weight: Tensor, stride: Triple, padding: Triple) -> bool:
    """Whether `winograd_training.causal_convolve` is the fastest kernel for a layer that needs gradients."""
    return (
        WINOGRAD
        and (stride, padding) == ((1, 1, 1), (0, 1, 1))
        and can_use_onednn(x, weight)
        and winograd_training.is_faster(x, weight)
    )


def can_use_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels for float32 on the CPU can be used. `torch.compile` cannot trace them."""
    return (
        ONEDNN
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def workspace(x: Tensor, weight: Tensor, stride: Triple, padding: Triple) -> int:
    """Return the number of temporary values of a float32 convolution on the CPU, without input and output."""
    if WINOGRAD and winograd.is_faster(x, weight, stride, padding):
        return winograd.workspace(x, weight)
    return 0
