"""From a `config.json` to a network: the table of the families."""

from __future__ import annotations

import difflib
from pathlib import Path

from pydantic import BaseModel, ValidationError

from vaectl.errors import UsageError, shown
from vaectl.io.parsing import read_json
from vaectl.models.config import FamilyConfig
from vaectl.models.families.causalvae import CausalVAE
from vaectl.models.families.wan import AutoencoderKLQwenImage, AutoencoderKLWan
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.vae import AnyVAE

CONFIG_BYTES = 2**20
"""Largest file that is read; published configs have 2 KiB."""
TRAINING_KEYS = frozenset({"lr", "loss_type", "loss_params"})
"""Keys of published config files that steer training only."""

FAMILIES: dict[str, type[AnyVAE]] = {
    family.config_class.class_name: family for family in (WFVAE, CausalVAE, AutoencoderKLWan, AutoencoderKLQwenImage)
}
"""The network of each `_class_name`."""


def build_model(config: FamilyConfig) -> AnyVAE:
    """Build the network of a config with random weights."""
    return FAMILIES[config.class_name](config)


def read_config(path: Path) -> FamilyConfig:
    """Read a `config.json`. Keys that start with `_` are metadata. Missing keys get their default.

    Raises UsageError that names the file and the key.
    """
    values = read_json(path, CONFIG_BYTES, "a model directory contains config.json and weights")
    if not isinstance(values, dict):
        raise UsageError(f"{path}: is no model config: a JSON object was expected")
    name = values.get("_class_name")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UsageError(f"{path}: unknown _class_name {shown(repr(name))}", f"vaectl reads {' and '.join(FAMILIES)}")
    fields = {key: value for key, value in values.items() if not key.startswith("_") and key not in TRAINING_KEYS}
    config_class: type[FamilyConfig] = FAMILIES[name].config_class
    try:
        return config_class.model_validate(fields)
    except ValidationError as error:
        problem, remedy = explain(error, config_class)
        raise UsageError(f"{path}: {problem}", remedy) from None


def explain(error: ValidationError, family: type[BaseModel]) -> tuple[str, str]:
    """Return the first problem of a validation in one line, and its remedy or an empty string."""
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key[:100], family.model_fields, n=1)
        return f"unknown key {shown(repr(key))}", f"did you mean {near[0]!r}?" if near else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{shown(key)}: {message}, not {shown(repr(first['input']))}" if key else message, ""
