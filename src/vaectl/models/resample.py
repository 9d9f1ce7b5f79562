"""Layers that halve or double the frame size or the number of frames, with the published parameter names.

A clip of 1 + 2n frames becomes 1 + n frames and back, because its first frame is separate. The halo of a tile is halved
and doubled too. Where a tile is halved, its position must be even.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.models.context import StreamContext, outputs
from vaectl.models.layers import CausalConv3d, Conv2d, Conv3d, Layer, per_frame


def halved(halo: int) -> int:
    """Return the smallest halo that is at least `halo` when doubled."""
    return (halo + 1) // 2


def pad_right_bottom(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1, 0, 1))


def nearest_2x(x_BCTHW: Tensor) -> Tensor:
    return per_frame(lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), x_BCTHW)


def bilinear_2x(x_BCTHW: Tensor) -> Tensor:
    return per_frame(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False), x_BCTHW)


def upsample_time(layer: nn.Module, x_BCTHW: Tensor, context: StreamContext, interpolation: str) -> Tensor:
    """Double all frames but the first of the clip: repeated ("nearest") or linearly interpolated ("trilinear").

    Linear x2 of x[0..n-1], align_corners=False: out[2i] = (x[i-1] + 3·x[i]) / 4, out[2i+1] = (3·x[i] + x[i+1]) / 4,
    with clamped indices. out[2i+1] needs the next frame, so the newest frame is kept until it comes or the clip ends.
    """
    x = x_BCTHW.permute(0, 2, 3, 4, 1)  # (B, T, H, W, C), so the result is channels-last
    first, rest = (x[:, :1], x[:, 1:]) if context.first else (x[:, :0], x)
    if interpolation == "nearest":
        return torch.cat([first, rest.repeat_interleave(2, dim=1)], dim=1).permute(0, 4, 1, 2, 3)
    held = context.get(layer)
    known = rest if held is None else torch.cat([held, rest], dim=1)
    a, b = known[:, :-1], known[:, 1:]
    between = torch.stack([torch.lerp(a, b, 0.25), torch.lerp(a, b, 0.75)], dim=2).flatten(1, 2)
    begin = known[:, :1] if held is None else known[:, :0]
    end = known[:, -1:] if context.last else known[:, :0]
    if known.shape[1]:
        context.put(layer, known[:, -1:])
    return torch.cat([first, begin, between, end], dim=1).permute(0, 4, 1, 2, 3)


class Downsample(Layer):
    """Halve height and width of each frame separately."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return context.crop_halo(self.conv.forward(pad_right_bottom(x), context), 1)

    def input_halo(self, halo: int) -> int:
        return 2 * (halo + 1)


class SpatialDownsample2x(Layer):
    """Halve height and width with a causal (1, 3, 3) convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(in_channels, out_channels, (1, 3, 3), stride=(1, 2, 2))

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return context.crop_halo(self.conv.forward(pad_right_bottom(x), context), 1)

    def input_halo(self, halo: int) -> int:
        return 2 * (halo + 1)


class Spatial2xTime2x3DDownsample(Layer):
    """Halve height, width and number of frames with a causal 3x3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(in_channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return context.crop_halo(self.conv.forward(pad_right_bottom(x), context), 1)

    def input_halo(self, halo: int) -> int:
        return 2 * (halo + 1)


class Upsample(Layer):
    """Double height and width of each frame separately."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return self.conv.forward(nearest_2x(x), context)

    def input_halo(self, halo: int) -> int:
        return halved(self.conv.input_halo(halo))


class SpatialUpsample2x(Layer):
    """Double height and width with nearest neighbours and a causal (1, 3, 3) convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(in_channels, out_channels, (1, 3, 3), padding=1)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return self.conv.forward(nearest_2x(x), context)

    def input_halo(self, halo: int) -> int:
        return halved(self.conv.input_halo(halo))


class Spatial2xTime2x3DUpsample(Layer):
    """Double height, width and number of frames with interpolation and a causal 3x3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int, interpolation: str = "trilinear") -> None:
        super().__init__()
        self.interpolation = interpolation
        self.conv = CausalConv3d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        x = bilinear_2x(upsample_time(self, x, context, self.interpolation))
        return self.conv.forward(context.crop_halo(x, 1), context)

    def input_halo(self, halo: int) -> int:
        return halved(self.conv.input_halo(halo) + 1)


class TimeDownsample2x(Layer):
    """Halve the number of frames: the mean of three frames, at every second one."""

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return average_3(context.causal_input(self, x, kernel=3, stride=2))

    def input_halo(self, halo: int) -> int:
        return halo


class TimeUpsample2x(Layer):
    """Double the number of frames with linear interpolation."""

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return upsample_time(self, x, context, "trilinear")

    def input_halo(self, halo: int) -> int:
        return halo


class TimeDownsampleRes2x(Layer):
    """Halve the number of frames: the mean of three frames and a convolution, mixed in a trained ratio."""

    def __init__(self, channels: int, mix_factor: float = 2.0) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([mix_factor]))
        self.conv = Conv3d(channels, channels, 3, stride=(2, 1, 1), padding=1)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        frames = context.causal_input(self, x, kernel=3, stride=2)
        return context.crop_halo(mix(self.conv.forward(frames), average_3(frames), self.mix_factor), 1)

    def input_halo(self, halo: int) -> int:
        return halo + 1


class TimeUpsampleRes2x(Layer):
    """Double the number of frames: linear interpolation and a convolution of it, mixed in a trained ratio."""

    def __init__(self, channels: int, mix_factor: float = 2.0) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([mix_factor]))
        self.conv = CausalConv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        x = upsample_time(self, x, context, "trilinear")
        h = self.conv.forward(x, context)
        return mix(h, context.crop_halo(x, 1), self.mix_factor)

    def input_halo(self, halo: int) -> int:
        return self.conv.input_halo(halo)


def mix(h: Tensor, x: Tensor, mix_factor: Tensor) -> Tensor:
    """Mix a share of sigmoid(mix_factor) of `x` into `h`, in the type of `h`, which autocast chooses."""
    return torch.lerp(h, x.to(h.dtype), torch.sigmoid(mix_factor).to(h.dtype))


def average_3(frames_BCTHW: Tensor) -> Tensor:
    """Return the mean of three consecutive frames, at every second frame."""
    end = 2 * outputs(frames_BCTHW, kernel=3, stride=2)
    a, b, c = (frames_BCTHW[:, :, i : i + end : 2] for i in range(3))
    return (a + b + c) / 3
