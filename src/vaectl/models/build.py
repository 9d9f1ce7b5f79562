"""From a `config.json` to a network: the table of the families."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vaectl.errors import UsageError, shown
from vaectl.io.parsing import exists, read_json
from vaectl.models.config import FamilyConfig
from vaectl.models.families.causalvae import CausalVAE
from vaectl.models.families.wan import AutoencoderKLQwenImage, AutoencoderKLWan
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.other_models import refuse_config
from vaectl.models.vae import AnyVAE

CONFIG_BYTES = 2**20
"""Largest file that is read; published configs have 2 KiB."""
TRAINING_KEYS = frozenset({"lr", "loss_type", "loss_params"})
"""Keys of published config files that steer training only."""

FAMILIES: dict[str, type[AnyVAE]] = {
    family.config_class.class_name: family for family in (WFVAE, CausalVAE, AutoencoderKLWan, AutoencoderKLQwenImage)
}
"""The network of each `_class_name`."""


Note = Callable[[str], None]


def silent(_note: str) -> None:
    """Ignore a note."""


def build_model(config: FamilyConfig) -> AnyVAE:
    """Build the network of a config with random weights."""
    return FAMILIES[config.class_name](config)


def read_config(path: Path, note: Note = silent) -> FamilyConfig:
    """Read a `config.json`. Keys that start with `_` are metadata. Missing keys get their default.

    `note` is called with one line if the config has unknown keys and its family allows them. Raises UsageError that
    names the file and the key.
    """
    values = read_config_values(path)
    if not is_ours(values):
        raise refuse_config(path, values, FAMILIES)
    config_class = FAMILIES[values["_class_name"]].config_class
    fields = {key: value for key, value in values.items() if not key.startswith("_") and key not in TRAINING_KEYS}
    config = validated(fields, config_class, path)
    if unknown := {key: near_miss(key, config_class, 0.8) for key in config.model_extra or {}}:
        first = sorted(unknown, key=lambda key: (not unknown[key], key))[:5]
        named = ", ".join(shown(repr(key)) + f" ({unknown[key]})" * bool(unknown[key]) for key in first)
        note(f"{path}: unknown keys have no effect: {named}" + ", …" * (len(unknown) > 5))
    return config


def has_config(directory: Path) -> bool:
    """Return whether a directory has a `config.json` of a known class. Raises UsageError if it cannot be read."""
    path = directory / "config.json"
    return exists(path) and is_ours(read_config_values(path))


def read_config_values(path: Path) -> dict[str, Any]:
    """Return the content of a `config.json`. Raises UsageError if it is not a JSON object."""
    values = read_json(path, CONFIG_BYTES, "a model directory contains config.json and weights")
    if not isinstance(values, dict):
        raise UsageError(f"{path}: is no model config: a JSON object was expected")
    return values


def is_ours(values: Mapping[str, Any]) -> bool:
    """Return whether a config names a class that vaectl has."""
    return isinstance(values.get("_class_name"), str) and values["_class_name"] in FAMILIES


def validated(fields: Mapping[str, Any], config_class: type[FamilyConfig], file: Path) -> FamilyConfig:
    """Return the config with these fields. Raises UsageError that names `file` and the key."""
    try:
        return config_class.model_validate(fields)
    except ValidationError as error:
        problem, remedy = explain(error, config_class)
        raise UsageError(f"{file}: {problem}", remedy) from None


def explain(error: ValidationError, family: type[BaseModel]) -> tuple[str, str]:
    """Return the first problem of a validation in one line, and its remedy or an empty string."""
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {shown(repr(key))}", near_miss(key, family)
    message = first["msg"].removeprefix("Value error, ")
    return f"{shown(key)}: {message}, not {shown(repr(first['input']))}" if key else message, ""


def near_miss(key: str, family: type[BaseModel], similarity: float = 0.6) -> str:
    """Return the question whether a key is a misspelt field, or an empty string. `similarity` is between 0 and 1."""
    near = difflib.get_close_matches(key[:100], family.model_fields, n=1, cutoff=similarity)
    return f"did you mean {near[0]!r}?" if near else ""
