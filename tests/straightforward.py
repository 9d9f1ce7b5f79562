"""WF-VAE the straightforward way, to hold the fast network against: one function per layer, weights by their names.

Channels first and contiguous, LayerNorm through permutes, wavelets filter by filter and channel by channel, the first
frame concatenated in front of every causal convolution, x·sigmoid(x) in two steps, attention by its formula. It takes
the state dict of a `vaectl` model and shares no code with it; it knows neither pieces nor tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from vaectl.models.config import WFVAEConfig

Weights = Mapping[str, Tensor]
Coefficients = tuple[Tensor, Tensor]

# The order of the sub-bands in the channels.
BANDS_3D = ("h", "g", "hh", "gh", "h_v", "g_v", "hh_v", "gh_v")
BANDS_2D = ("aa", "ad", "da", "dd")


def under(weights: Weights, name: str) -> Weights:
    """The weights of the layer `name`, by their names in it; empty if there is no such layer."""
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def per_frame(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    b, c, t, h, w = x.shape
    y = function(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w))
    return y.reshape(b, t, *y.shape[1:]).permute(0, 2, 1, 3, 4).contiguous()


def first_frame_padded(x: Tensor, frames: int) -> Tensor:
    return torch.cat([x[:, :, :1]] * frames + [x], dim=2)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def norm(weights: Weights, x: Tensor) -> Tensor:
    """LayerNorm over the channels, or GroupNorm over the clip: the parameters' names tell."""
    if "norm.weight" not in weights:
        return F.group_norm(x, 32, weights["weight"], weights["bias"], eps=1e-6)
    rows = x.permute(0, 2, 3, 4, 1).contiguous()
    rows = F.layer_norm(rows, rows.shape[-1:], weights["norm.weight"], weights["norm.bias"], eps=1e-6)
    return rows.permute(0, 4, 1, 2, 3).contiguous()


def conv2d(weights: Weights, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
    return per_frame(lambda frame: F.conv2d(frame, weights["weight"], weights["bias"], stride, padding), x)


def causal_conv3d(weights: Weights, x: Tensor, stride: int | tuple[int, int, int] = 1, padding: int = 1) -> Tensor:
    kernel = weights["conv.weight"]
    padded = first_frame_padded(x, kernel.shape[2] - 1)
    return F.conv3d(padded, kernel, weights["conv.bias"], stride, (0, padding, padding))


def resnet_2d(weights: Weights, x: Tensor) -> Tensor:
    def norm_of(name: str, h: Tensor) -> Tensor:
        part = under(weights, name)
        if "norm.weight" in part:
            return norm(part, h)
        return per_frame(lambda frame: F.group_norm(frame, 32, part["weight"], part["bias"], eps=1e-6), h)

    h = conv2d(under(weights, "conv1"), swish(norm_of("norm1", x)))
    h = conv2d(under(weights, "conv2"), swish(norm_of("norm2", h)))
    shortcut = under(weights, "nin_shortcut")
    return h + (conv2d(shortcut, x, padding=0) if shortcut else x)


def resnet_3d(weights: Weights, x: Tensor) -> Tensor:
    h = causal_conv3d(under(weights, "conv1"), swish(norm(under(weights, "norm1"), x)))
    h = causal_conv3d(under(weights, "conv2"), swish(norm(under(weights, "norm2"), h)))
    shortcut = under(weights, "nin_shortcut")
    return h + (causal_conv3d(shortcut, x, padding=0) if shortcut else x)


def resnets_3d(weights: Weights, x: Tensor, first: int, count: int) -> Tensor:
    for i in range(first, first + count):
        x = resnet_3d(under(weights, str(i)), x)
    return x


def attention(weights: Weights, x: Tensor, mixes_frames: bool) -> Tensor:
    """`AttnBlock3DFix`; `AttnBlock3D`, which reshapes where it should permute, if `mixes_frames`."""
    b, c, t, height, width = x.shape
    h = norm(under(weights, "norm"), x)
    q, k, v = (causal_conv3d(under(weights, name), h, padding=0) for name in "qkv")
    if not mixes_frames:
        q, k, v = (y.permute(0, 2, 1, 3, 4) for y in (q, k, v))
    q, k, v = (y.reshape(b * t, c, height * width) for y in (q, k, v))
    scores = torch.softmax(torch.bmm(q.permute(0, 2, 1), k) / math.sqrt(c), dim=2)
    h = torch.bmm(v, scores.permute(0, 2, 1))
    h = h.reshape(b, c, t, height, width) if mixes_frames else h.reshape(b, t, c, height, width).permute(0, 2, 1, 3, 4)
    return x + causal_conv3d(under(weights, "proj_out"), h, padding=0)


def mid(weights: Weights, x: Tensor, config: WFVAEConfig) -> Tensor:
    x = resnet_3d(under(weights, "0"), x)
    if config.use_attention:
        x = attention(under(weights, "1"), x, mixes_frames=config.attention_type == "AttnBlock3D")
    return resnet_3d(under(weights, "2" if config.use_attention else "1"), x)


# Resampling, by the names in a config


def downsample(name: str, weights: Weights, x: Tensor) -> Tensor:
    x = F.pad(x, (0, 1, 0, 1))
    weights = under(weights, "conv")
    if name == "Downsample":
        return conv2d(weights, x, stride=2, padding=0)
    return causal_conv3d(weights, x, stride=2 if name == "Spatial2xTime2x3DDownsample" else (1, 2, 2), padding=0)


def upsample(name: str, weights: Weights, x: Tensor, time_interpolation: str) -> Tensor:
    weights = under(weights, "conv")
    if name == "Upsample":
        return conv2d(weights, per_frame(lambda frame: F.interpolate(frame, scale_factor=2.0), x))
    if name == "SpatialUpsample2x":
        return causal_conv3d(weights, F.interpolate(x, scale_factor=(1.0, 2.0, 2.0)))
    x, rest = x[:, :, :1], x[:, :, 1:]
    if rest.shape[2]:
        corners = False if time_interpolation == "trilinear" else None
        rest = F.interpolate(rest, scale_factor=(2.0, 1.0, 1.0), mode=time_interpolation, align_corners=corners)
        x = torch.cat([x, rest], dim=2)
    x = F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="trilinear", align_corners=False)
    return causal_conv3d(weights, x)


# Wavelets, by the names in a config


def wavelet(name: str, weights: Weights, x: Tensor) -> Tensor:
    in_time = name.endswith("3D")
    if in_time:
        x, filters = first_frame_padded(x, 1), [weights[f"{band}_conv.conv.weight"] for band in BANDS_3D]
    else:
        filters = [weights[band].unsqueeze(2) for band in BANDS_2D]
    stride = (2 if in_time else 1, 2, 2)
    bands = [F.conv3d(channel, kernel, stride=stride) for kernel in filters for channel in x.chunk(x.shape[1], dim=1)]
    return torch.cat(bands, dim=1)


def inverse_wavelet(name: str, weights: Weights, x: Tensor) -> Tensor:
    in_time = name.endswith("3D")
    filters = [weights[band] for band in BANDS_3D] if in_time else [weights[band].unsqueeze(2) for band in BANDS_2D]
    stride = (2 if in_time else 1, 2, 2)
    bands = x.chunk(len(filters), dim=1)
    channels = []
    for c in range(bands[0].shape[1]):
        terms = [
            F.conv_transpose3d(band[:, c : c + 1], kernel, stride=stride)
            for band, kernel in zip(bands, filters, strict=True)
        ]
        channels.append(torch.stack(terms).sum(dim=0))
    return torch.cat(channels, dim=1)[:, :, 1 if in_time else 0 :]


# The networks


def encode(weights: Weights, config: WFVAEConfig, x: Tensor) -> tuple[Tensor, Coefficients]:
    """Moments and wavelet coefficients of a clip (B, 3, 1 + s·n, H, W), H and W multiples of 8."""
    weights = under(weights, "encoder")
    n = config.encoder_num_resblocks
    c = wavelet("HaarWaveletTransform3D", under(weights, "wavelet_transform_in"), x)
    c1 = wavelet(config.l1_downsample_wavelet, under(weights, "wavelet_transform_l1"), c[:, :3])
    c2 = wavelet(config.l2_downsample_wavelet, under(weights, "wavelet_transform_l2"), c1[:, :3])

    down1, down2 = under(weights, "down1"), under(weights, "down2")
    h = conv2d(under(down1, "0"), c)
    for i in range(n):
        h = resnet_2d(under(down1, str(1 + i)), h)
    h = downsample(config.l1_dowmsample_block, under(down1, str(1 + n)), h)
    h = torch.cat([h, conv2d(under(weights, "connect_l1"), c1)], dim=1)
    h = resnets_3d(down2, conv2d(under(down2, "0"), h), 1, n)
    h = downsample(config.l2_dowmsample_block, under(down2, str(1 + n)), h)
    h = torch.cat([h, conv2d(under(weights, "connect_l2"), c2)], dim=1)
    h = mid(under(weights, "mid"), h, config)
    return causal_conv3d(under(weights, "conv_out"), swish(norm(under(weights, "norm_out"), h))), (c1, c2)


def decode(weights: Weights, config: WFVAEConfig, z: Tensor) -> tuple[Tensor, Coefficients]:
    """The clip of a latent, and the wavelet coefficients that the decoder predicts."""
    weights = under(weights, "decoder")
    n, flow = config.decoder_num_resblocks, config.decoder_energy_flow_hidden_size

    def predict(name: str, h: Tensor) -> Tensor:
        count = config.connect_res_layer_num
        branch = under(weights, name)
        return conv2d(under(branch, str(count)), resnets_3d(branch, h[:, -flow:].contiguous(), 0, count))

    def level(name: str, kind: str, h: Tensor) -> Tensor:
        part = under(weights, name)
        h = resnets_3d(part, h[:, :-flow].contiguous(), 0, n)
        h = upsample(kind, under(part, str(n)), h, config.t_interpolation)
        return resnet_3d(under(part, str(n + 1)), h)

    h = mid(under(weights, "mid"), causal_conv3d(under(weights, "conv_in"), z), config)
    c2 = predict("connect_l2", h)
    h = level("up2", config.l2_upsample_block, h)
    low = inverse_wavelet(config.l2_upsample_wavelet, under(weights, "inverse_wavelet_transform_l2"), c2)
    c1 = with_low(predict("connect_l1", h), low)
    h = level("up1", config.l1_upsample_block, h)
    low = inverse_wavelet(config.l1_upsample_wavelet, under(weights, "inverse_wavelet_transform_l1"), c1)
    h = resnets_3d(under(weights, "layer"), h, 0, 2)
    c = conv2d(under(weights, "conv_out"), swish(norm(under(weights, "norm_out"), h)))
    last = under(weights, "inverse_wavelet_transform_out")
    return inverse_wavelet("InverseHaarWaveletTransform3D", last, with_low(c, low)), (c1, c2)


def with_low(bands: Tensor, low: Tensor) -> Tensor:
    """The lowest band, the first three channels, with `low` added."""
    return torch.cat([bands[:, :3] + low, bands[:, 3:]], dim=1)
