"""Compare kernels: norm and SiLU in one pass with the plain path, and the memory layouts of 3-D convolutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpu_steps.context import Context, Values, dtype_name, free_memory, peak_gib, seconds_of
from vaectl.models import fused_norm
from vaectl.models.context import StreamContext
from vaectl.models.families.wan_layers import RMSNorm
from vaectl.models.layers import ChannelLayerNorm, norm_silu

NORMS: dict[str, type[nn.Module]] = {"LayerNorm": ChannelLayerNorm, "RMSNorm": RMSNorm}
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Maximum error of a value of order 1, relative to the largest."""


def run(context: Context) -> None:
    fused = context.device.type == "cuda" and fused_norm.works(context.device)
    for dtype in context.dtypes:
        for name, kind in NORMS.items():
            for channels in (32,) if context.tiny else (96, 128, 512):
                title = f"{name} of {channels} channels and SiLU, {dtype_name(dtype)}"
                if fused:
                    context.case(title, partial(norm, context, kind, channels, dtype))
                else:
                    context.leave_out(title, "the kernel needs Triton, a C compiler and an NVIDIA GPU")
    for dtype in [torch.float32] if context.tiny else context.dtypes:
        for channels in (8,) if context.tiny else (128, 512):
            title = f"convolution of {channels} channels, {dtype_name(dtype)}"
            context.case(title, partial(convolution, context, channels, dtype))


def norm(context: Context, kind: type[nn.Module], channels: int, dtype: torch.dtype) -> Values:
    """Compare both ways with float64, and time them."""
    layer = kind(channels).to(context.device, dtype).requires_grad_(False)
    x = clip(context, channels, dtype)
    work = partial(norm_silu, layer, x, StreamContext())
    made = work()
    with patch.object(fused_norm, "can_fuse", lambda _: False):
        plain, plain_seconds = work(), seconds_of(work, context.device)
    few = slice(0, 1), slice(None), slice(0, 1)
    exact = norm_silu(kind(channels).to(context.device).double(), x[few].double(), StreamContext())
    error, plain_error = (((y[few].double() - exact).abs().max() / exact.abs().max()).item() for y in (made, plain))
    seconds = seconds_of(work, context.device)
    values = {"ms": 1000 * seconds, "plain ms": 1000 * plain_seconds, "times as fast": plain_seconds / seconds}
    values |= {"GB/s": 2 * x.nbytes / seconds / 1e9, "error": error, "plain error": plain_error}
    return values | {"passed": error <= ROUNDING[dtype]}


def convolution(context: Context, channels: int, dtype: torch.dtype) -> Values:
    """Time a 3x3x3 convolution of channels-last and of contiguous tensors, with the memory that each takes."""
    values: Values = {}
    formats = {"channels-last": torch.channels_last_3d, "contiguous": torch.contiguous_format}
    for name, memory_format in formats.items():
        weight = torch.randn(channels, channels, 3, 3, 3, device=context.device).to(dtype, memory_format=memory_format)
        x = clip(context, channels, dtype).contiguous(memory_format=memory_format)
        work: Callable[[], Tensor] = partial(F.conv3d, x, weight, None, 1, (0, 1, 1))
        free_memory(context.device)
        values[f"{name} ms"] = 1000 * seconds_of(work, context.device)
        values[f"{name} peak GiB"] = peak_gib(context.device)
    return values


def clip(context: Context, channels: int, dtype: torch.dtype) -> Tensor:
    """Return features of 9 frames, larger for fewer channels."""
    frames, side = (3, 8) if context.tiny else (9, 128 if channels > 128 else 256)
    x = torch.randn(1, frames, side, side, channels, device=context.device)
    return x.to(dtype).permute(0, 4, 1, 2, 3)
