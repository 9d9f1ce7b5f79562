"""The layers that several families share, with the parameter names of the published checkpoints.

Every layer takes (x, context). x is (B, C, T, H, W), always channels-last in memory ("NDHWC"), where norms and 1x1
products are contiguous and convolutions are faster. `context` holds the state in time (see `context.py`). Layers do not
know configs, checkpoints or video files.

`input_halo(halo)` of a layer is the halo that a tile needs at its input, so that `halo` positions remain at its output
(see `StreamContext.crop_halo`).

Shape suffixes: B batch, C channels, T frames, H height, W width, N = H·W positions of a frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.errors import UsageError
from vaectl.models import convolution, fused_norm, winograd_training
from vaectl.models.context import Padding, StreamContext, outputs
from vaectl.models.segments import Segment
from vaectl.models.statistics import Statistics, at_least_float32

EPS = 1e-6
HAVE_AUTOCAST = frozenset(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))
"""Types of device. Not asked in a layer: `torch.compile` of PyTorch 2.4 cannot trace the function."""


def per_frame(function: Callable[[Tensor], Tensor], x_BCTHW: Tensor) -> Tensor:
    """Apply `function` to the frames as images, (B·T, C, H, W)."""
    b, _, t, _, _ = x_BCTHW.shape
    frames = function(x_BCTHW.transpose(1, 2).flatten(0, 1))
    return frames.reshape(b, t, *frames.shape[1:]).transpose(1, 2)


def silu(x: Tensor) -> Tensor:
    """SiLU of a temporary tensor; in place if no gradient needs the input."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def add(h: Tensor, x: Tensor) -> Tensor:
    """Add `x` to a temporary tensor `h`; in place if no gradient needs `h`, its type stays, and it is not a crop."""
    whole = h.is_contiguous(memory_format=torch.channels_last_3d)
    return h.add_(x) if whole and h.dtype == x.dtype and not torch.is_grad_enabled() else h + x


def like_weight(x: Tensor, weight: Tensor) -> Tensor:
    """Convert `x` to the type of a weight: a layer computes in that type. Under autocast, PyTorch chooses the type."""
    kind = x.device.type
    if x.dtype == weight.dtype or (kind in HAVE_AUTOCAST and torch.is_autocast_enabled(kind)):
        return x
    return x.to(weight.dtype)


class Block(nn.Module, ABC):
    """A module from (x, context) to a tensor, made of one or more segments."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, context: StreamContext) -> Tensor: ...

    @abstractmethod
    def forward(self, x: Tensor, context: StreamContext) -> Tensor: ...

    @abstractmethod
    def segments(self, x: str, y: str) -> list[Segment]:
        """Return the segments from the value named `x` to the value named `y`."""


class Layer(Block):
    """A block that sees only neighbouring positions."""

    @abstractmethod
    def input_halo(self, halo: int) -> int: ...

    def segments(self, x: str, y: str) -> list[Segment]:
        return [Segment(self, x, y, layer=self, block=self)]


class Sequential(Layer):
    """Blocks in order with one context; numbered from 0 in the checkpoint."""

    def __init__(self, *blocks: Block) -> None:
        super().__init__()
        for i, block in enumerate(blocks):
            self.add_module(str(i), block)

    def input_halo(self, halo: int) -> int:
        for layer in reversed([*self.children()]):
            halo = cast(Layer, layer).input_halo(halo)
        return halo

    def segments(self, x: str, y: str) -> list[Segment]:
        return in_order(self.children(), x, y)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        for block in self.children():
            x = context.run(block, x)
        return x


def in_order(blocks: Iterable[nn.Module], x: str, y: str) -> list[Segment]:
    """Return the segments of consecutive blocks."""
    segments: list[Segment] = []
    for block in blocks:
        segments += cast(Block, block).segments(y if segments else x, y)
    return segments


# Norms


def norm_silu(norm: nn.Module, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
    """SiLU of a norm, in one pass where the norm has one (`with_silu`) and the GPU can."""
    fused: Callable[[Tensor], Tensor] | None = getattr(norm, "with_silu", None)
    if fused is not None and fused_norm.can_fuse(x_BCTHW):
        return fused(x_BCTHW.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
    return silu(norm(x_BCTHW, context))


class ChannelLayerNorm(nn.Module):
    """ "layernorm": LayerNorm over the channels at each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPS)

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        normed: Tensor = self.norm(x_BCTHW.permute(0, 2, 3, 4, 1))
        return normed.permute(0, 4, 1, 2, 3)

    def with_silu(self, x_NC: Tensor) -> Tensor:
        return fused_norm.layer_norm_silu(x_NC, self.norm.weight, self.norm.bias, EPS)


class GroupNorm(nn.Module):
    """GroupNorm with 32 groups. Local, if its statistics are given (`context.statistics`)."""

    groups = 32

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % self.groups:
            raise UsageError(f"a GroupNorm of {self.groups} groups cannot take {channels} channels")
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def direct(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.groups, self.weight, self.bias, EPS)  # F.group_norm refuses single values

    def from_statistics(self, x_BCTHW: Tensor, statistics: Statistics, *, each_frame: bool) -> Tensor:
        mean, variance = statistics.of_groups(self.groups, each_frame=each_frame)
        times, exact = len(self.weight) // self.groups, at_least_float32(x_BCTHW)
        mean, scale = (
            y.mT.repeat_interleave(times, dim=2)[:, :, None, None].to(x_BCTHW.device, exact)
            for y in (mean, torch.rsqrt(variance + EPS))
        )
        scale = scale * self.weight
        shift = self.bias - mean * scale
        normed = torch.addcmul(shift, x_BCTHW.permute(0, 2, 3, 4, 1), scale)
        return normed.permute(0, 4, 1, 2, 3).to(x_BCTHW.dtype)


class ClipGroupNorm(GroupNorm):
    """ "groupnorm": statistics over the whole clip."""

    over = "clip"

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        if context.statistics is None:
            return self.direct(x)
        return self.from_statistics(x, context.statistics, each_frame=False)


class FrameGroupNorm(GroupNorm):
    """ "groupnorm" inside `ResnetBlock2D`: statistics over each frame."""

    over = "frame"

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        if context.statistics is None:
            return per_frame(self.direct, x_BCTHW)
        return self.from_statistics(x_BCTHW, context.statistics, each_frame=True)


def clip_norm(kind: str, channels: int) -> nn.Module:
    return ChannelLayerNorm(channels) if kind == "layernorm" else ClipGroupNorm(channels)


def frame_norm(kind: str, channels: int) -> nn.Module:
    return ChannelLayerNorm(channels) if kind == "layernorm" else FrameGroupNorm(channels)


# Convolutions


class Conv3d(nn.Conv3d):
    """A Conv3d that is padded only in space, and returns no frames if the input is too short."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] = 1,
        padding: int = 0,
    ) -> None:
        self.pads = (0, padding, padding)
        super().__init__(in_channels, out_channels, kernel, stride, self.pads)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return conv3d(x_BCTHW, self.weight, self.bias, cast(convolution.Triple, self.stride), self.pads)


def conv3d(
    x_BCTHW: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: convolution.Triple = (1, 1, 1),
    padding: convolution.Triple = (0, 0, 0),
) -> Tensor:
    """Compute `torch.nn.functional.conv3d` without padding in time; no frames if the input is too short."""
    kernel, x_BCTHW = weight.shape[2:], like_weight(x_BCTHW, weight)
    if outputs(x_BCTHW, kernel[0], stride[0]) == 0:
        height, width = ((x_BCTHW.shape[i + 2] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (1, 2))
        return x_BCTHW.new_empty(x_BCTHW.shape[0], len(weight), 0, height, width)
    return convolution.conv3d(x_BCTHW, weight, bias, stride, padding)


def causal_conv3d(
    layer: nn.Module,
    x_BCTHW: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    context: StreamContext,
    stride: convolution.Triple = (1, 1, 1),
    pad: int = 0,
    before: Padding = "first",
) -> Tensor:
    """Convolve with `pad` zeros around each frame, and in time as `StreamContext.causal_input` pads it for `layer`."""
    whole_clip = context.first and context.last
    if whole_clip and convolution.trains_in_winograd(x_BCTHW, weight, stride, (0, pad, pad)):
        y = winograd_training.causal_convolve(x_BCTHW, weight, bias, repeat_first=before == "first")
    else:
        frames = context.causal_input(layer, x_BCTHW, weight.shape[2], stride[0], before)
        y = conv3d(frames, weight, bias, stride, (0, pad, pad))
    return context.crop_halo(y, pad)


class CausalConv3d(Layer):
    """Causal convolution: the first frame of the clip is repeated in front, each frame is padded with zeros."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int, int] = 3,
        stride: int | tuple[int, int, int] = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.conv = Conv3d(in_channels, out_channels, kernel, stride, padding)

    @property
    def weight(self) -> Tensor:
        return self.conv.weight

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        stride, pad = cast(convolution.Triple, self.conv.stride), self.conv.pads[1]
        return causal_conv3d(self, x_BCTHW, self.weight, self.conv.bias, context, stride, pad)

    def input_halo(self, halo: int) -> int:
        return halo + self.conv.pads[1]


class Conv2d(Layer):
    """Convolution of each frame, with the parameter names of `nn.Conv2d`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel)
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.pad = stride, padding

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        x = like_weight(x_BCTHW, self.weight)
        y = convolution.conv2d(x, self.weight, self.bias, self.stride, self.pad)
        return context.crop_halo(y, self.pad)

    def input_halo(self, halo: int) -> int:
        return halo + self.pad
