"""The configs of the VAEs of Wan 2.1 and 2.2, and of Qwen-Image, with the keys of diffusers."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from vaectl.models.config import Blocks, Channels, Factor, FamilyConfig, Levels, Statistics

# Wan 2.1 and Qwen-Image
LATENTS_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENTS_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


class WanConfig(FamilyConfig):
    """Fields that the families share. Unknown keys are kept: diffusers adds some, and they change no network."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    base_dim: Channels = 96
    z_dim: Channels = 16
    dim_mult: Annotated[tuple[Factor, ...], Levels, Field(min_length=1)] = (1, 2, 4, 4)
    num_res_blocks: Blocks = 2
    attn_scales: Annotated[tuple[float, ...], Levels] = ()
    temperal_downsample: Annotated[tuple[bool, ...], Levels] = (False, True, True)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    latents_mean: Statistics = LATENTS_MEAN
    latents_std: Statistics = LATENTS_STD

    @model_validator(mode="after")
    def check(self) -> WanConfig:
        if len(self.temperal_downsample) != len(self.dim_mult) - 1:
            raise ValueError(f"temperal_downsample must have {len(self.dim_mult) - 1} values, one less than dim_mult")
        if self.attn_scales:
            raise ValueError("attn_scales must be empty: no published model has attention outside the middle")
        if self.video_channels != 3 * self.patch**2:
            raise ValueError(
                f"the network takes {self.video_channels} channels of video, and vaectl has {3 * self.patch**2}: RGB"
                + f" in patches of {self.patch}x{self.patch}" * (self.patch > 1)
            )
        for name in ("latents_mean", "latents_std"):
            if len(getattr(self, name)) != self.z_dim and name in self.model_fields_set:
                raise ValueError(f"{name} must have {self.z_dim} values, one per latent channel")
        if 0 in self.latents_std:
            raise ValueError("latents_std must not be 0")
        if not self.has_shortcuts and any(width % 2 for width in self.decoder_widths[:-1]):
            raise ValueError("the decoder halves its channels, so those of each level but the last must be even")
        if self.has_shortcuts:
            self.check_shortcuts()
        return self

    def check_shortcuts(self) -> None:
        """Raise ValueError if a shortcut cannot average or repeat whole channels."""
        down, up = self.encoder_widths, self.decoder_widths
        times = self.temperal_downsample
        values = [*(4 * (1 + time) for time in times), 1]
        for before, width, factor in zip([down[0], *down], down, values, strict=False):
            if before * factor % width:
                raise ValueError(f"a shortcut of the encoder cannot average {before} channels to {width}")
        for before, width, time in zip([up[0], *up], up, reversed(times), strict=False):
            if width * 4 * (1 + time) % before:
                raise ValueError(f"a shortcut of the decoder cannot repeat {before} channels to {width}")

    @property
    def patch(self) -> int:
        """Width and height of the patches that the network takes as positions."""
        return 1

    @property
    def video_channels(self) -> int:
        """Channels that the encoder takes: those of a patch."""
        return 3

    @property
    def has_shortcuts(self) -> bool:
        """Whether each level has a shortcut, as in Wan 2.2."""
        return False

    @property
    def encoder_widths(self) -> list[int]:
        """Channels of each level."""
        return [self.base_dim * mult for mult in self.dim_mult]

    @property
    def decoder_widths(self) -> list[int]:
        """Channels of each level, in the order of the decoder."""
        return self.encoder_widths[::-1]

    @property
    def latent_channels(self) -> int:
        return self.z_dim

    @property
    def time_compression(self) -> int:
        return math.prod(1 + halves for halves in self.temperal_downsample)

    @property
    def space_compression(self) -> int:
        return self.patch * math.prod(2 for _ in self.temperal_downsample)

    @property
    def latent_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if len(self.latents_mean) != self.z_dim:  # the defaults are those of 16 channels
            return super().latent_statistics
        return self.latents_mean, tuple(1 / std for std in self.latents_std)


class AutoencoderKLQwenImageConfig(WanConfig):
    class_name = "AutoencoderKLQwenImage"

    input_channels: Channels = 3

    @property
    def video_channels(self) -> int:
        return self.input_channels


class AutoencoderKLWanConfig(WanConfig):
    class_name = "AutoencoderKLWan"

    decoder_base_dim: Channels | None = None
    is_residual: bool = False
    in_channels: Channels = 3
    out_channels: Channels = 3
    patch_size: Annotated[int, Field(ge=1, le=16)] | None = None
    scale_factor_temporal: Factor | None = 4
    scale_factor_spatial: Factor | None = 8

    @model_validator(mode="after")
    def check_wan(self) -> AutoencoderKLWanConfig:
        if self.out_channels != self.in_channels:
            raise ValueError(f"out_channels must be in_channels, {self.in_channels}")
        return self

    @property
    def patch(self) -> int:
        return self.patch_size or 1

    @property
    def video_channels(self) -> int:
        return self.in_channels

    @property
    def has_shortcuts(self) -> bool:
        return self.is_residual

    @property
    def decoder_widths(self) -> list[int]:
        return [(self.decoder_base_dim or self.base_dim) * mult for mult in reversed(self.dim_mult)]
