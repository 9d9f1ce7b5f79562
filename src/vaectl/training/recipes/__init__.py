"""Presets of options for `vaectl train`: small and published models, and the published stages of training.

A recipe is a TOML file of options. `model_config` names a config file in this folder, and `base` names another recipe
for the options that are not given. Imports no torch, and does not know the options.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaectl.errors import UsageError, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from vaectl.models.config import FamilyConfig

FOLDER = Path(__file__).parent


def list_recipes() -> dict[str, str]:
    """Return the name of each recipe with its description, the comment in its first line."""
    return {
        file.stem: file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        for file in sorted(FOLDER.glob("*.toml"))
    }


def read_recipe(name: str) -> dict[str, Any]:
    """Return the options of a recipe; `model_config` is a path. Raises UsageError for an unknown name."""
    file = FOLDER / f"{name}.toml"
    if name not in list_recipes():
        raise UsageError(f"no recipe is called {shown(repr(name))}", f"choose from {', '.join(list_recipes())}")
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    if "model_config" in values:
        values["model_config"] = str(FOLDER / values["model_config"])
    return {**read_recipe(values.pop("base")), **values} if "base" in values else values


def model_config(name: str) -> FamilyConfig | None:
    """Return the config of the new model that a recipe trains; None for a recipe that starts from a trained model."""
    from vaectl.models.build import read_config

    path = read_recipe(name).get("model_config")
    return None if path is None else read_config(Path(path))
