"""The layers of the VAEs of Wan and Qwen-Image, with the parameter names of diffusers."""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from vaectl.models import fused_norm
from vaectl.models.blocks import ResnetBlock, attend_in_frames
from vaectl.models.context import StreamContext
from vaectl.models.layers import Block, Conv2d, Conv3d, Layer, causal_conv3d
from vaectl.models.resample import halved, nearest_2x, pad_right_bottom
from vaectl.models.segments import Segment
from vaectl.models.statistics import at_least_float32

LEAST_NORM = 1e-12


class RMSNorm(nn.Module):
    """Divide the channels of each position by their root mean square; `dims` axes follow that of `gamma`."""

    def __init__(self, channels: int, dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * dims))

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        x = x_BCTHW.permute(0, 2, 3, 4, 1).to(at_least_float32(x_BCTHW))
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(LEAST_NORM)
        normed: Tensor = x * (len(self.gamma) ** 0.5 / norm)
        gamma = self.gamma.flatten()
        normed = normed * gamma if torch.is_grad_enabled() else normed.mul_(gamma)
        return normed.to(x_BCTHW.dtype).permute(0, 4, 1, 2, 3)

    def with_silu(self, x_NC: Tensor) -> Tensor:
        return fused_norm.rms_norm_silu(x_NC, self.gamma.flatten(), LEAST_NORM)


class CausalConv3d(Layer):
    """Causal convolution: zeros in front of the clip and around each frame; names of `nn.Conv3d`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int | tuple[int, int, int] = 3, padding: int = 0
    ) -> None:
        super().__init__()
        conv = nn.Conv3d(in_channels, out_channels, kernel)
        self.weight, self.bias, self.pad = conv.weight, conv.bias, padding

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        return causal_conv3d(self, x_BCTHW, self.weight, self.bias, context, pad=self.pad, before="zeros")

    def input_halo(self, halo: int) -> int:
        return halo + self.pad


class ResidualBlock(ResnetBlock):
    shortcut_name = "conv_shortcut"

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = RMSNorm(in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, padding=1)
        self.norm2 = RMSNorm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = CausalConv3d(out_channels, out_channels, padding=1)
        self.conv_shortcut = CausalConv3d(in_channels, out_channels, 1) if in_channels != out_channels else None


class AttentionBlock(Block):
    """Norm and single-head self-attention over the positions of each frame, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels, dims=2)
        self.to_qkv = Conv2d(channels, 3 * channels, 1)
        self.proj = Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        q, k, v = self.to_qkv(self.norm(x, context), context).chunk(3, dim=1)
        return x + self.proj(attend_in_frames(q, k, v), context)

    def segments(self, x: str, y: str) -> list[Segment]:
        return [Segment(self, x, y, sees="frame", block=self)]


class DownConv2d(Conv2d):
    """Halve height and width of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return context.crop_halo(super().forward(pad_right_bottom(x), context), 1)

    def input_halo(self, halo: int) -> int:
        return 2 * (halo + 1)


class UpConv2d(Conv2d):
    """Double height and width of each frame."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return super().forward(nearest_2x(x), context)

    def input_halo(self, halo: int) -> int:
        return halved(super().input_halo(halo))


class Downsample(Layer):
    """Halve height and width; with `time` also the number of frames, where the first frame of the clip stays alone."""

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": DownConv2d(channels)})
        self.time_conv = Conv3d(channels, channels, (3, 1, 1), (2, 1, 1)) if time else None

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        x = self.resample["1"](x, context)
        if self.time_conv is None:
            return x
        first = x[:, :, : int(context.first)]
        frames = context.causal_input(self, x, kernel=3, stride=2, padding="none")
        return torch.cat([first, self.time_conv(frames)], dim=2)

    def input_halo(self, halo: int) -> int:
        return cast(Layer, self.resample["1"]).input_halo(halo)


class Upsample(Layer):
    """Double height and width; with `time` also the number of frames, except the first, which nothing sees in time."""

    def __init__(self, in_channels: int, out_channels: int, *, time: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": UpConv2d(in_channels, out_channels)})
        self.time_conv = CausalConv3d(in_channels, 2 * in_channels, (3, 1, 1)) if time else None

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        if self.time_conv is not None:
            alone = int(context.first)
            pairs = self.time_conv(x[:, :, alone:], context).permute(0, 2, 3, 4, 1)
            doubled = rearrange(pairs, "b t h w (two c) -> b (t two) h w c", two=2)
            x = torch.cat([x[:, :, :alone], doubled.permute(0, 4, 1, 2, 3)], dim=2)
        return cast(Tensor, self.resample["1"](x, context))

    def input_halo(self, halo: int) -> int:
        return cast(Layer, self.resample["1"]).input_halo(halo)


class AverageDown(Layer):
    """Halve height and width, with `time` also the frames; output channels are means of the values of each 1x2x2 or
    2x2x2 block, channel by channel. Zeros precede the clip."""

    def __init__(self, in_channels: int, out_channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.out_channels, self.space, self.time = out_channels, 1 + space, 1 + time

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        if self.time == 2:
            x = context.causal_input(self, x, kernel=2, stride=2, padding="zeros")
            x = x[:, :, : x.shape[2] // 2 * 2]
        x = rearrange(x, "b c (t i) (h j) (w k) -> b t h w (c i j k)", i=self.time, j=self.space, k=self.space)
        values = x.shape[-1] // self.out_channels
        return x.reshape(*x.shape[:4], self.out_channels, values).mean(-1).permute(0, 4, 1, 2, 3)

    def input_halo(self, halo: int) -> int:
        return self.space * halo


class RepeatUp(Layer):
    """Double height and width, with `time` also the frames but the first; each value fills several outputs."""

    def __init__(self, in_channels: int, out_channels: int, *, time: bool) -> None:
        super().__init__()
        self.repeats, self.time = out_channels * 4 * (1 + time) // in_channels, 1 + time

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        x = x.permute(0, 2, 3, 4, 1).repeat_interleave(self.repeats, dim=-1)
        x = rearrange(x, "b t h w (c i j k) -> b (t i) (h j) (w k) c", i=self.time, j=2, k=2)
        return x[:, (self.time - 1) * context.first :].permute(0, 4, 1, 2, 3)

    def input_halo(self, halo: int) -> int:
        return halved(halo)


class Patchify(Layer):
    """From a video to its patches, with the values of each in the channels: channel, column, row."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        x = rearrange(x, "b c t (h j) (w k) -> b t h w (c k j)", j=self.patch, k=self.patch)
        return x.permute(0, 4, 1, 2, 3)

    def input_halo(self, halo: int) -> int:
        return self.patch * halo


class Unpatchify(Layer):
    """The inverse of `Patchify`."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        x = rearrange(x, "b (c k j) t h w -> b t (h j) (w k) c", j=self.patch, k=self.patch)
        return x.permute(0, 4, 1, 2, 3)

    def input_halo(self, halo: int) -> int:
        return -(-halo // self.patch)
