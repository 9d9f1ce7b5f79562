"""Narrow checkpoints in the layout of diffusers, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.models.oracle import diffusers_class

WAN_2_2 = {
    **{"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12},
    **{"out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16},
    **{"latents_mean": [i / 10 for i in range(48)], "latents_std": [1 + i for i in range(48)]},  # not those of Wan
}
"""The config of Wan 2.2, except for the statistics. Wan 2.1 and Qwen-Image are the defaults of their classes."""
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Wan 2.1": ("AutoencoderKLWan", {}),
    "Wan 2.2": ("AutoencoderKLWan", WAN_2_2 | {"decoder_base_dim": 16}),
    "Qwen-Image": ("AutoencoderKLQwenImage", {}),
}


def save_narrow(name: str, directory: Path) -> Any:
    """Save a narrow model as diffusers does, and return it. `name`: one of CONFIGS."""
    class_name, config = CONFIGS[name]
    torch.manual_seed(0)
    model = diffusers_class(class_name)(**config | {"base_dim": 8, "num_res_blocks": 1}).eval()
    model.save_pretrained(directory)
    return model
