"""The configs of the VAEs of Wan 2.1 and 2.2, and of Qwen-Image, with the keys of diffusers."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue, model_validator

from vaectl.models.config import Blocks, Channels, Factor, FamilyConfig, Levels, Statistics

STATISTICS = {
    16: (  # Wan 2.1 and Qwen-Image
        (
            *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
            *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
        ),
        (
            *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
            *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
        ),
    ),
    48: (  # Wan 2.2
        (
            *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557),
            *(-0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825),
            *(-0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
            *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230),
            *(-0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748),
            *(0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
        ),
        (
            *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013),
            *(0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978),
            *(0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
            *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093),
            *(0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887),
            *(0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
        ),
    ),
}
"""Published means and standard deviations of the latent channels, by their number."""
LATENTS_MEAN, LATENTS_STD = STATISTICS[16]
"""The defaults of the classes. diffusers writes them into the config of any `z_dim`."""


class WanConfig(FamilyConfig):
    """Fields that the families share. Unknown keys are kept: diffusers adds some, and they change no network.

    Types are strict: "8" is no number, and "false" is no boolean.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

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
        for name, default in (("latents_mean", LATENTS_MEAN), ("latents_std", LATENTS_STD)):
            if len(values := getattr(self, name)) != self.z_dim and values != default:
                raise ValueError(f"{name} must have {self.z_dim} values, one per latent channel")
        if not all(std > 0 and math.isfinite(1 / std) for std in self.latents_std):
            raise ValueError("latents_std must be positive, with a finite inverse")
        if not self.has_shortcuts and any(width % 2 for width in self.decoder_widths[:-1]):
            raise ValueError("the decoder halves its channels, so those of each level but the last must be even")
        if self.has_shortcuts:
            self.check_shortcuts()
        return self

    def check_shortcuts(self) -> None:
        """Raise ValueError if a shortcut cannot average or repeat whole channels."""
        down, up = [self.base_dim, *self.encoder_widths], [self.decoder_widths[0], *self.decoder_widths]
        values = [4 * (1 + halves) for halves in self.temperal_downsample]  # that become one position, at each level
        for before, after, count in zip(down, down[1:], [*values, 1], strict=False):
            if before * count % after:
                raise ValueError(f"a shortcut of the encoder cannot average {before} channels to {after}")
        for before, after, count in zip(up, up[1:], values[::-1], strict=False):
            if after * count % before:
                raise ValueError(f"a shortcut of the decoder cannot repeat {before} channels to {after}")

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
    def decoder_base(self) -> int:
        """`base_dim` of the decoder."""
        return self.base_dim

    @property
    def decoder_widths(self) -> list[int]:
        """Channels of each level, in the order of the decoder."""
        return [self.decoder_base * mult for mult in reversed(self.dim_mult)]

    @property
    def network(self) -> dict[str, Any]:
        return {
            "is_residual": self.has_shortcuts,
            "patch_size": self.patch,
            "in_channels": self.video_channels,
            "base_dim": self.base_dim,
            "decoder_base_dim": self.decoder_base,
            "z_dim": self.z_dim,
            "dim_mult": self.dim_mult,
            "num_res_blocks": self.num_res_blocks,
            "temperal_downsample": self.temperal_downsample,
            "dropout": self.dropout,
        }

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
        if {len(self.latents_mean), len(self.latents_std)} != {self.z_dim}:  # the defaults are those of 16 channels
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
    def version(self) -> str | None:
        return "Wan 2.2" if self.is_residual else "Wan 2.1"

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
    def decoder_base(self) -> int:
        return self.decoder_base_dim or self.base_dim
