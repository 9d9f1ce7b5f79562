"""CausalVAE (OD-VAE, Chen et al. 2024), Open-Sora Plan v1.1 and v1.2: a latent-diffusion auto-encoder inflated to 3D.

The config names the class of every layer, level by level; the decoder runs its levels from the last to the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import cast

from torch import Tensor, nn

from vaectl.models import resample
from vaectl.models.blocks import RESNET_BLOCKS, Attention, ResnetBlock2D, ResnetBlock3D
from vaectl.models.config import CausalVAEConfig
from vaectl.models.context import StreamContext
from vaectl.models.layers import CausalConv3d, Conv2d, Layer, clip_norm, in_order, norm_silu
from vaectl.models.segments import Segment
from vaectl.models.vae import VideoVAE


def convolution(
    name: str, in_channels: int, out_channels: int, kernel: int = 3, padding: int = 1
) -> Conv2d | CausalConv3d:
    if name == "Conv2d":
        return Conv2d(in_channels, out_channels, kernel, padding=padding)
    return CausalConv3d(in_channels, out_channels, kernel, padding=padding)


def resampling(name: str, channels: int) -> Layer:
    """Return a layer of `resample.py` by its name. Layers that only average or interpolate take no channels."""
    kind = getattr(resample, name)
    if kind in (resample.TimeDownsample2x, resample.TimeUpsample2x):
        layer: Layer = kind()
    elif kind in (resample.TimeDownsampleRes2x, resample.TimeUpsampleRes2x):
        layer = kind(channels)
    else:
        layer = kind(channels, channels)
    return layer


class Level(nn.Module):
    """Res-blocks, each followed by attention if the level has any, then resampling in space, then in time."""

    def __init__(self, blocks: list[ResnetBlock2D | ResnetBlock3D], attention: list[Attention]) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attn = nn.ModuleList(attention)
        self.resampling: list[str] = []

    def append(self, name: str, layer: Layer) -> None:
        self.add_module(name, layer)
        self.resampling.append(name)

    def layers(self) -> list[nn.Module]:
        blocks = zip(self.block, self.attn, strict=True) if self.attn else zip(self.block, strict=True)
        return [*chain(*blocks), *(self.get_submodule(name) for name in self.resampling)]


def layers_of(levels: Iterable[nn.Module]) -> list[nn.Module]:
    return [layer for level in levels for layer in cast(Level, level).layers()]


class Mid(nn.Module):
    def __init__(self, block: str, attention: str, channels: int, attention_norm: str, config: CausalVAEConfig) -> None:
        super().__init__()
        self.block_1 = RESNET_BLOCKS[block](channels, channels, config.norm_type, config.dropout)
        self.attn_1 = Attention(attention, channels, attention_norm)
        self.block_2 = RESNET_BLOCKS[block](channels, channels, config.norm_type, config.dropout)


class Encoder(nn.Module):
    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        widths = [config.hidden_size * mult for mult in config.hidden_size_mult]
        attention_norm = "groupnorm"  # for any norm_type
        self.conv_in = convolution(config.encoder_conv_in, 3, config.hidden_size)
        self.down = nn.ModuleList()
        resolution, channels = config.resolution, config.hidden_size
        for i, width in enumerate(widths):
            block = RESNET_BLOCKS[config.encoder_resnet_blocks[i]]
            inputs = [channels, *[width] * (config.num_res_blocks - 1)]
            has_attention = resolution in config.attn_resolutions
            level = Level(
                [block(channels, width, config.norm_type, config.dropout) for channels in inputs],
                [Attention(config.encoder_attention, width, attention_norm) for _ in inputs if has_attention],
            )
            if config.encoder_spatial_downsample[i]:
                level.append("downsample", resampling(config.encoder_spatial_downsample[i], width))
                resolution //= 2
            if config.encoder_temporal_downsample[i]:
                level.append("time_downsample", resampling(config.encoder_temporal_downsample[i], width))
            self.down.append(level)
            channels = width
        self.mid = Mid(config.encoder_mid_resnet, config.encoder_attention, channels, attention_norm, config)
        self.norm_out = clip_norm(config.norm_type, channels)
        self.conv_out = convolution(config.encoder_conv_out, channels, 2 * config.z_channels)

    def segments(self) -> list[Segment]:
        """Return the segments from the video to moments, before the quantisation layer."""
        return [
            *self.conv_in.segments("x", "h"),
            *in_order(layers_of(self.down), "h", "h"),
            *in_order(self.mid.children(), "h", "h"),
            Segment(self.out, "h", "y", layer=self.conv_out, norm=self.norm_out),
        ]

    def out(self, h: Tensor, context: StreamContext) -> Tensor:
        return self.conv_out(norm_silu(self.norm_out, h, context), context)


class Decoder(nn.Module):
    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        widths = [config.hidden_size * mult for mult in config.hidden_size_mult]
        channels, resolution = widths[-1], config.resolution // 2 ** (len(widths) - 1)
        self.conv_in = convolution(config.decoder_conv_in, config.z_channels, channels)
        self.mid = Mid(config.decoder_mid_resnet, config.decoder_attention, channels, config.norm_type, config)
        levels: list[Level] = []
        for i, width in reversed(list(enumerate(widths))):
            block = RESNET_BLOCKS[config.decoder_resnet_blocks[i]]
            inputs = [channels, *[width] * config.num_res_blocks]
            has_attention = resolution in config.attn_resolutions
            level = Level(
                [block(channels, width, config.norm_type, config.dropout) for channels in inputs],
                [Attention(config.decoder_attention, width, config.norm_type) for _ in inputs if has_attention],
            )
            if config.decoder_spatial_upsample[i]:
                level.append("upsample", resampling(config.decoder_spatial_upsample[i], width))
                resolution *= 2
            if config.decoder_temporal_upsample[i]:
                level.append("time_upsample", resampling(config.decoder_temporal_upsample[i], width))
            levels.insert(0, level)
            channels = width
        self.up = nn.ModuleList(levels)
        self.norm_out = clip_norm(config.norm_type, channels)
        self.conv_out = convolution(config.decoder_conv_out, channels, 3)

    def segments(self) -> list[Segment]:
        """Return the segments from the latent, after the quantisation layer, to the video."""
        return [
            *self.conv_in.segments("x", "h"),
            *in_order(self.mid.children(), "h", "h"),
            *in_order(layers_of(reversed(self.up)), "h", "h"),
            Segment(self.out, "h", "y", layer=self.conv_out, norm=self.norm_out),
        ]

    def out(self, h: Tensor, context: StreamContext) -> Tensor:
        return self.conv_out(norm_silu(self.norm_out, h, context), context)


class CausalVAE(VideoVAE[CausalVAEConfig]):
    config_class = CausalVAEConfig

    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv: Layer | None = None
        self.post_quant_conv: Layer | None = None
        if config.use_quant_layer:
            moments = (2 * config.z_channels, 2 * config.embed_dim)
            self.quant_conv = convolution(config.q_conv, *moments, kernel=1, padding=0)
            self.post_quant_conv = convolution(config.q_conv, config.embed_dim, config.z_channels, kernel=1, padding=0)

    def encoder_segments(self) -> list[Segment]:
        quantise = [] if self.quant_conv is None else self.quant_conv.segments("y", "y")
        return [*self.encoder.segments(), *quantise]

    def decoder_segments(self) -> list[Segment]:
        dequantise = [] if self.post_quant_conv is None else self.post_quant_conv.segments("x", "x")
        return [*dequantise, *self.decoder.segments()]

    def encoder_modules(self) -> list[nn.Module]:
        return [self.encoder] if self.quant_conv is None else [self.encoder, self.quant_conv]

    def float32_modules(self) -> list[nn.Module]:
        quant = [] if self.quant_conv is None else [self.quant_conv]
        return [self.encoder.conv_out, *quant, self.decoder.conv_out]

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.conv_out.weight
