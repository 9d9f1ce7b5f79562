"""Narrow models of Wan and Qwen-Image by diffusers, and their weights under the names of the original code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.oracle import diffusers_class
from vaectl.errors import VaectlError
from vaectl.inventory import describe
from vaectl.models import load_model

WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = {"base_dim": 8, "dim_mult": [1, 2, 2], "num_res_blocks": 2, "temperal_downsample": [False, True]}
PUBLISHED_22 = {
    **{"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True},
    **{"in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16},
}
SMALL_22 = {**PUBLISHED_22, **SMALL, "decoder_base_dim": 12, "z_dim": 6, "scale_factor_spatial": 8, "num_res_blocks": 1}
KINDS = {
    "2.1": ("AutoencoderKLWan", {**SMALL, "scale_factor_temporal": 2, "scale_factor_spatial": 4}),
    "2.2": ("AutoencoderKLWan", {**SMALL_22, "scale_factor_temporal": 2}),
    "Qwen": ("AutoencoderKLQwenImage", SMALL),
}


@pytest.fixture(scope="module")
def oracles() -> dict[str, Any]:
    torch.manual_seed(0)
    return {kind: diffusers_class(name)(**config).eval() for kind, (name, config) in KINDS.items()}


def original_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict under the names of the original code of Wan, written down block by block."""
    blocks = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
    blocks |= {"conv_shortcut": "shortcut"}
    mid = {"resnets.0": "middle.0", "attentions.0": "middle.1", "resnets.1": "middle.2"}
    resnets = [name for name in state if re.match(r"decoder\.up_blocks\.0\.resnets\.\d+\.conv1\.weight", name)]

    def original(name: str) -> str:
        words = name.split(".")
        side, *rest = words
        if side in ("quant_conv", "post_quant_conv"):
            return ".".join([{"quant_conv": "conv1", "post_quant_conv": "conv2"}[side], *rest])
        if rest[0] in ("conv_in", "norm_out", "conv_out"):
            return ".".join(
                [side, {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}[rest[0]], *rest[1:]]
            )
        if rest[0] == "mid_block":
            return ".".join([side, mid[".".join(rest[1:3])], blocks.get(rest[3], rest[3]), *rest[4:]])
        level, part = int(rest[1]), rest[2]
        down = rest[0] == "down_blocks"
        samples = "downsamples" if down else "upsamples"
        if part in ("downsampler", "upsampler"):  # the last of its level
            last = len(resnets) - down
            return ".".join([side, samples, str(level), samples, str(last), *rest[3:]])
        if part == "resnets" and "decoder.up_blocks.0.upsampler.resample.1.weight" in state:
            return ".".join([side, samples, str(level), samples, rest[3], blocks[rest[4]], *rest[5:]])
        if part == "resnets":
            return ".".join([side, samples, str(level * (len(resnets) + 1) + int(rest[3])), blocks[rest[4]], *rest[5:]])
        if part == "upsamplers":
            return ".".join([side, samples, str(level * (len(resnets) + 1) + len(resnets)), *rest[4:]])
        return ".".join([side, samples, str(level), blocks.get(part, part), *rest[3:]])

    return {original(name): tensor.contiguous() for name, tensor in state.items()}


@torch.no_grad()
def assert_same_numbers(model: Any, oracle: Any) -> None:
    video = torch.rand(1, 3, 5, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    posterior, wanted = model.encode(video), oracle.encode(video).latent_dist
    torch.testing.assert_close(posterior.mean, wanted.mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(posterior.logvar, wanted.logvar, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        model.decode(wanted.mean).clamp(-1, 1), oracle.decode(wanted.mean).sample, rtol=0, atol=1e-4
    )


def one_line(path: Path, code: type[VaectlError] = VaectlError) -> str:
    """Return the error for a path, which `load_model` and `describe` agree on."""
    with pytest.raises(code) as error:
        load_model(path, device="cpu")
    with pytest.raises(code) as other:
        describe(path)
    assert str(error.value) == str(other.value)
    assert str(error.value).isprintable()
    return str(error.value)


def config(folder: Path, **values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return folder
