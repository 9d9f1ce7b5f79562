"""A family that has nothing in common with the published ones, to show that the executor works for any family.

Five channels in and two out; three frames and 6x6 pixels to a latent position; zeros before the clip, and the edges of
a frame repeated around it; layers that look ahead, which delay later layers; a norm over each frame, one over
the clip (or, to stream, over the channels), attention over a frame; the video read again after the norm, and a value
of the first group read by the third.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.models.blocks import attend_in_frames
from vaectl.models.config import FamilyConfig
from vaectl.models.context import StreamContext
from vaectl.models.layers import ChannelLayerNorm, ClipGroupNorm, Conv3d, FrameGroupNorm, Layer, per_frame
from vaectl.models.segments import Segment
from vaectl.models.vae import VideoVAE


class ToyConfig(FamilyConfig):
    class_name = "Toy"

    width: int = 4
    over_clip: bool = True
    """Whether there are norms over the clip."""

    @property
    def latent_channels(self) -> int:
        return 3

    @property
    def time_compression(self) -> int:
        return 3

    @property
    def space_compression(self) -> int:
        return 6


class FrameNorm(FrameGroupNorm):
    groups = 2


class ClipNorm(ClipGroupNorm):
    groups = 2


class ZeroConv3d(Layer):
    """Causal, with zeros before the clip; the edges of each frame repeated around it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv3d(in_channels, out_channels, 3, (stride, 1, 1))
        self.stride = stride

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        before = context.get(self)
        if before is None:
            before = torch.zeros_like(x_BCTHW[:, :, :1]) if x_BCTHW.shape[2] else x_BCTHW
            before = torch.cat([before] * 2, dim=2)
        frames = torch.cat([before, x_BCTHW], dim=2)
        if frames.shape[2]:
            made = max(0, (frames.shape[2] - 3) // self.stride + 1)
            context.put(self, frames[:, :, made * self.stride :])
        return context.crop_halo(self.conv.forward(repeat_edges(frames)), 1)

    def input_halo(self, halo: int) -> int:
        return halo + 1


class LookAhead(Layer):
    """Sees the frame before and the frame after; zeros before and after the clip. Delays frames by one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, channels, 1, 1, 1) / 2)

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        held = context.get(self)
        zero = x_BCTHW.new_zeros(*x_BCTHW.shape[:2], 1, *x_BCTHW.shape[3:])
        frames = torch.cat([zero if held is None else held, x_BCTHW, *[zero] * context.last], dim=2)
        context.put(self, frames[:, :, max(0, frames.shape[2] - 2) :])
        made = max(0, frames.shape[2] - 2)
        before, now, after = (frames[:, :, i : i + made] * weight for i, weight in enumerate(self.weight))
        return before + now + after

    def input_halo(self, halo: int) -> int:
        return halo


class Shrink(Layer):
    """Takes the mean of each block of pixels."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        b, c, t, h, w = x_BCTHW.shape
        blocks = x_BCTHW.reshape(b, c, t, h // self.times, self.times, w // self.times, self.times)
        return blocks.mean((4, 6))

    def input_halo(self, halo: int) -> int:
        return self.times * halo


class Enlarge(Layer):
    """Repeats each pixel."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        return x_BCTHW.repeat_interleave(self.times, 3).repeat_interleave(self.times, 4)

    def input_halo(self, halo: int) -> int:
        return -(-halo // self.times)


class MoreFrames(Layer):
    """Repeats each frame three times, except the clip's first."""

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        started = context.get(self)
        if x_BCTHW.shape[2] or started is not None:
            context.put(self, x_BCTHW[:, :, :0])
        made = x_BCTHW.repeat_interleave(3, 2)
        return made if started is not None else made[:, :, 2:]

    def input_halo(self, halo: int) -> int:
        return halo


def repeat_edges(x_BCTHW: Tensor) -> Tensor:
    if x_BCTHW.shape[2] == 0:
        return F.pad(x_BCTHW, (1, 1, 1, 1))
    return per_frame(lambda frames: F.pad(frames, (1, 1, 1, 1), mode="replicate"), x_BCTHW)


class ClipNormed(Layer):
    """A norm over the clip, or over channels, and a convolution."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.norm = ClipNorm(config.width) if config.over_clip else ChannelLayerNorm(config.width)
        self.conv = ZeroConv3d(config.width, config.width)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return torch.tanh(self.conv(self.norm(x, context), context))

    def input_halo(self, halo: int) -> int:
        return self.conv.input_halo(halo)

    def segments(self, x: str, y: str) -> list[Segment]:
        return [Segment(self, x, y, layer=self, norm=self.norm)]


class FrameNormed(Layer):
    """A norm over each frame, and a convolution."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.norm, self.conv = FrameNorm(config.width), ZeroConv3d(config.width, config.width)

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return self.conv.forward(self.norm.forward(x, context), context)

    def input_halo(self, halo: int) -> int:
        return self.conv.input_halo(halo)

    def segments(self, x: str, y: str) -> list[Segment]:
        return [Segment(self, x, y, layer=self, norm=self.norm)]


def attention(h: Tensor, context: StreamContext) -> Tensor:
    return h + attend_in_frames(h, 2 * h, h)


class Toy(VideoVAE[ToyConfig]):
    config_class = ToyConfig
    in_channels = 5
    out_channels = 2

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        width = config.width
        self.conv_in = ZeroConv3d(5, width)
        self.look_ahead1, self.look_ahead2, self.look_ahead3 = (LookAhead(width) for _ in range(3))
        self.norm1, self.norm2, self.norm3 = (ClipNormed(config) for _ in range(3))
        self.frame_norm1, self.frame_norm2 = FrameNormed(config), FrameNormed(config)
        self.from_video = ZeroConv3d(5, width)
        self.fewer_frames = ZeroConv3d(width, width, stride=3)
        self.moments = ZeroConv3d(width, 2 * config.latent_channels)
        self.conv_latent = ZeroConv3d(config.latent_channels, width)
        self.conv_skip = ZeroConv3d(width, width)
        self.conv_out = ZeroConv3d(width, 2)
        self.shrink2, self.shrink3, self.enlarge2, self.enlarge3 = Shrink(2), Shrink(3), Enlarge(2), Enlarge(3)
        self.more_frames = MoreFrames()

    def encoder_segments(self) -> list[Segment]:
        return [
            *self.conv_in.segments("x", "h"),
            *self.look_ahead1.segments("h", "h"),
            *self.frame_norm1.segments("h", "h"),
            *self.norm1.segments("h", "h"),
            Segment(self.add_video, "x h", "h", layer=self.from_video),
            *self.shrink2.segments("h", "h"),
            Segment(attention, "h", "h", sees="frame"),
            *self.fewer_frames.segments("h", "h"),
            *self.shrink3.segments("h", "h"),
            *self.moments.segments("h", "y"),
        ]

    def decoder_segments(self) -> list[Segment]:
        return [
            *self.conv_latent.segments("x", "h"),
            *self.enlarge3.segments("h", "h"),
            *self.conv_skip.segments("h", "skip"),
            *self.norm2.segments("h", "h"),
            *self.look_ahead2.segments("h", "h"),
            *self.frame_norm2.segments("h", "h"),
            Segment(attention, "h", "h", sees="frame"),
            *self.norm3.segments("h", "h"),
            Segment(self.add_skip, "skip h", "h"),
            *self.more_frames.segments("h", "h"),
            *self.enlarge2.segments("h", "h"),
            *self.look_ahead3.segments("h", "h"),
            *self.conv_out.segments("h", "y"),
        ]

    def add_video(self, video: Tensor, h: Tensor, context: StreamContext) -> Tensor:
        return h + context.align(self.norm1, self.from_video(video, context), h)

    def add_skip(self, skip: Tensor, h: Tensor, context: StreamContext) -> Tensor:
        return h + context.align(self.norm3, skip, h)

    def encoder_modules(self) -> list[nn.Module]:
        raise NotImplementedError  # it is not trained

    @property
    def last_layer(self) -> Tensor:
        return self.conv_out.conv.weight


@cache
def make_toy(*, over_clip: bool, dtype: torch.dtype = torch.float64) -> Toy:
    torch.manual_seed(0)
    model = Toy(ToyConfig(over_clip=over_clip))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=(1 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.5)
    return model.to(dtype).eval().requires_grad_(False)


def toy_video(num_frames: int, height: int, width: int, batch: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((batch, 5, num_frames, height, width), generator=generator, dtype=dtype) * 2 - 1
