"""Initial weights of a WF-VAE by principal component analysis (PCA) of clips.

With random weights, most of a short training run goes into what the wavelets already represent. Here the wavelet
coefficients pass straight through the network, and each latent position starts as the principal components of its block
of pixels:

- Residual blocks start as the identity: their last convolution is zero.
- The latent is a whitened PCA of the wavelet coefficients of a block of 4x8x8 pixels: all of level 2, the details of
  level 1, and the mean change in time of the first level.
- The decoder's coefficients are the least-squares prediction from the neighbouring latents.
- LayerNorm and SiLU are nearly linear for channels in pairs u, -u next to large constants: SiLU(u) - SiLU(-u) = u, and
  the constants determine mean and deviation.

All other weights stay random, so that they can learn. At first nothing depends on their outputs. Knows only tensors and
networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.errors import UsageError, VaectlError
from vaectl.models import resample
from vaectl.models.blocks import Attention, ResnetBlock2D, ResnetBlock3D
from vaectl.models.config import WFVAEConfig
from vaectl.models.context import StreamContext
from vaectl.models.layers import ChannelLayerNorm, Conv2d, Sequential
from vaectl.models.statistics import RunningCovariance

if TYPE_CHECKING:
    from vaectl.models.families.wfvae import WFVAE

COEFFICIENTS, DETAILS, CHANGE = 24, slice(3, 12), slice(12, 15)
"""Coefficients of level 2; details of level 1, without the low band; change in time of the first level, per colour."""
BLOCK = COEFFICIENTS + 8 * 9 + 2 * 3
CALM = -9.0
"""Log-variance of the posterior: the latents start almost without noise."""


def pca_init(model: WFVAE, videos: Sequence[Tensor]) -> None:
    """Set the weights from videos (B, 3, T, H, W) in [-1, 1].

    Raises UsageError as `check` does, VaectlError if all blocks of the videos are the same.
    """
    check(model.config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ResnetBlock2D | ResnetBlock3D):
                clear(module.conv2)
            elif isinstance(module, Attention):
                clear(module.proj_out)
        start_encoder(model, *principal_components(model, videos))
        latents = [model.encode(video).mean for video in videos]
        start_decoder(model, videos, latents)


def check(config: WFVAEConfig) -> None:
    """Raise UsageError for a network that PCA initialization does not fit."""
    flows = min(config.encoder_energy_flow_hidden_size, config.decoder_energy_flow_hidden_size)
    if (config.time_compression, config.space_compression, config.norm_type) != (4, 8, "layernorm"):
        raise UsageError("PCA initialization needs a WF-VAE of 4x8x8 with norm_type layernorm")
    if flows < COEFFICIENTS or config.base_channels < COEFFICIENTS:
        raise UsageError(f"PCA initialization needs base_channels and energy flows of {COEFFICIENTS} or more")
    if config.latent_dim > config.base_channels:
        raise UsageError("PCA initialization needs at least as many base_channels as latent channels")


# The encoder


def wavelets(model: WFVAE, video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coefficients of the first transform, of level 1 and of level 2."""
    encoder, context = model.encoder, StreamContext()
    first = encoder.wavelet_transform_in(video, context)
    level_1 = encoder.wavelet_transform_l1(first[:, :3], context)
    return first, level_1, encoder.wavelet_transform_l2(level_1[:, :3], context)


def wavelet_blocks(model: WFVAE, video: Tensor) -> Tensor:
    """Return the wavelet coefficients of each block of pixels, (blocks, BLOCK)."""
    first, level_1, level_2 = wavelets(model, video)
    details, change = level_1[:, DETAILS], F.avg_pool3d(first[:, CHANGE], (1, 4, 4)) * 4
    # As in the network, each halving of time sees the first frame twice.
    details, change = (torch.cat([x[:, :, :1], x], dim=2) for x in (details, change))
    return torch.cat(
        [
            rearrange(level_2, "b c t h w -> (b t h w) c"),
            rearrange(details, "b c (t i) (h j) (w k) -> (b t h w) (c i j k)", i=2, j=2, k=2),
            rearrange(change, "b c (t i) h w -> (b t h w) (c i)", i=2),
        ],
        dim=1,
    )


def principal_components(model: WFVAE, videos: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return matrix (latent channels, BLOCK) and offset of the first components, with mean 0 and deviation 1."""
    blocks = RunningCovariance()
    for video in videos:
        blocks.add(wavelet_blocks(model, video).double())
    variances, directions = torch.linalg.eigh(blocks.scatter / blocks.count)
    kept = slice(-model.config.latent_dim, None)
    if not variances[kept].min() > 1e-6:
        raise VaectlError("PCA initialization needs clips that are not all the same")
    matrix = (directions[:, kept] / variances[kept].sqrt()).T.flip(0)
    return matrix.float(), -(matrix @ blocks.mean).float()


def start_encoder(model: WFVAE, matrix: Tensor, offset: Tensor) -> None:
    """Set the encoder so that its latent is matrix · block + offset."""
    encoder, n, b = model.encoder, model.config.latent_dim, model.config.base_channels
    of_level_2, of_details, of_change = torch.split(matrix, [COEFFICIENTS, 72, 6], dim=1)
    for connect in (encoder.connect_l1, encoder.connect_l2):
        pass_on(connect, slice(connect.weight.shape[1]), slice(None))

    # The mean change in time and the details of level 1, then the components computed from them.
    pass_on(layer(encoder.down1, 0), slice(COEFFICIENTS), slice(None))
    halving = convolution(layer(encoder.down1, -1))
    clear(halving, slice(3))
    for colour in range(3):
        halving.weight[colour, CHANGE.start + colour, :2, :2] = 0.5
    joining = layer(encoder.down2, 0)
    pass_on(joining, slice(9), slice(b + DETAILS.start, b + DETAILS.stop))
    pass_on(joining, slice(9, 12), slice(3))
    halving = convolution(layer(encoder.down2, -1))
    clear(halving, slice(n))
    halving.weight[:n, :9, 1:, :2, :2] = of_details.reshape(n, 9, 2, 2, 2)
    halving.weight[:n, 9:12, 1:, :2, :2] = 0.5 * of_change.reshape(n, 3, 2, 1, 1)

    shortcut = convolution(shortcut_of(layer(encoder.mid, 0)))
    for sign, channels in ((1, slice(n)), (-1, slice(n, 2 * n))):
        clear(shortcut, channels)
        centre(shortcut)[channels, :n] = sign * torch.eye(n)
        centre(shortcut)[channels, 2 * b : 2 * b + COEFFICIENTS] = sign * of_level_2
        bias(shortcut)[channels] = sign * offset
    deviation = settle(shortcut, slice(2 * n, None), constant=4.0, quiet=0.3)
    read_pairs(encoder.norm_out, encoder.conv_out, slice(n), n, deviation)
    clear(encoder.conv_out, slice(n, None))
    bias(encoder.conv_out)[n:] = CALM


# The decoder


class LeastSquares:
    """Incremental least-squares prediction of channels from the 3x3x3 positions that a causal convolution sees."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.inputs, size = inputs, 27 * inputs + 1
        self.products, self.targets = torch.zeros(size, size).double(), torch.zeros(size, outputs).double()

    def add(self, x_BCTHW: Tensor, y_BCTHW: Tensor) -> None:
        """Add inputs and targets of the same T, H and W."""
        padded = F.pad(torch.cat([*[x_BCTHW[:, :, :1]] * 2, x_BCTHW], dim=2), (1, 1, 1, 1))
        seen = padded.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)
        x = rearrange(seen, "b c t h w i j k -> (b t h w) (c i j k)")
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        self.products += x.T @ x
        self.targets += x.T @ rearrange(y_BCTHW, "b c t h w -> (b t h w) c")

    def write(self, conv: nn.Module, channels: slice, ridge: float) -> None:
        """Set these output channels of a convolution to the prediction from its first input channels."""
        lift = ridge * self.products.diagonal().mean() * torch.eye(len(self.products))
        solution = torch.linalg.solve(self.products + lift, self.targets).T.float()
        clear(conv, channels)
        weight(conv)[channels, : self.inputs] = solution[:, :-1].reshape(-1, self.inputs, 3, 3, 3)
        bias(conv)[channels] = solution[:, -1]


def start_decoder(model: WFVAE, videos: Sequence[Tensor], latents: Sequence[Tensor]) -> None:
    """Set the decoder so that it predicts the wavelet coefficients of the videos from their latents."""
    decoder, n, b = model.decoder, model.config.latent_dim, model.config.base_channels
    known = n + COEFFICIENTS  # the latents, and level 2 predicted from them

    level_2 = LeastSquares(n, COEFFICIENTS)
    for video, z in zip(videos, latents, strict=True):
        level_2.add(z, wavelets(model, video)[2])
    pass_on(decoder.conv_in, slice(n), slice(n))
    level_2.write(decoder.conv_in, slice(n, known), ridge=1e-4)
    lead_flow(layer(decoder.mid, -1), slice(n, known), 4 * b)
    pass_on(layer(decoder.connect_l2, -1), slice(COEFFICIENTS), slice(COEFFICIENTS))

    # Between the frames and positions of level 2: the details of level 1, and the change in time.
    between = LeastSquares(known, 15)
    upsampling = cast(resample.Spatial2xTime2x3DUpsample, layer(decoder.up2, -2))
    for video, z in list(zip(videos, latents, strict=True))[::3]:
        context = StreamContext()
        h, flow = decoder.split(decoder.mid(decoder.conv_in(z, context), context), context)
        low = decoder.inverse_wavelet_transform_l2(decoder.connect_l2(flow, context), context)
        first, level_1, _ = wavelets(model, video)
        level_1 = torch.cat([level_1[:, :3] - low, level_1[:, 3:], F.avg_pool3d(first[:, CHANGE], (1, 2, 2))], dim=1)
        slower = resample.upsample_time(upsampling, h[:, :known], context, upsampling.interpolation)
        between.add(resample.bilinear_2x(slower), level_1)
    between.write(upsampling.conv, slice(4 * b - 15, 4 * b), ridge=1e-5)
    lead_flow(layer(decoder.up2, -1), slice(4 * b - 15, 4 * b - 3), 4 * b)
    pass_on(layer(decoder.connect_l1, -1), slice(12), slice(12))

    pass_on(shortcut_of(layer(decoder.up1, 0)), slice(3), slice(4 * b - 3, 4 * b))
    pass_on(convolution(layer(decoder.up1, -2)), slice(3), slice(3))
    shortcut = convolution(shortcut_of(layer(decoder.layer, 0)))
    pass_on(shortcut, slice(3), slice(3))
    pass_on(shortcut, slice(3, 6), slice(3), -1.0)
    deviation = settle(shortcut, slice(6, None), constant=0.6, quiet=0.1)
    clear(decoder.conv_out)
    read_pairs(decoder.norm_out, decoder.conv_out, CHANGE, 3, deviation)


def lead_flow(block: nn.Module, channels: slice, wide: int) -> None:
    """Let a block that appends the energy flow pass on its input, with these channels as the flow."""
    shortcut = shortcut_of(block)
    clear(shortcut)
    pass_on(shortcut, slice(wide), slice(wide))
    pass_on(shortcut, slice(wide, wide + channels.stop - channels.start), channels)


# Weights


def layer(blocks: Sequential, index: int) -> nn.Module:
    """Return a layer of a Sequential."""
    return list(blocks.children())[index]


def convolution(module: nn.Module) -> Conv2d | nn.Conv3d:
    """Return the convolution that the module is or contains."""
    inner = getattr(module, "conv", module)
    return cast("Conv2d | nn.Conv3d", getattr(inner, "conv", inner))


def shortcut_of(block: nn.Module) -> nn.Module:
    return cast(nn.Module, block.nin_shortcut)


def weight(module: nn.Module) -> Tensor:
    return convolution(module).weight


def bias(module: nn.Module) -> Tensor:
    return cast(Tensor, convolution(module).bias)


def centre(module: nn.Module) -> Tensor:
    """Return the weights (out, in) at the position itself; of a causal convolution, those of the newest frame."""
    taps = weight(module)
    middle = taps.shape[-1] // 2
    return taps[..., middle, middle] if taps.ndim == 4 else taps[..., -1, middle, middle]


def clear(module: nn.Module, channels: slice = slice(None)) -> None:
    """Set these output channels to zero."""
    weight(module)[channels] = 0
    bias(module)[channels] = 0


def pass_on(module: nn.Module, outputs: slice, inputs: slice, factor: float = 1.0) -> None:
    """Set these output channels to those input channels, times `factor`."""
    clear(module, outputs)
    taps = centre(module)[outputs, inputs]
    taps[:] = factor * torch.eye(*taps.shape)


def settle(module: nn.Module, channels: slice, constant: float, quiet: float) -> float:
    """Set the bias of these channels to ±`constant`, scale their weights by `quiet`; return the deviation of all."""
    weight(module)[channels] *= quiet
    values = bias(module)[channels]
    values[::2], values[1::2] = constant, -constant
    # The pairs that `read_pairs` reads add about 5 percent.
    return 1.05 * constant * math.sqrt(len(values) / len(bias(module)))


def read_pairs(norm: nn.Module, conv: nn.Module, outputs: slice, count: int, deviation: float) -> None:
    """Set these output channels to the first `count` input channels, which pass the norm with their negatives."""
    layer_norm = cast(ChannelLayerNorm, norm).norm
    layer_norm.weight.fill_(1)
    layer_norm.bias.zero_()
    clear(conv, outputs)
    centre(conv)[outputs, :count] = deviation * torch.eye(count)
    centre(conv)[outputs, count : 2 * count] = -deviation * torch.eye(count)
