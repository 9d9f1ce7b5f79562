"""WF-VAE (Li et al. 2024, "WF-VAE: Enhancing Video VAE by Wavelet-Driven Energy Flow"), Open-Sora Plan v1.3 and later.

Wavelet transforms run next to the convolutions. Their coefficients enter the encoder at two levels (the energy flow),
and the decoder predicts them. Read `Encoder.segments` and `Decoder.segments` top to bottom.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaectl.models import haar, resample
from vaectl.models.blocks import Attention, ResnetBlock2D, ResnetBlock3D
from vaectl.models.config import WFVAEConfig, time_factor
from vaectl.models.context import StreamContext
from vaectl.models.families import wfvae_pca
from vaectl.models.layers import CausalConv3d, Conv2d, Layer, Sequential, clip_norm, norm_silu
from vaectl.models.segments import Segment
from vaectl.models.vae import VideoVAE


def downsampling(name: str, channels: int) -> Layer:
    layer: Layer = getattr(resample, name)(channels, channels)
    return layer


def upsampling(name: str, channels: int, config: WFVAEConfig) -> Layer:
    if name == "Spatial2xTime2x3DUpsample":
        return resample.Spatial2xTime2x3DUpsample(channels, channels, config.t_interpolation)
    layer: Layer = getattr(resample, name)(channels, channels)
    return layer


def wavelet(name: str) -> Layer:
    layer: Layer = getattr(haar, name)()
    return layer


def wavelet_channels(name: str) -> int:
    """Return the channels of the transform of an RGB clip."""
    return 3 * (8 if time_factor(name) == 2 else 4)


def mid_layers(in_channels: int, channels: int, out_channels: int, config: WFVAEConfig) -> Sequential:
    norm, dropout = config.norm_type, config.dropout
    attention = [Attention(config.attention_type, channels, norm)] if config.use_attention else []
    return Sequential(
        ResnetBlock3D(in_channels, channels, norm, dropout),
        *attention,
        ResnetBlock3D(channels, out_channels, norm, dropout),
    )


class Encoder(nn.Module):
    def __init__(self, config: WFVAEConfig) -> None:
        super().__init__()
        b, flow, n = (
            config.base_channels,
            config.encoder_energy_flow_hidden_size,
            config.encoder_num_resblocks,
        )
        norm, dropout = config.norm_type, config.dropout
        self.wavelet_transform_in = haar.HaarWaveletTransform3D()
        self.wavelet_transform_l1 = wavelet(config.l1_downsample_wavelet)
        self.wavelet_transform_l2 = wavelet(config.l2_downsample_wavelet)
        self.down1 = Sequential(
            Conv2d(24, b, 3, padding=1),
            *(ResnetBlock2D(b, b, norm, dropout) for _ in range(n)),
            downsampling(config.l1_dowmsample_block, b),
        )
        self.down2 = Sequential(
            Conv2d(b + flow, 2 * b, 3, padding=1),
            *(ResnetBlock3D(2 * b, 2 * b, norm, dropout) for _ in range(n)),
            downsampling(config.l2_dowmsample_block, 2 * b),
        )
        self.connect_l1 = Conv2d(wavelet_channels(config.l1_downsample_wavelet), flow, 3, padding=1)
        self.connect_l2 = Conv2d(wavelet_channels(config.l2_downsample_wavelet), flow, 3, padding=1)
        self.mid = mid_layers(2 * b + flow, 4 * b, 4 * b, config)
        self.norm_out = clip_norm(norm, 4 * b)
        self.conv_out = CausalConv3d(4 * b, 2 * config.latent_dim, 3, padding=1)

    def segments(self) -> list[Segment]:
        """Return the segments from the video to moments. Both branches halve time at the same frames: neither waits."""
        return [
            *self.wavelet_transform_in.segments("x", "bands"),
            Segment(low_band, "bands", "low"),
            *self.wavelet_transform_l1.segments("low", "bands_l1"),
            Segment(low_band, "bands_l1", "low"),
            *self.wavelet_transform_l2.segments("low", "bands_l2"),
            *self.down1.segments("bands", "h"),
            Segment(self.join_l1, "bands_l1 h", "h", layer=self.connect_l1),
            *self.down2.segments("h", "h"),
            Segment(self.join_l2, "bands_l2 h", "h", layer=self.connect_l2),
            *self.mid.segments("h", "h"),
            Segment(self.out, "h", "y", layer=self.conv_out, norm=self.norm_out),
        ]

    def band_layers(self) -> list[nn.Module]:
        """Return the layers that make wavelet coefficients of the video, and the energy flow of them."""
        names = ("wavelet_transform_in", "wavelet_transform_l1", "wavelet_transform_l2", "connect_l1", "connect_l2")
        return [self.get_submodule(name) for name in names]

    def join_l1(self, bands_l1: Tensor, h: Tensor, context: StreamContext) -> Tensor:
        return torch.cat([h, self.connect_l1(bands_l1, context).to(h.dtype)], dim=1)

    def join_l2(self, bands_l2: Tensor, h: Tensor, context: StreamContext) -> Tensor:
        return torch.cat([h, self.connect_l2(bands_l2, context).to(h.dtype)], dim=1)

    def out(self, h: Tensor, context: StreamContext) -> Tensor:
        return self.conv_out(norm_silu(self.norm_out, h, context), context)


class Decoder(nn.Module):
    def __init__(self, config: WFVAEConfig) -> None:
        super().__init__()
        b, flow, n = (
            config.base_channels,
            config.decoder_energy_flow_hidden_size,
            config.decoder_num_resblocks,
        )
        norm, dropout = config.norm_type, config.dropout
        self.flow = flow
        self.conv_in = CausalConv3d(config.latent_dim, 4 * b, 3, padding=1)
        self.mid = mid_layers(4 * b, 4 * b, 4 * b + flow, config)
        self.up2 = Sequential(
            *(ResnetBlock3D(4 * b, 4 * b, norm, dropout) for _ in range(n)),
            upsampling(config.l2_upsample_block, 4 * b, config),
            ResnetBlock3D(4 * b, 4 * b + flow, norm, dropout),
        )
        self.up1 = Sequential(
            *(ResnetBlock3D(4 * b if i == 0 else 2 * b, 2 * b, norm, dropout) for i in range(n)),
            upsampling(config.l1_upsample_block, 2 * b, config),
            ResnetBlock3D(2 * b, 2 * b, norm, dropout),
        )
        self.layer = Sequential(ResnetBlock3D(2 * b, b, norm, dropout), ResnetBlock3D(b, b, norm, dropout))
        self.connect_l1, self.connect_l2 = (
            Sequential(
                *(ResnetBlock3D(flow, flow, norm, dropout) for _ in range(config.connect_res_layer_num)),
                Conv2d(flow, wavelet_channels(transform), 3, padding=1),
            )
            for transform in (config.l1_downsample_wavelet, config.l2_downsample_wavelet)
        )
        self.norm_out = clip_norm(norm, b)
        self.conv_out = Conv2d(b, 24, 3, padding=1)
        self.inverse_wavelet_transform_l1 = wavelet(config.l1_upsample_wavelet)
        self.inverse_wavelet_transform_l2 = wavelet(config.l2_upsample_wavelet)
        self.inverse_wavelet_transform_out = haar.InverseHaarWaveletTransform3D()

    def segments(self) -> list[Segment]:
        """Return the segments from the latent to the video. Up-sampling lags a frame behind the inverse wavelets."""
        return [
            *self.conv_in.segments("x", "h"),
            *self.mid.segments("h", "h"),
            Segment(self.split, "h", "h flow"),
            *self.connect_l2.segments("flow", "bands_l2"),
            *self.inverse_wavelet_transform_l2.segments("bands_l2", "low"),
            *self.up2.segments("h", "h"),
            Segment(self.split, "h", "h flow"),
            *self.connect_l1.segments("flow", "bands_l1"),
            Segment(self.add_low_l1, "bands_l1 low", "bands_l1"),
            *self.inverse_wavelet_transform_l1.segments("bands_l1", "low"),
            *self.up1.segments("h", "h"),
            *self.layer.segments("h", "h"),
            Segment(self.out, "h", "bands", layer=self.conv_out, norm=self.norm_out),
            Segment(self.add_low, "bands low", "bands"),
            *self.inverse_wavelet_transform_out.segments("bands", "y"),
        ]

    def pixel_layers(self) -> list[nn.Module]:
        """Return the layers that make the wavelet coefficients of the video, and the video of them."""
        connects = [[*connect.children()][-1] for connect in (self.connect_l1, self.connect_l2)]
        names = ("inverse_wavelet_transform_l1", "inverse_wavelet_transform_l2", "inverse_wavelet_transform_out")
        return [*connects, self.conv_out, *(self.get_submodule(name) for name in names)]

    def split(self, h: Tensor, context: StreamContext) -> tuple[Tensor, Tensor]:
        """Return features and energy flow."""
        return h[:, : -self.flow], h[:, -self.flow :]

    def add_low_l1(self, bands_l1: Tensor, low_l2: Tensor, context: StreamContext) -> Tensor:
        return add_to_low_band(bands_l1, context.align(self.connect_l1, low_l2, bands_l1))

    def out(self, h: Tensor, context: StreamContext) -> Tensor:
        return self.conv_out(norm_silu(self.norm_out, h, context), context)

    def add_low(self, bands: Tensor, low_l1: Tensor, context: StreamContext) -> Tensor:
        return add_to_low_band(bands, context.align(self.conv_out, low_l1, bands))


def low_band(bands: Tensor, context: StreamContext) -> Tensor:
    """Return the first three channels: the video at half the size."""
    return bands[:, :3]


def add_to_low_band(bands: Tensor, low: Tensor) -> Tensor:
    bands[:, :3] += low
    return bands


class WFVAE(VideoVAE[WFVAEConfig]):
    config_class = WFVAEConfig
    features = ("bands_l1", "bands_l2")
    """The wavelet coefficients."""

    def __init__(self, config: WFVAEConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encoder_segments(self) -> list[Segment]:
        return self.encoder.segments()

    def decoder_segments(self) -> list[Segment]:
        return self.decoder.segments()

    def encoder_modules(self) -> list[nn.Module]:
        return [self.encoder]

    def float32_modules(self) -> list[nn.Module]:
        return [*self.encoder.band_layers(), self.encoder.conv_out, *self.decoder.pixel_layers()]

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.conv_out.weight

    def check_pca_init(self) -> None:
        wfvae_pca.check(self.config)

    def pca_init(self, videos_BCTHW: Sequence[Tensor]) -> None:
        wfvae_pca.pca_init(self, videos_BCTHW)
