"""Haar wavelet transforms of video with the fixed filters of the published models, which are in the checkpoints.

Each transform is a reshape into blocks of 2 x 2 (x 2) pixels and a small matrix product. The filters are buffers under
the published names. The matrix is built from them, so that a half-precision checkpoint uses its rounded filters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product

import torch
from einops import rearrange
from torch import Tensor, nn

from vaectl.models.context import StreamContext
from vaectl.models.layers import Layer, like_weight

# Sign of a tap for a step along (time, height, width), per sub-band, in the order of the output channels.
SIGNS_3D = {
    "h": (1, 1, 1),
    "g": (1, 1, -1),
    "hh": (1, -1, 1),
    "gh": (1, -1, -1),
    "h_v": (-1, 1, 1),
    "g_v": (-1, 1, -1),
    "hh_v": (-1, -1, 1),
    "gh_v": (-1, -1, -1),
}
SIGNS_2D = {"aa": (1, 1), "ad": (-1, 1), "da": (1, -1), "dd": (-1, -1)}
TAP_3D = 0.3536  # as published, not 1 / (2 * sqrt(2))
TAP_2D = 0.5


def haar_filter(signs: tuple[int, ...], tap: float) -> Tensor:
    """Return the filter of a sub-band, (1, 1, 2, 2) or (1, 1, 2, 2, 2), with taps ±`tap`."""
    steps = product((0, 1), repeat=len(signs))
    taps = [tap * math.prod(sign**step for sign, step in zip(signs, at, strict=True)) for at in steps]
    return torch.tensor(taps).reshape(1, 1, *[2] * len(signs))


def transform(blocks: Tensor, matrix: Tensor) -> Tensor:
    """Return blocks @ matrix, in the type of the matrix."""
    return like_weight(blocks, matrix) @ matrix


def block_matrix(filters: Iterable[Tensor], channels: int) -> Tensor:
    """Return the matrix that transforms a block: (taps · C, bands · C), with C as the minor index."""
    taps_by_band = torch.stack([weight.flatten() for weight in filters], dim=1)
    return torch.kron(taps_by_band, torch.eye(channels, dtype=taps_by_band.dtype, device=taps_by_band.device))


class HaarWaveletTransform3D(Layer):
    """(B, C, 1 + 2n, H, W) -> (B, 8C, 1 + n, H/2, W/2), sub-bands major. The first frame is repeated once in front."""

    def __init__(self) -> None:
        super().__init__()
        for band, signs in SIGNS_3D.items():
            conv = nn.Module()
            conv.register_buffer("weight", haar_filter(signs, TAP_3D))
            holder = nn.Module()  # published as `h_conv.conv.weight`
            holder.add_module("conv", conv)
            self.add_module(f"{band}_conv", holder)

    def input_halo(self, halo: int) -> int:
        return 2 * halo

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        filters = (getattr(self, f"{band}_conv").conv.weight for band in SIGNS_3D)
        frames = context.causal_input(self, x_BCTHW, kernel=2, stride=2)
        frames = frames[:, :, : frames.shape[2] // 2 * 2]
        blocks = rearrange(frames, "b c (t i) (h j) (w k) -> b t h w (i j k c)", i=2, j=2, k=2)
        return transform(blocks, block_matrix(filters, frames.shape[1])).permute(0, 4, 1, 2, 3)


class InverseHaarWaveletTransform3D(Layer):
    """(B, 8C, 1 + n, H, W) -> (B, C, 1 + 2n, 2H, 2W): inverse transform, without the repeated first frame."""

    def __init__(self) -> None:
        super().__init__()
        for band, signs in SIGNS_3D.items():
            self.register_buffer(band, haar_filter(signs, TAP_3D))

    def input_halo(self, halo: int) -> int:
        return (halo + 1) // 2

    def forward(self, bands_BCTHW: Tensor, context: StreamContext) -> Tensor:
        filters = (getattr(self, band) for band in SIGNS_3D)
        blocks = transform(bands_BCTHW.permute(0, 2, 3, 4, 1), block_matrix(filters, bands_BCTHW.shape[1] // 8).mT)
        x = rearrange(blocks, "b t h w (i j k c) -> b (t i) (h j) (w k) c", i=2, j=2, k=2)
        return x.permute(0, 4, 1, 2, 3)[:, :, 1 if context.first else 0 :]


class HaarWaveletTransform2D(Layer):
    """(B, C, T, H, W) -> (B, 4C, T, H/2, W/2), each frame separately, sub-bands major."""

    def __init__(self) -> None:
        super().__init__()
        for band, signs in SIGNS_2D.items():
            self.register_buffer(band, haar_filter(signs, TAP_2D))

    def input_halo(self, halo: int) -> int:
        return 2 * halo

    def forward(self, x_BCTHW: Tensor, context: StreamContext) -> Tensor:
        filters = (getattr(self, band) for band in SIGNS_2D)
        blocks = rearrange(x_BCTHW, "b c t (h j) (w k) -> b t h w (j k c)", j=2, k=2)
        return transform(blocks, block_matrix(filters, x_BCTHW.shape[1])).permute(0, 4, 1, 2, 3)


class InverseHaarWaveletTransform2D(Layer):
    """(B, 4C, T, H, W) -> (B, C, T, 2H, 2W), each frame separately: the exact inverse."""

    def __init__(self) -> None:
        super().__init__()
        for band, signs in SIGNS_2D.items():
            self.register_buffer(band, haar_filter(signs, TAP_2D))

    def input_halo(self, halo: int) -> int:
        return (halo + 1) // 2

    def forward(self, bands_BCTHW: Tensor, context: StreamContext) -> Tensor:
        filters = (getattr(self, band) for band in SIGNS_2D)
        blocks = transform(bands_BCTHW.permute(0, 2, 3, 4, 1), block_matrix(filters, bands_BCTHW.shape[1] // 4).mT)
        return rearrange(blocks, "b t h w (j k c) -> b c t (h j) (w k)", j=2, k=2)
