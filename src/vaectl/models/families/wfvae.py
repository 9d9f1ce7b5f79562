"""WF-VAE (Li et al. 2024, "WF-VAE: Enhancing Video VAE by Wavelet-Driven Energy Flow"), Open-Sora Plan v1.3 and later.

A ladder of wavelet transforms runs beside the convolutions; its low bands enter the encoder at two levels (the energy
flow), and the decoder predicts them back. Read `Encoder.forward` and `Decoder.forward` top to bottom.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaectl.memory import return_freed
from vaectl.models import haar, resample
from vaectl.models.blocks import Attention, ResnetBlock2D, ResnetBlock3D
from vaectl.models.config import WFVAEConfig, time_factor
from vaectl.models.context import Piece
from vaectl.models.layers import CausalConv3d, Chain, Conv2d, Layer, clip_norm, silu
from vaectl.models.vae import VideoVAE

Coefficients = tuple[Tensor, Tensor]
"""Wavelet coefficients of level 1 and 2, for the wavelet loss."""


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
    """Channels of the transform of an RGB clip."""
    return 3 * (8 if time_factor(name) == 2 else 4)


def mid_layers(in_channels: int, channels: int, out_channels: int, config: WFVAEConfig) -> Chain:
    norm, dropout = config.norm_type, config.dropout
    attention = [Attention(config.attention_type, channels, norm)] if config.use_attention else []
    return Chain(
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
        self.down1 = Chain(
            Conv2d(24, b, 3, padding=1),
            *(ResnetBlock2D(b, b, norm, dropout) for _ in range(n)),
            downsampling(config.l1_dowmsample_block, b),
        )
        self.down2 = Chain(
            Conv2d(b + flow, 2 * b, 3, padding=1),
            *(ResnetBlock3D(2 * b, 2 * b, norm, dropout) for _ in range(n)),
            downsampling(config.l2_dowmsample_block, 2 * b),
        )
        self.connect_l1 = Conv2d(wavelet_channels(config.l1_downsample_wavelet), flow, 3, padding=1)
        self.connect_l2 = Conv2d(wavelet_channels(config.l2_downsample_wavelet), flow, 3, padding=1)
        self.mid = mid_layers(2 * b + flow, 4 * b, 4 * b, config)
        self.norm_out = clip_norm(norm, 4 * b)
        self.conv_out = CausalConv3d(4 * b, 2 * config.latent_dim, 3, padding=1)

        # What a tile needs around it, from the features back to the image. Each level of bands serves the network and
        # the next transform, which needs less and is spared the rest.
        flow_l1 = self.down2.margin_before(0)
        bands_l1 = self.connect_l1.margin_before(flow_l1)
        bands = self.down1.margin_before(flow_l1)
        self.spare_l1 = bands_l1 - self.wavelet_transform_l2.margin_before(self.connect_l2.margin_before(0))
        self.spare_in = bands - self.wavelet_transform_l1.margin_before(bands_l1)
        self.margin = self.wavelet_transform_in.margin_before(bands)

    def forward(self, x: Tensor, piece: Piece) -> tuple[Tensor, Coefficients]:
        """Moments and wavelet coefficients of whole frames."""
        features, coefficients = self.features(x, piece)
        return self.moments(features, piece), coefficients

    def features(self, x: Tensor, piece: Piece) -> tuple[Tensor, Coefficients]:
        """What looks at neighbours only, and may be a tile: from the image to features at 1/8.

        A tile comes with `margin` pixels on its inner sides and gives its features without any. Both branches halve
        time at the same frames, so none waits for the other.
        """
        bands, bands_l1, bands_l2 = piece.stage(self.wavelets, x, margin=self.margin)
        h = self.down1(bands, piece)
        h = piece.stage(self.join_l1, h, bands_l1, margin=self.connect_l1.margin_before(0))
        h = self.down2(h, piece)
        h = piece.stage(self.join_l2, h, bands_l2, margin=self.connect_l2.margin_before(0))
        return h, (bands_l1, bands_l2)

    def wavelets(self, x: Tensor, piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
        bands = self.wavelet_transform_in(x, piece)
        bands_l1 = self.wavelet_transform_l1(piece.trim(bands[:, :3], self.spare_in), piece)
        bands_l2 = self.wavelet_transform_l2(piece.trim(bands_l1[:, :3], self.spare_l1), piece)
        return bands, bands_l1, bands_l2

    def join_l1(self, h: Tensor, bands_l1: Tensor, piece: Piece) -> Tensor:
        return join(h, self.connect_l1(bands_l1, piece), piece)

    def join_l2(self, h: Tensor, bands_l2: Tensor, piece: Piece) -> Tensor:
        return join(h, self.connect_l2(bands_l2, piece), piece)

    def moments(self, features: Tensor, piece: Piece) -> Tensor:
        """From features to moments, over whole frames: attention looks at all positions."""
        return piece.stage(self.out, self.mid(features, piece), margin=self.conv_out.margin_before(0))

    def out(self, h: Tensor, piece: Piece) -> Tensor:
        return self.conv_out.forward(silu(self.norm_out(h, piece)), piece)


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
        self.up2 = Chain(
            *(ResnetBlock3D(4 * b, 4 * b, norm, dropout) for _ in range(n)),
            upsampling(config.l2_upsample_block, 4 * b, config),
            ResnetBlock3D(4 * b, 4 * b + flow, norm, dropout),
        )
        self.up1 = Chain(
            *(ResnetBlock3D(4 * b if i == 0 else 2 * b, 2 * b, norm, dropout) for i in range(n)),
            upsampling(config.l1_upsample_block, 2 * b, config),
            ResnetBlock3D(2 * b, 2 * b, norm, dropout),
        )
        self.layer = Chain(ResnetBlock3D(2 * b, b, norm, dropout), ResnetBlock3D(b, b, norm, dropout))
        self.connect_l1, self.connect_l2 = (
            Chain(
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

        bands = self.inverse_wavelet_transform_out.margin_before(0)
        bands_l1 = self.inverse_wavelet_transform_l1.margin_before(bands)
        bands_l2 = self.inverse_wavelet_transform_l2.margin_before(bands_l1)
        up1 = self.up1.margin_before(self.layer.margin_before(self.conv_out.margin_before(bands)))
        up2 = self.up2.margin_before(max(up1, self.connect_l1.margin_before(bands_l1)))
        self.margin = max(up2, self.connect_l2.margin_before(bands_l2))

    def forward(self, z: Tensor, piece: Piece) -> tuple[Tensor, Coefficients]:
        """The video and the predicted wavelet coefficients of whole frames."""
        return self.video(self.features(z, piece), piece)

    def features(self, z: Tensor, piece: Piece) -> Tensor:
        """From the latent to features at 1/8, over whole frames: attention looks at all positions."""
        return self.mid(piece.stage(self.conv_in, z, margin=self.conv_in.margin_before(0)), piece)

    def video(self, features: Tensor, piece: Piece) -> tuple[Tensor, Coefficients]:
        """What looks at neighbours only, and may be a tile: from features to the image and its coefficients.

        A tile comes with `margin` positions on its inner sides and gives its pixels, perhaps with some margin left.
        """
        h, flow = piece.stage(self.split, features)
        bands_l2 = self.connect_l2(flow, piece)
        low_l2 = piece.stage(self.inverse_wavelet_transform_l2, bands_l2)

        *layers, largest = self.up2.children()
        for layer in layers:
            h = piece.run(layer, h)
        make_room(h)
        h, flow = piece.stage(self.split, piece.run(largest, h))
        bands_l1 = piece.stage(self.with_low_l1, self.connect_l1(flow, piece), low_l2)
        low_l1 = piece.stage(self.inverse_wavelet_transform_l1, bands_l1)

        *layers, largest = self.up1.children()
        for layer in layers:
            h = piece.run(layer, h)
        make_room(h)
        for layer in (largest, *self.layer.children()):
            h = piece.run(layer, h)
        video = piece.stage(self.out, h, low_l1, margin=self.conv_out.margin_before(0))
        return video, (bands_l1, bands_l2)

    def split(self, h: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
        """Features and energy flow."""
        return h[:, : -self.flow], h[:, -self.flow :]

    def with_low_l1(self, bands_l1: Tensor, low_l2: Tensor, piece: Piece) -> Tensor:
        # Up-sampling lags a frame behind the inverse wavelets, which therefore wait for it.
        return add_low(bands_l1, piece.align(self.connect_l1, low_l2, bands_l1), piece)

    def out(self, h: Tensor, low_l1: Tensor, piece: Piece) -> Tensor:
        bands = self.conv_out.forward(silu(self.norm_out(h, piece)), piece)
        bands = add_low(bands, piece.align(self.conv_out, low_l1, bands), piece)
        return self.inverse_wavelet_transform_out(bands, piece)


def make_room(h: Tensor) -> None:
    """For the layer that makes the largest tensors, and comes next: return the gaps that others have left."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return
    if h.device.type == "cpu" and h.nbytes > ROOM_BYTES:
        return_freed()


ROOM_BYTES = 2**24
"""To fetch new memory takes time, which beside smaller tensors is much, and what it saves little."""


def join(h: Tensor, flow: Tensor, piece: Piece) -> Tensor:
    return torch.cat([piece.match(h, flow), flow], dim=1)


def add_low(bands: Tensor, low: Tensor, piece: Piece) -> Tensor:
    """Add to the lowest band, the first three channels, where both are known."""
    bands, low = piece.match(bands, low), piece.match(low, bands)
    bands[:, :3] += low
    return bands


class WFVAE(VideoVAE[WFVAEConfig]):
    def __init__(self, config: WFVAEConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode_piece(self, x_BCTHW: Tensor, piece: Piece) -> Tensor:
        return self.encoder.forward(x_BCTHW, piece)[0]

    def decode_piece(self, z_BCTHW: Tensor, piece: Piece) -> Tensor:
        return self.decoder.forward(z_BCTHW, piece)[0]
