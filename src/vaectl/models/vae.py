"""A causal video VAE, whatever its family: encode, decode, and a clip of any length and size there and back.

Knows tensors only. The families (`families/`) give the two networks; how a long clip is cut into pieces
is in `streaming.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.models.config import FamilyConfig
from vaectl.models.context import Piece
from vaectl.models.posterior import Posterior

Config = TypeVar("Config", bound=FamilyConfig)


class VideoVAE(nn.Module, ABC, Generic[Config]):
    """Video in RGB, (B, 3, T, H, W) in [-1, 1], to latents (B, C, 1 + n, H/8, W/8) and back."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @property
    def streams(self) -> bool:
        """Whether a clip may be cut into pieces in time: false if a layer's statistics or attention span the clip."""
        return not any(getattr(module, "whole_clip", False) for module in self.modules())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def prepare(self, x_BCTHW: Tensor) -> Tensor:
        """On the model's device, in its type, channels-last in memory."""
        return x_BCTHW.to(self.device, self.dtype, memory_format=torch.channels_last_3d)

    @abstractmethod
    def encode_piece(self, x_BCTHW: Tensor, piece: Piece) -> Tensor:
        """Moments (B, 2C, t, H/8, W/8) of the latent frames that this piece completes; sizes must fit exactly."""

    @abstractmethod
    def decode_piece(self, z_BCTHW: Tensor, piece: Piece) -> Tensor:
        """The frames (B, 3, T, H, W) that can be given once these latent frames are known."""

    def encode(self, video_BCTHW: Tensor) -> Posterior:
        """The posterior of a clip, (B, 3, T, H, W) in [-1, 1].

        Any T, H and W of at least 1: the last frame and the right and bottom edges are repeated up to the sizes that
        the network takes (1 + s·n frames, s = `config.time_compression`; multiples of `config.space_compression`).
        """
        missing = (1 - video_BCTHW.shape[2]) % self.config.time_compression
        x = self.prepare(pad_to_fit(video_BCTHW, self.config, missing))
        return Posterior.from_moments(self.encode_piece(x, Piece()))

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """The clip (B, 3, 1 + s·(t - 1), 8H, 8W) of a latent (B, C, t, H, W); values about [-1, 1], not clamped."""
        return self.decode_piece(self.prepare(latent_BCTHW), Piece())

    @torch.no_grad()
    def reconstruct(
        self, video_BCTHW: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """A clip through the model and back: the same shape, whatever it is.

        Uses the posterior's mean, or with `sample` a latent drawn from it.
        """
        posterior = self.encode(video_BCTHW)
        video = self.decode(posterior.sample(generator) if sample else posterior.mode())
        _, _, frames, height, width = video_BCTHW.shape
        return video[:, :, :frames, :height, :width]


def pad_to_fit(x_BCTHW: Tensor, config: FamilyConfig, frames: int) -> Tensor:
    """Repeat the last frame `frames` times, and the right and bottom edges up to the sizes that the network takes."""
    height, width = x_BCTHW.shape[3:]
    right, bottom = -width % config.space_compression, -height % config.space_compression
    if not (right or bottom or frames):
        return x_BCTHW
    return F.pad(x_BCTHW, (0, right, 0, bottom, 0, frames), mode="replicate")


AnyVAE = VideoVAE[Any]
