"""Narrow models of Wan and Qwen-Image by diffusers, and their weights under the names of the original code."""

from __future__ import annotations

import json
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


ENDS = {
    "quant_conv": "conv1",
    "post_quant_conv": "conv2",
    "conv_in": "conv1",
    "norm_out": "head.0",
    "conv_out": "head.2",
}
MIDDLE = {"resnets.0": "middle.0", "attentions.0": "middle.1", "resnets.1": "middle.2"}
LAYERS = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
LAYERS |= {"conv_shortcut": "shortcut"}


def original_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict under the names of the original code of Wan, written down part by part."""
    nested = "decoder.up_blocks.0.upsampler.resample.1.weight" in state  # 2.2 has a list for each level
    resnets = sum(name.startswith("decoder.up_blocks.0.resnets.") and name.endswith("conv1.bias") for name in state)

    def original(side: str, part: str, *rest: str) -> tuple[str, ...]:
        if side in ENDS:
            return ENDS[side], part
        if part in ENDS:
            return side, ENDS[part], *rest
        if part == "mid_block":
            block, number, layer, *more = rest
            return side, MIDDLE[f"{block}.{number}"], LAYERS.get(layer, layer), *more
        samples = part.replace("_blocks", "samples")
        level, kind, *more = rest
        if kind == "resnets":
            index, layer, *more = more
            place = (level, samples, index) if nested else (str(int(level) * (resnets + 1) + int(index)),)
            return side, samples, *place, LAYERS[layer], *more
        if kind in ("downsampler", "upsampler"):  # after the blocks, of which the encoder has one less
            return side, samples, level, samples, str(resnets - (side == "encoder")), *more
        if kind == "upsamplers":
            return side, samples, str(int(level) * (resnets + 1) + resnets), *more[1:]
        return side, samples, level, LAYERS.get(kind, kind), *more  # the encoder of 2.1 has one list in both

    return {".".join(original(*name.split("."))): tensor.contiguous() for name, tensor in state.items()}


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
