"""What the tests of `vaectl train` share: a very small model, the job with a listener, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import load_file

from tests.jobs import Listener
from vaectl.model_names import WEIGHTS
from vaectl.options import parse
from vaectl.options.train import TrainOptions
from vaectl.training.job import TrainResult, train
from vaectl.training.resume import underlying

NANO = {
    "_class_name": "WFVAEModel",
    "latent_dim": 4,
    "base_channels": 4,
    "encoder_num_resblocks": 1,
    "decoder_num_resblocks": 1,
    "encoder_energy_flow_hidden_size": 4,
    "decoder_energy_flow_hidden_size": 4,
    "norm_type": "layernorm",
    "t_interpolation": "trilinear",
}
"""The config of the smallest WF-VAE that has everything."""

WAN = {
    "_class_name": "AutoencoderKLWan",
    "base_dim": 8,
    "z_dim": 16,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True],
}
"""The config of a very small Wan 2.1, 2x4x4."""

WAN_2_2 = {**WAN, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}
"""The same as Wan 2.2, 2x8x8."""

QWEN = {**WAN, "_class_name": "AutoencoderKLQwenImage"}

PLAIN = {
    "num_frames": 5,
    "resolution": 16,
    "sample_rate": 1,
    "batch_size": 2,
    "num_workers": 0,
    "lr": 1e-3,
    "wavelet_loss": True,
    "perceptual_weight": 0,
    "disc_weight": 0,
    "device": "cpu",
    "eval_num_frames": 5,
    "eval_resolution": 16,
    "eval_lpips": False,
}
"""Options of a step that takes milliseconds."""


def options(videos: Path, here: Path, **given: Any) -> TrainOptions:
    """As the command line would resolve them: a new model in the folder `here`, unless `given` says otherwise."""
    values: dict[str, Any] = {"video_path": str(videos), "ckpt_dir": str(here / "results"), **given}
    if not {"model", "resume_from_checkpoint", "model_config"} & set(values):
        values["model_config"] = str(nano(here))
    values = {name: value for name, value in values.items() if value is not None}
    return parse(TrainOptions, {**PLAIN, **underlying(values), **values})


def run(videos: Path, here: Path, listener: Listener | None = None, **given: Any) -> TrainResult:
    return train(options(videos, here, **given), listener or Listener())


def nano(here: Path, config: Mapping[str, Any] = MappingProxyType(NANO)) -> Path:
    path = here / "nano.json"
    path.write_text(json.dumps(dict(config)))
    return path


def lines(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def weights(directory: Path) -> dict[str, Any]:
    return load_file(directory / f"{WEIGHTS}.safetensors")


def names(run: Path) -> set[str]:
    return {path.name for path in run.iterdir() if not path.name.startswith(".")}
