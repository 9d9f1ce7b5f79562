"""A norm over channels and SiLU in one pass over memory, on NVIDIA GPUs without gradients; optional, needs Triton."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from warnings import warn

import torch
from torch import Tensor

TILE = 4096
"""Values that a program of the kernel computes at once."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def can_fuse(x: Tensor) -> bool:
    """Whether the kernel can take `x`. Elsewhere, the norm and SiLU run one after the other."""
    return (
        x.device.type == "cuda"
        and x.dtype in DTYPES
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cuda")
        and not torch.compiler.is_compiling()
        and works(x.device)
    )


@cache
def works(device: torch.device) -> bool:
    """Whether Triton is there and compiles the kernel. It needs a C compiler, and refuses old GPUs."""
    if torch.version.hip or find_spec("triton") is None:
        return False
    ones = torch.ones(1, 32, device=device)
    try:
        layer_norm_silu(ones, ones[0], ones[0], 1e-6)
    except Exception as error:  # whatever Triton raises, the plain path gives the same result
        warn(f"norms are slower, because Triton does not work here: {error}", stacklevel=2)
        return False
    return True


def layer_norm_silu(x_NC: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Compute SiLU of the LayerNorm over the last axis of `x_NC` (..., C), in float32 inside. Returns the type of x."""
    return launch(x_NC, weight, bias, eps, layer_norm=True)


def rms_norm_silu(x_NC: Tensor, weight: Tensor, least: float) -> Tensor:
    """Compute SiLU of `weight` times `x_NC` (..., C) divided by its root mean square. See `layer_norm_silu`.

    `least`: the least norm of the C values to divide by.
    """
    return launch(x_NC, weight, weight, least, layer_norm=False)


def launch(x_NC: Tensor, weight: Tensor, bias: Tensor, eps: float, *, layer_norm: bool) -> Tensor:
    """Run the kernel on the device of `x_NC`."""
    from vaectl.models.norm_kernel import norm_silu_kernel

    x = x_NC.contiguous()
    y, channels = torch.empty_like(x), x.shape[-1]
    rows, width = x.numel() // channels, 1 << (channels - 1).bit_length()
    at_once = max(1, TILE // width)
    if rows:
        with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
            norm_silu_kernel[(-(-rows // at_once),)](
                *(x, y, weight, bias, rows, channels, math.sqrt(channels), eps),
                LAYER_NORM=layer_norm,
                ROWS=at_once,
                CHANNELS=width,
            )
    return y
