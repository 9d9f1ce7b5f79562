"""Which weights a checkpoint has: their moving average over the training (EMA), the raw ones, or both.

    *.ckpt of the original code         ema_state_dict, and state_dict.gen_model
    a training checkpoint of vaectl     the model file, which `_weights` in config.json describes, and training_state.pt

Nothing else says which weights it has. Knows no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from vaectl.errors import UsageError, shown
from vaectl.io.parsing import exists
from vaectl.model_names import WEIGHTS
from vaectl.model_names import Weights as Weights
from vaectl.models.build import read_config_values
from vaectl.models.containers import Stored, read_outline

STATE = "training_state.pt"
"""The state of a training run of vaectl; with an EMA, it has the raw weights under `model`."""
RECORDED: Mapping[str, Weights] = {"ema": "ema", "raw": "raw", "as trained": "raw"}
"""Values of `_weights`. Earlier versions wrote "as trained"."""


def available(directory: Path, file: Path, stored: Stored) -> tuple[Weights, ...]:
    """Return which weights a checkpoint has, the default first; empty if it does not say.

    `directory` contains config.json, `file` is the weights file, and `stored` is its content or outline.
    """
    wrapped = stored.get("state_dict")
    raw = isinstance(wrapped, Mapping) and "gen_model" in wrapped
    if stored.get("ema_state_dict"):
        return ("ema", "raw") if raw else ("ema",)
    if raw or file.name == STATE:
        return ("raw",)
    recorded = RECORDED.get(str(metadata(directory, file).get("_weights")))
    if recorded == "ema" and (directory / STATE).is_file():
        return "ema", "raw"
    return (recorded,) if recorded else ()


def metadata(directory: Path, file: Path) -> Mapping[str, Any]:
    """Return the config.json that describes a file of weights; empty if none does."""
    config = directory / "config.json"
    return read_config_values(config) if file.name.startswith((WEIGHTS, STATE)) and exists(config) else {}


def file_with(weights: Weights | None, directory: Path, file: Path) -> Path:
    """Return the file to read for these weights: `file`, or the state of the training run next to it.

    None: the default. Raises UsageError if the checkpoint does not have them, or does not say so.
    """
    if weights is None:
        return file
    if weights not in get_args(Weights):
        raise UsageError(f"`weights` must be ema or raw, not {shown(repr(weights))}")
    stored = read_outline(file)
    found = available(directory, file, stored)
    if not found:
        raise UsageError(f"{file}: does not say whether its weights are EMA or raw", "leave out `weights`")
    if weights not in found:
        raise UsageError(f"{file}: has no {weights} weights, only {found[0]}", f"leave out `weights={weights}`")
    return directory / STATE if weights == "raw" and found[0] == "ema" and "ema_state_dict" not in stored else file
