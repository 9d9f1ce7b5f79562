"""The published WF-VAE code, from a clone of PKU-YuanGroup/WF-VAE. It needs the packages diffusers and einops."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from tests.models.oracle import diffusers_class
from torch import Tensor

from vaectl.models.families.wfvae import WFVAE


def published_model(folder: Path, model: WFVAE) -> Any:
    """Return the published network with the config and the weights of `model`, which it copies."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    diffusers_class("ConfigMixin")  # imports diffusers without torchvision
    from causalvideovae.model.vae.modeling_wfvae import WFVAEModel

    made = WFVAEModel(**model.config.model_dump())
    made.load_state_dict(model.state_dict())
    return made.eval()


def published_run(model: Any, job: str, x: Tensor) -> Callable[[], Tensor]:
    """Encode video to moments, or decode a latent to video."""

    def run() -> Tensor:
        with redirect_stdout(StringIO()):  # it prints shapes
            result: Tensor = model.encode(x).latent_dist.parameters if job == "encode" else model.decode(x).sample
        return result

    return run
