"""The configs of families: the validated fields of `config.json`.

Field names are part of the format, including misspellings. A config defines every layer of a network. It does not know
weights, or how the network is built.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Published values are at most a quarter of these limits. Within them every network is built in moments.
Channels = Annotated[int, Field(ge=1, le=8192)]
Factor = Annotated[int, Field(ge=1, le=64)]
Blocks = Annotated[int, Field(ge=1, le=32)]
Pixels = Annotated[int, Field(ge=1, le=65536)]
# Tuples are not strict, so that they accept the lists of JSON. Their values are, where the config is.
Statistics = Annotated[tuple[float, ...], Field(max_length=8192, strict=False)]
Levels = Field(max_length=8, strict=False)
Norm = Literal["groupnorm", "layernorm"]
Conv = Literal["Conv2d", "CausalConv3d"]
ResnetBlock = Literal["ResnetBlock2D", "ResnetBlock3D"]
AttnBlock = Literal["AttnBlock3D", "AttnBlock3DFix"]
SpatialDown = Literal["Downsample", "SpatialDownsample2x", "Spatial2xTime2x3DDownsample"]
SpatialUp = Literal["Upsample", "SpatialUpsample2x", "Spatial2xTime2x3DUpsample"]
Wavelet = Literal["HaarWaveletTransform2D", "HaarWaveletTransform3D"]
InverseWavelet = Literal["InverseHaarWaveletTransform2D", "InverseHaarWaveletTransform3D"]
TimeDown = Literal["TimeDownsample2x", "TimeDownsampleRes2x"]
TimeUp = Literal["TimeUpsample2x", "TimeUpsampleRes2x"]
NONE = Literal[""]

HALVES_TIME = ("Spatial2xTime2x3D", "HaarWaveletTransform3D", "InverseHaarWaveletTransform3D", "Time")


def time_factor(layer: str) -> int:
    """Return the factor, 1 or 2, by which the named resampling layer changes the number of frames."""
    return 2 if layer.startswith(HALVES_TIME) else 1


class FamilyConfig(BaseModel, ABC):
    """The config of a family. Frozen, because a network is built from it once."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    class_name: ClassVar[str]

    @property
    def a_model(self) -> str:
        """The class name with its article, for messages: a WFVAEModel, an AutoencoderKLWan."""
        return f"a{'n' * self.class_name.startswith('A')} {self.class_name}"

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """C of the latent."""

    @property
    @abstractmethod
    def time_compression(self) -> int:
        """s: 1 + s·n frames give 1 + n latent frames."""

    @property
    @abstractmethod
    def space_compression(self) -> int:
        """Height and width of the video divided by those of the latent."""

    @property
    def latent_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Shift and scale for training on latents: (z - shift)·scale. Encoding and decoding do not apply them."""
        return (0.0,) * self.latent_channels, (1.0,) * self.latent_channels

    @property
    def network(self) -> dict[str, Any]:
        """The values that define the network. Classes with the same network have the same."""
        return {"_class_name": self.class_name, **self.model_dump(exclude={"shift", "scale"})}

    @property
    def family(self) -> str:
        """The distinctive part of `class_name`: WFVAE, CausalVAE, Wan, QwenImage."""
        return self.class_name.removeprefix("AutoencoderKL").removesuffix("Model")

    @property
    def version(self) -> str | None:
        """Which of several models that share the class; None if there is one."""
        return None

    def is_called(self, name: str) -> bool:
        """Whether `name` is a name of this family: Wan, AutoencoderKLWan; WFVAE, WF-VAE, WFVAEModel_D8_4x8x8, …

        Published scripts use names with a compression.
        """
        plain = re.sub(r"^autoencoderkl|(model)?(_d\d+)?(_\d+x\d+x\d+)?$|[-_]", "", name.lower())
        return plain == self.family.lower()

    def to_json(self) -> dict[str, Any]:
        """Return the content of `config.json`, including the name of the family."""
        return {"_class_name": self.class_name, **self.model_dump(mode="json")}


class OpenSoraConfig(FamilyConfig):
    """Fields of both families of the Open-Sora Plan."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    norm_type: Norm = "groupnorm"
    scale: Statistics = (0.18215,) * 4
    shift: Statistics = (0.0,) * 4

    @property
    def latent_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.shift, self.scale


class WFVAEConfig(OpenSoraConfig):
    """WF-VAE (Li et al. 2024): the wavelet-driven energy flow VAE of Open-Sora Plan v1.3 and later."""

    class_name = "WFVAEModel"

    latent_dim: Channels = 8
    base_channels: Channels = 128
    encoder_num_resblocks: Blocks = 2
    encoder_energy_flow_hidden_size: Channels = 64
    decoder_num_resblocks: Blocks = 2
    decoder_energy_flow_hidden_size: Channels = 128
    attention_type: AttnBlock = "AttnBlock3DFix"
    use_attention: bool = True
    t_interpolation: Literal["nearest", "trilinear"] = "nearest"
    connect_res_layer_num: Blocks = 1
    l1_dowmsample_block: SpatialDown = "Downsample"
    l1_downsample_wavelet: Wavelet = "HaarWaveletTransform2D"
    l2_dowmsample_block: SpatialDown = "Spatial2xTime2x3DDownsample"
    l2_downsample_wavelet: Wavelet = "HaarWaveletTransform3D"
    l1_upsample_block: SpatialUp = "Upsample"
    l1_upsample_wavelet: InverseWavelet = "InverseHaarWaveletTransform2D"
    l2_upsample_block: SpatialUp = "Spatial2xTime2x3DUpsample"
    l2_upsample_wavelet: InverseWavelet = "InverseHaarWaveletTransform3D"

    @model_validator(mode="after")
    def check_levels(self) -> WFVAEConfig:
        for level in ("l1", "l2"):
            names = [
                getattr(self, f"{level}_{part}")
                for part in ("dowmsample_block", "downsample_wavelet", "upsample_block", "upsample_wavelet")
            ]
            if len({time_factor(name) for name in names}) > 1:
                raise ValueError(f"the {level} blocks and wavelets disagree on halving time: {', '.join(names)}")
        if self.norm_type == "groupnorm":
            b, flows = (
                self.base_channels,
                (self.encoder_energy_flow_hidden_size, self.decoder_energy_flow_hidden_size),
            )
            for channels in (b, 2 * b + flows[0], 4 * b + flows[1], flows[1]):
                check_groups(channels)
        return self

    @property
    def latent_channels(self) -> int:
        return self.latent_dim

    @property
    def time_compression(self) -> int:
        return 2 * time_factor(self.l1_dowmsample_block) * time_factor(self.l2_dowmsample_block)

    @property
    def space_compression(self) -> int:
        return 8  # the first wavelet and two levels


class CausalVAEConfig(OpenSoraConfig):
    """CausalVAE (OD-VAE, Chen et al. 2024): an inflated latent-diffusion auto-encoder, Open-Sora Plan v1.1 and v1.2."""

    class_name = "CausalVAEModel"

    hidden_size: Channels = 128
    z_channels: Channels = 4
    hidden_size_mult: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=8)] = (1, 2, 4, 4)
    attn_resolutions: Annotated[tuple[Pixels, ...], Levels] = ()
    resolution: Pixels = 256
    double_z: Literal[True] = True
    embed_dim: Channels = 4
    num_res_blocks: Blocks = 2
    q_conv: Conv = "CausalConv3d"
    encoder_conv_in: Conv = "CausalConv3d"
    encoder_conv_out: Conv = "CausalConv3d"
    encoder_attention: AttnBlock = "AttnBlock3D"
    encoder_resnet_blocks: Annotated[tuple[ResnetBlock, ...], Levels] = ("ResnetBlock3D",) * 4
    encoder_spatial_downsample: Annotated[tuple[SpatialDown | NONE, ...], Levels] = (*("SpatialDownsample2x",) * 3, "")
    encoder_temporal_downsample: Annotated[tuple[TimeDown | NONE, ...], Levels] = (
        *("", "TimeDownsample2x", "TimeDownsample2x", ""),
    )
    encoder_mid_resnet: ResnetBlock = "ResnetBlock3D"
    decoder_conv_in: Conv = "CausalConv3d"
    decoder_conv_out: Conv = "CausalConv3d"
    decoder_attention: AttnBlock = "AttnBlock3D"
    decoder_resnet_blocks: Annotated[tuple[ResnetBlock, ...], Levels] = ("ResnetBlock3D",) * 4
    decoder_spatial_upsample: Annotated[tuple[SpatialUp | NONE, ...], Levels] = ("", *("SpatialUpsample2x",) * 3)
    decoder_temporal_upsample: Annotated[tuple[TimeUp | NONE, ...], Levels] = (
        *("", "", "TimeUpsample2x", "TimeUpsample2x"),
    )
    decoder_mid_resnet: ResnetBlock = "ResnetBlock3D"
    use_quant_layer: bool = True

    @model_validator(mode="after")
    def check_levels(self) -> CausalVAEConfig:
        levels = len(self.hidden_size_mult)
        for field in (
            "encoder_resnet_blocks",
            "encoder_spatial_downsample",
            "encoder_temporal_downsample",
            "decoder_resnet_blocks",
            "decoder_spatial_upsample",
            "decoder_temporal_upsample",
        ):
            if len(getattr(self, field)) != levels:
                raise ValueError(f"{field} must name {levels} layers, one per entry of hidden_size_mult")
        if self.down_factors("encoder") != self.down_factors("decoder"):
            raise ValueError("the encoder shrinks the video by another factor than the decoder enlarges it")
        if not self.use_quant_layer and self.embed_dim != self.z_channels:
            raise ValueError("without quant layer, embed_dim must equal z_channels")
        for mult in self.hidden_size_mult:
            check_groups(self.hidden_size * mult)
        return self

    def down_factors(self, side: Literal["encoder", "decoder"]) -> tuple[int, int]:
        """Return the resampling factors (space, time) of the encoder or decoder."""
        way = "downsample" if side == "encoder" else "upsample"
        spatial: tuple[str, ...] = getattr(self, f"{side}_spatial_{way}")
        temporal: tuple[str, ...] = getattr(self, f"{side}_temporal_{way}")
        space = 2 ** sum(bool(name) for name in spatial)
        time = 1
        for name in (*spatial, *temporal):
            time *= time_factor(name)
        return space, time

    @property
    def latent_channels(self) -> int:
        return self.embed_dim

    @property
    def space_compression(self) -> int:
        return self.down_factors("encoder")[0]

    @property
    def time_compression(self) -> int:
        return self.down_factors("encoder")[1]


def check_groups(channels: int) -> None:
    if channels % 32:
        raise ValueError(f"groupnorm has 32 groups, and {channels} channels do not divide by 32")
