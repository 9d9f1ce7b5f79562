"""CausalVAE (OD-VAE, Chen et al. 2024), Open-Sora Plan v1.1 and v1.2: a latent-diffusion auto-encoder inflated to 3D.

The config names the class of every layer, level by level; the decoder runs its levels from the last to the first.
"""

from __future__ import annotations

from torch import Tensor, nn

from vaectl.models import resample
from vaectl.models.blocks import RESNET_BLOCKS, Attention
from vaectl.models.config import CausalVAEConfig
from vaectl.models.context import Piece
from vaectl.models.layers import CausalConv3d, Conv2d, Layer, clip_norm, silu
from vaectl.models.vae import VideoVAE


def convolution(name: str, in_channels: int, out_channels: int, kernel: int = 3, padding: int = 1) -> Layer:
    if name == "Conv2d":
        return Conv2d(in_channels, out_channels, kernel, padding=padding)
    return CausalConv3d(in_channels, out_channels, kernel, padding=padding)


def resampling(name: str, channels: int) -> Layer:
    """A layer of `resample.py` by its name; those that only average or interpolate have no channels."""
    kind = getattr(resample, name)
    if kind in (resample.TimeDownsample2x, resample.TimeUpsample2x):
        layer: Layer = kind()
    elif kind in (resample.TimeDownsampleRes2x, resample.TimeUpsampleRes2x):
        layer = kind(channels)
    else:
        layer = kind(channels, channels)
    return layer


class Level(nn.Module):
    """Res-blocks, each with an attention behind it if the level has any, then resampling in space, then in time."""

    def __init__(self, blocks: list[nn.Module], attention: list[Attention]) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attn = nn.ModuleList(attention)
        self.resampling: list[str] = []

    def append(self, name: str, layer: nn.Module) -> None:
        self.add_module(name, layer)
        self.resampling.append(name)

    def forward(self, h: Tensor, piece: Piece) -> Tensor:
        for i, block in enumerate(self.block):
            h = piece.run(block, h)
            if self.attn:
                h = piece.run(self.attn[i], h)
        for name in self.resampling:
            h = piece.run(self.get_submodule(name), h)
        return h


class Mid(nn.Module):
    def __init__(self, block: str, attention: str, channels: int, attention_norm: str, config: CausalVAEConfig) -> None:
        super().__init__()
        self.block_1 = RESNET_BLOCKS[block](channels, channels, config.norm_type, config.dropout)
        self.attn_1 = Attention(attention, channels, attention_norm)
        self.block_2 = RESNET_BLOCKS[block](channels, channels, config.norm_type, config.dropout)

    def forward(self, h: Tensor, piece: Piece) -> Tensor:
        for block in self.children():
            h = piece.run(block, h)
        return h


class Encoder(nn.Module):
    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        widths = [config.hidden_size * mult for mult in config.hidden_size_mult]
        attention_norm = "groupnorm"  # whatever norm_type says
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

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        h = piece.stage(self.conv_in, x, margin=self.conv_in.margin_before(0))
        for level in self.down:
            h = level(h, piece)
        h = self.mid(h, piece)
        return piece.stage(self.moments, h, margin=self.conv_out.margin_before(0))

    def moments(self, h: Tensor, piece: Piece) -> Tensor:
        return self.conv_out.forward(silu(self.norm_out(h, piece)), piece)


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

    def forward(self, z: Tensor, piece: Piece) -> Tensor:
        h = self.mid(piece.stage(self.conv_in, z, margin=self.conv_in.margin_before(0)), piece)
        for level in reversed(self.up):
            h = level(h, piece)
        return piece.stage(self.video, h, margin=self.conv_out.margin_before(0))

    def video(self, h: Tensor, piece: Piece) -> Tensor:
        return self.conv_out.forward(silu(self.norm_out(h, piece)), piece)


class CausalVAE(VideoVAE[CausalVAEConfig]):
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

    def encode_piece(self, x_BCTHW: Tensor, piece: Piece) -> Tensor:
        moments = self.encoder.forward(x_BCTHW, piece)
        return moments if self.quant_conv is None else piece.stage(self.quant_conv, moments)

    def decode_piece(self, z_BCTHW: Tensor, piece: Piece) -> Tensor:
        z = z_BCTHW if self.post_quant_conv is None else piece.stage(self.post_quant_conv, z_BCTHW)
        return self.decoder.forward(z, piece)
