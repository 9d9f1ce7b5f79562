"""The reference cases: configs, names and shapes, and outputs of the original implementation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from vaectl.models import build_model
from vaectl.models.build import FAMILIES
from vaectl.models.vae import AnyVAE

from .synthetic_weights import synthetic_tensor, synthetic_video

DATA = Path(__file__).parent.parent / "data" / "reference"
CASES = sorted(path.stem for path in DATA.glob("*.json"))


@dataclass(frozen=True)
class Reference:
    name: str
    config: dict[str, Any]
    shapes: dict[str, list[int]]
    video: Tensor
    moments: Tensor
    reconstruction: Tensor


def load_reference(name: str) -> Reference:
    case = json.loads((DATA / f"{name}.json").read_text())
    tensors = load_file(DATA / f"{name}.safetensors")
    video = torch.from_numpy(synthetic_video(case["name"], tuple(case["input_shape"])))
    return Reference(name, case["config"], case["state_dict"], video, tensors["moments"], tensors["reconstruction"])


def synthetic_model(config: dict[str, Any]) -> AnyVAE:
    """Build a model with the synthetic weights. Its wavelet filters are unchanged."""
    fields = {key: value for key, value in config.items() if not key.startswith("_")}
    model = build_model(FAMILIES[config["_class_name"]].config_class.model_validate(fields))
    state = {
        name: tensor if "wavelet" in name else torch.from_numpy(synthetic_tensor(name, tuple(tensor.shape)))
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)
