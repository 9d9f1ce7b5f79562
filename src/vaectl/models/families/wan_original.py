"""Checkpoints of Wan without a config: the names of the original code, and the config that names and shapes imply.

The original files are Wan2.1_VAE.pth and Wan2.2_VAE.pth, and copies of them as .safetensors. The VAE of Qwen-Image has
the network of Wan 2.1, so its copies with these names are read as Wan. Knows names and shapes only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from vaectl.models.config import FamilyConfig
from vaectl.models.families.wan_config import STATISTICS, AutoencoderKLWanConfig, WanConfig

V = TypeVar("V")

MARK = "decoder.middle.0.residual.0.gamma"
"""A name that only the original code uses."""
NAMES = (
    (r"coder\.conv1\.", "coder.conv_in."),
    (r"(^|\.)conv1\.", r"\1quant_conv."),
    (r"(^|\.)conv2\.", r"\1post_quant_conv."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    # Wan 2.2 has the blocks of each level in a list of its own.
    (r"\.(down|up)samples\.(\d+)\.\1samples\.(\d+)\.(?=residual|shortcut)", r".\1_blocks.\2.resnets.\3."),
    (r"\.(down|up)samples\.(\d+)\.\1samples\.\d+\.", r".\1_blocks.\2.\1sampler."),
    (r"\.downsamples\.", ".down_blocks."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)
"""Patterns of the original names and their replacements in the names of diffusers, applied in this order."""
UP = r"\.upsamples\.(\d{1,4})\.(?!upsamples\.)"
"""A block of the decoder of Wan 2.1. diffusers has a list for each level; the original has one for all."""

ATTENTION = "encoder.mid_block.attentions.0.to_qkv.weight"
ENDS = ("encoder.conv_in.weight", "post_quant_conv.weight", "decoder.conv_in.weight", "decoder.conv_out.weight")
"""Tensors that define the config, under the names of diffusers."""


def is_original(names: Iterable[str]) -> bool:
    """Return whether names are those of the original code, perhaps with a prefix."""
    return any(name.endswith(MARK) for name in names)


def diffusers_names(state: Mapping[str, V]) -> dict[str, V]:
    """Rename the entries of an original checkpoint as diffusers does. Others are unchanged. A prefix is kept.

    An entry whose new name is taken keeps its own, so that it is found to be unexpected.
    """
    if not is_original(state):
        return dict(state)
    per_level = 1 + min((int(found[1]) for name in state if (found := re.search(UP + "resample", name))), default=10**4)

    def level(found: re.Match[str]) -> str:
        i, block = divmod(int(found[1]), per_level)
        return f".up_blocks.{i}." + ("upsamplers.0." if block == per_level - 1 else f"resnets.{block}.")

    renamed: dict[str, V] = {}
    for name, value in state.items():
        new = name
        for pattern, replacement in NAMES:
            new = re.sub(pattern, replacement, new)
        new = re.sub(UP, level, new)
        renamed[name if new in renamed or new in state else new] = value
    return renamed


def incomplete(state: Mapping[str, Any]) -> list[str]:
    """Return which of the tensors in ATTENTION and ENDS are missing, or have another number of dimensions."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if isinstance(tensor, Tensor)}
    return [
        needed
        for needed, dimensions in ((ATTENTION, 4), *((end, 5) for end in ENDS))
        if not any(name.endswith(needed) and len(shape) == dimensions for name, shape in shapes.items())
    ]


def config_fields(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of the `AutoencoderKLWanConfig` of weights with the names of diffusers, perhaps with a prefix.

    `state` has tensors, of which only the shapes are used. Returns None if they are not of this network. Checks only
    the names and shapes that it needs.
    """
    prefix = next((name.removesuffix(ATTENTION) for name in state if name.endswith(ATTENTION)), None)
    if prefix is None:
        return None
    shapes = {
        name.removeprefix(prefix): tuple(tensor.shape)
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and tensor.ndim and name.startswith(prefix)
    }
    blocks, samplers = (
        sorted((name for name in shapes if re.match(rf"encoder\.down_blocks\..+\.{end}$", name)), key=numbers)
        for end in (r"conv2\.weight", r"resample\.1\.weight")
    )
    num_res_blocks = len(blocks) // (len(samplers) + 1)
    if not num_res_blocks or any(len(shapes.get(name, ())) != 5 for name in ENDS):
        return None
    base_dim, latent, top, out = (shapes[name][0] for name in ENDS)
    channels = shapes["encoder.conv_in.weight"][1]
    widths = [shapes[name][0] for name in blocks[::num_res_blocks]]
    dim_mult = tuple(width // max(1, base_dim) for width in widths[: len(samplers) + 1])
    decoder_base_dim = top // max(1, dim_mult[-1])
    halves_time = tuple(re.sub(r"resample\.1\.weight$", "time_conv.weight", name) in shapes for name in samplers)
    patch = math.isqrt(channels // 3)
    fields: dict[str, Any] = {
        "base_dim": base_dim,
        "decoder_base_dim": None if decoder_base_dim == base_dim else decoder_base_dim,
        "z_dim": latent,
        "dim_mult": dim_mult,
        "num_res_blocks": num_res_blocks,
        "temperal_downsample": halves_time,
        "is_residual": any(".resnets." in name for name in blocks),
        "in_channels": channels,
        "out_channels": out,
        "patch_size": patch if patch > 1 else None,
        "scale_factor_temporal": 2 ** sum(halves_time),
        "scale_factor_spatial": max(1, patch) * 2 ** len(samplers),
    }
    if latent in STATISTICS:
        fields["latents_mean"], fields["latents_std"] = STATISTICS[latent]
    return fields


def differences(config: FamilyConfig, given: Mapping[str, Any]) -> str:
    """Return how the weights of a Wan differ from a config; empty if they do not, or are of another network."""
    if (fields := config_fields(given)) is None:
        return ""
    if not isinstance(config, WanConfig):
        return f"it is an AutoencoderKLWan, and the config is of {config.a_model}"
    own = AutoencoderKLWanConfig.model_construct(**fields, dropout=config.dropout).network
    differing = [f"{name} {own[name]} (not {value})" for name, value in config.network.items() if own[name] != value]
    return f"it has {', '.join(differing)}" if differing else ""


def numbers(name: str) -> list[int]:
    """Return the numbers in a name, to sort by."""
    return [int(number) for number in re.findall(r"\.(\d{1,4})(?=\.)", name)]
