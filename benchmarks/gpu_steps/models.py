"""Models and clips of the steps, made from seeds. Only the built-in model is read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from tests.models.reference import CASES, load_reference, synthetic_model
from tests.models.synthetic_weights import synthetic_video
from torch import Tensor

from common import WF_VAE_L, WF_VAE_S
from gpu_steps.context import Context
from vaectl.models import build_model, load_model
from vaectl.models.checkpoint import channels_last
from vaectl.models.config import FamilyConfig, WFVAEConfig
from vaectl.models.vae import AnyVAE

CAUSALVAE_CASES = [name for name in CASES if name.startswith("causalvae")]
WAN_CASES = [name for name in CASES if name.startswith("wan")]


def built_in(context: Context, dtype: torch.dtype = torch.float32) -> AnyVAE:
    """Load the built-in model."""
    return load_model(device=context.device, dtype=dtype)


def narrowed(config: WFVAEConfig, context: Context) -> WFVAEConfig:
    """Return a published config, or for tiny shapes the same network with few channels."""
    few = {"base_channels": 8, "encoder_energy_flow_hidden_size": 8, "decoder_energy_flow_hidden_size": 8}
    return config.model_copy(update=few) if context.tiny else config


def wfvae(size: str, context: Context, dtype: torch.dtype = torch.float32) -> AnyVAE:
    """Build WF-VAE-S or -L with synthetic weights, whose outputs are of order 1."""
    config = narrowed({"S": WF_VAE_S, "L": WF_VAE_L}[size], context)
    return placed(config, synthetic_weights(config), context.device, dtype)


@lru_cache(maxsize=1)
def synthetic_weights(config: WFVAEConfig) -> dict[str, Tensor]:
    """Build and cache a model, because a large one takes seconds."""
    return synthetic_model(config.to_json()).state_dict()


def reference_model(name: str, context: Context, dtype: torch.dtype = torch.float32) -> AnyVAE:
    """Build the model of a reference case."""
    model = synthetic_model(load_reference(name).config)
    return placed(model.config, model.state_dict(), context.device, dtype)


def placed(config: FamilyConfig, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> AnyVAE:
    """Move a model to its device, with the memory layout that `load_model` uses."""
    with torch.device("meta"):
        model = build_model(config)
    on_device = {name: channels_last(weight.to(device, dtype)) for name, weight in weights.items()}
    model.load_state_dict(on_device, assign=True)
    return model.eval().requires_grad_(False)


def clip(frames: int, height: int, width: int) -> Tensor:
    """Return moving gratings with noise, (1, 3, T, H, W) float32 in [-1, 1], in host memory."""
    return torch.from_numpy(synthetic_video("clip", (1, 3, frames, height, width)))
