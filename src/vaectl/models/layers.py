"""The layers that both model families are made of, with the parameter names of the published checkpoints.

Every layer takes (x, piece): x is (B, C, T, H, W), kept channels-last in memory (rows of channels, "NDHWC") from end to
end, because norms and 1x1 products are contiguous there and the convolutions are faster; `piece` carries time (see
`context.py`). Layers know nothing of configs, checkpoints or video files.

Layers that look around in space say how far: `margin_before(margin)` is the margin that a tile needs at their input so
that `margin` positions are left at their output (see `Piece.trim`).

Shape suffixes: B batch, C channels, T frames, H height, W width, N = H·W positions of a frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.models import winograd
from vaectl.models.context import Piece, outputs
from vaectl.models.statistics import Statistics, at_least_float32

EPS = 1e-6


def per_frame(function: Callable[[Tensor], Tensor], x_BCTHW: Tensor) -> Tensor:
    """`function` on (B·T, C, H, W), every frame an image of its own."""
    b, _, t, _, _ = x_BCTHW.shape
    frames = function(x_BCTHW.transpose(1, 2).flatten(0, 1))
    return frames.reshape(b, t, *frames.shape[1:]).transpose(1, 2)


def silu(x: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else reads; in place where no gradient asks for the input."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class Layer(nn.Module, ABC):
    """What takes (x, piece) and looks at neighbours only."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, piece: Piece) -> Tensor: ...

    @abstractmethod
    def forward(self, x: Tensor, piece: Piece) -> Tensor: ...

    @abstractmethod
    def margin_before(self, margin: int) -> int: ...


class Chain(Layer):
    """Layers one after the other, each given the same piece; numbered from 0 in the checkpoint."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        for i, layer in enumerate(layers):
            self.add_module(str(i), layer)

    def margin_before(self, margin: int) -> int:
        for layer in reversed([*self.children()]):
            margin = cast(Layer, layer).margin_before(margin)
        return margin

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        for layer in self.children():
            x = piece.run(layer, x)
        return x


# Norms


class ChannelNorm(nn.Module):
    """ "layernorm": LayerNorm over the channels at each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPS)

    def forward(self, x_BCTHW: Tensor, piece: Piece) -> Tensor:
        normed: Tensor = self.norm(x_BCTHW.permute(0, 2, 3, 4, 1))
        return normed.permute(0, 4, 1, 2, 3)


class GroupNorm(nn.Module):
    """32 groups. From statistics that are known beforehand (`piece.statistics`) a piece alone can be computed."""

    groups = 32

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def direct(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.groups, self.weight, self.bias, EPS)

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
    """ "groupnorm": statistics over the whole clip; so no piece of it can be computed alone."""

    whole_clip = True

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        if piece.statistics is None:
            return self.direct(x)
        return self.from_statistics(x, piece.statistics, each_frame=False)


class FrameGroupNorm(GroupNorm):
    """ "groupnorm" inside `ResnetBlock2D`: statistics over each frame."""

    def forward(self, x_BCTHW: Tensor, piece: Piece) -> Tensor:
        if piece.statistics is None:
            return per_frame(self.direct, x_BCTHW)
        frames = piece.statistics.frames(piece.position, piece.position + x_BCTHW.shape[2])
        return self.from_statistics(x_BCTHW, frames, each_frame=True)


def clip_norm(kind: str, channels: int) -> nn.Module:
    return ChannelNorm(channels) if kind == "layernorm" else ClipGroupNorm(channels)


def frame_norm(kind: str, channels: int) -> nn.Module:
    return ChannelNorm(channels) if kind == "layernorm" else FrameGroupNorm(channels)


# Convolutions


class Conv3d(nn.Conv3d):
    """A plain Conv3d, padded in space alone, that gives no frames where it gets too few for one."""

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

    def forward(self, window_BCTHW: Tensor) -> Tensor:
        kernel, stride = self.kernel_size, self.stride
        if outputs(window_BCTHW, kernel[0], stride[0]) == 0:
            height, width = (
                (window_BCTHW.shape[axis + 2] + 2 * self.pads[axis] - kernel[axis]) // stride[axis] + 1
                for axis in (1, 2)
            )
            return window_BCTHW.new_empty(window_BCTHW.shape[0], self.out_channels, 0, height, width)
        if self.pads == (0, 1, 1) and stride == (1, 1, 1) and winograd.pays(window_BCTHW, self.weight):
            return winograd.convolve(window_BCTHW, self.weight, self.bias)
        if window_BCTHW.device.type == "cpu" and winograd.suits_onednn(window_BCTHW, self.weight):
            # Called by name, because F.conv3d takes a far slower kernel than this one where batch, channels, frames and
            # height multiply to 20480 or less, as they do in the pieces of a clip.
            return torch.mkldnn_convolution(
                window_BCTHW, self.weight, self.bias, self.pads, stride, self.dilation, self.groups
            )
        return super().forward(window_BCTHW)


class CausalConv3d(Layer):
    """Convolution that sees the past only: the clip's first frame repeated in front, zeros around each frame."""

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

    def forward(self, x_BCTHW: Tensor, piece: Piece) -> Tensor:
        window = piece.window(self, x_BCTHW, self.conv.kernel_size[0], self.conv.stride[0])
        return piece.trim(self.conv.forward(window), self.conv.pads[1])

    def margin_before(self, margin: int) -> int:
        return margin + self.conv.pads[1]


class Conv2d(Layer):
    """Convolution of each frame by itself; its weights stand under its own name, as those of `nn.Conv2d` do."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel)
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.pad = stride, padding

    def forward(self, x_BCTHW: Tensor, piece: Piece) -> Tensor:
        if self.pad == self.stride == 1 and winograd.pays(x_BCTHW, self.weight):
            y = winograd.convolve(x_BCTHW, self.weight.unsqueeze(2), self.bias)
        else:
            y = per_frame(lambda x: F.conv2d(x, self.weight, self.bias, self.stride, self.pad), x_BCTHW)
        return piece.trim(y, self.pad)

    def margin_before(self, margin: int) -> int:
        return margin + self.pad
