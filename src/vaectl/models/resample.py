"""Layers that halve or double the frame size or the number of frames, with the published parameter names.

A clip of 1 + 2n frames becomes 1 + n and back: its first frame stands alone. A tile's margin is halved and doubled with
it; its position has to be even where it is halved.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.models.context import Piece, outputs
from vaectl.models.layers import CausalConv3d, Conv2d, Conv3d, Layer, per_frame


def halved(margin: int) -> int:
    """The margin that becomes at least `margin` when it is doubled."""
    return (margin + 1) // 2


def pad_right_bottom(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1, 0, 1))


def nearest_2x(x_BCTHW: Tensor) -> Tensor:
    return per_frame(lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), x_BCTHW)


def bilinear_2x(x_BCTHW: Tensor) -> Tensor:
    return per_frame(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False), x_BCTHW)


def upsample_time(layer: nn.Module, x_BCTHW: Tensor, piece: Piece, interpolation: str) -> Tensor:
    """The clip's first frame as it is, every other frame twice ("nearest") or interpolated linearly ("trilinear").

    Linear x2 of x[0..n-1], align_corners=False: out[2i] = (x[i-1] + 3·x[i]) / 4, out[2i+1] = (3·x[i] + x[i+1]) / 4,
    indices clamped. Out[2i+1] needs the next frame, so the newest frame is held until that comes or the clip ends.
    """
    x = x_BCTHW.permute(0, 2, 3, 4, 1)  # (B, T, H, W, C): what follows stays channels-last
    first, rest = (x[:, :1], x[:, 1:]) if piece.first else (x[:, :0], x)
    if interpolation == "nearest":
        return torch.cat([first, rest.repeat_interleave(2, dim=1)], dim=1).permute(0, 4, 1, 2, 3)
    held = piece.recall(layer)
    known = rest if held is None else torch.cat([held, rest], dim=1)
    a, b = known[:, :-1], known[:, 1:]
    between = torch.stack([torch.lerp(a, b, 0.25), torch.lerp(a, b, 0.75)], dim=2).flatten(1, 2)
    begin = known[:, :1] if held is None else known[:, :0]
    end = known[:, -1:] if piece.last else known[:, :0]
    if known.shape[1]:
        piece.keep(layer, known[:, -1:])
    return torch.cat([first, begin, between, end], dim=1).permute(0, 4, 1, 2, 3)


class Downsample(Layer):
    """Half the height and width, each frame by itself."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        return piece.trim(self.conv.forward(pad_right_bottom(x), piece), 1)

    def margin_before(self, margin: int) -> int:
        return 2 * (margin + 1)


class SpatialDownsample2x(Layer):
    """Half the height and width, by a causal (1, 3, 3) convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(in_channels, out_channels, (1, 3, 3), stride=(1, 2, 2))

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        return piece.trim(self.conv.forward(pad_right_bottom(x), piece), 1)

    def margin_before(self, margin: int) -> int:
        return 2 * (margin + 1)


class Spatial2xTime2x3DDownsample(Layer):
    """Half the height, width and frames, by a causal 3x3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(in_channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        return piece.trim(self.conv.forward(pad_right_bottom(x), piece), 1)

    def margin_before(self, margin: int) -> int:
        return 2 * (margin + 1)


class Upsample(Layer):
    """Twice the height and width, each frame by itself."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        return self.conv.forward(nearest_2x(x), piece)

    def margin_before(self, margin: int) -> int:
        return halved(self.conv.margin_before(margin))


class SpatialUpsample2x(Layer):
    """Twice the height and width, by nearest neighbours and a causal (1, 3, 3) convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(in_channels, out_channels, (1, 3, 3), padding=1)

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        return self.conv.forward(nearest_2x(x), piece)

    def margin_before(self, margin: int) -> int:
        return halved(self.conv.margin_before(margin))


class Spatial2xTime2x3DUpsample(Layer):
    """Twice the height, width and frames, by interpolation and a causal 3x3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int, interpolation: str = "trilinear") -> None:
        super().__init__()
        self.interpolation = interpolation
        self.conv = CausalConv3d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        x = bilinear_2x(upsample_time(self, x, piece, self.interpolation))
        return self.conv.forward(piece.trim(x, 1), piece)

    def margin_before(self, margin: int) -> int:
        return halved(self.conv.margin_before(margin) + 1)


class TimeDownsample2x(Layer):
    """Half the frames: the average of three, at every second one."""

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        return average_3(piece.window(self, x, kernel=3, stride=2))

    def margin_before(self, margin: int) -> int:
        return margin


class TimeUpsample2x(Layer):
    """Twice the frames, by linear interpolation."""

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        return upsample_time(self, x, piece, "trilinear")

    def margin_before(self, margin: int) -> int:
        return margin


class TimeDownsampleRes2x(Layer):
    """Half the frames: the average of three mixed with a convolution, in a trained proportion."""

    def __init__(self, channels: int, mix_factor: float = 2.0) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([mix_factor]))
        self.conv = Conv3d(channels, channels, 3, stride=(2, 1, 1), padding=1)

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        window = piece.window(self, x, kernel=3, stride=2)
        mixed = torch.lerp(self.conv.forward(window), average_3(window), torch.sigmoid(self.mix_factor))
        return piece.trim(mixed, 1)

    def margin_before(self, margin: int) -> int:
        return margin + 1


class TimeUpsampleRes2x(Layer):
    """Twice the frames: linear interpolation mixed with a convolution of it, in a trained proportion."""

    def __init__(self, channels: int, mix_factor: float = 2.0) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([mix_factor]))
        self.conv = CausalConv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        x = upsample_time(self, x, piece, "trilinear")
        h = self.conv.forward(x, piece)
        return torch.lerp(h, piece.match(x, h), torch.sigmoid(self.mix_factor))

    def margin_before(self, margin: int) -> int:
        return self.conv.margin_before(margin)


def average_3(window_BCTHW: Tensor) -> Tensor:
    """The mean of each three consecutive frames, at every second frame."""
    end = 2 * outputs(window_BCTHW, kernel=3, stride=2)
    a, b, c = (window_BCTHW[:, :, i : i + end : 2] for i in range(3))
    return (a + b + c) / 3
