"""Named sets of options for `vaectl train`, shipped beside this file: what to train, and the published way to do it.

A recipe is a TOML file of option names. `model_config` names a config beside it, and `base` another recipe, whose
values hold where it says nothing. No torch is imported here; what the options mean is not known either.
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
    from vaectl.models.config import CausalVAEConfig, WFVAEConfig

FOLDER = Path(__file__).parent


def list_recipes() -> dict[str, str]:
    """The name of each recipe with what it is for: its first line, a comment."""
    return {
        file.stem: file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        for file in sorted(FOLDER.glob("*.toml"))
    }


def read_recipe(name: str) -> dict[str, Any]:
    """The options of a recipe by their names; a model config as its path. Raises UsageError for an unknown name."""
    file = FOLDER / f"{name}.toml"
    if name not in list_recipes():
        raise UsageError(f"no recipe is called {shown(repr(name))}", f"choose from {', '.join(list_recipes())}")
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    if "model_config" in values:
        values["model_config"] = str(FOLDER / values["model_config"])
    return {**read_recipe(values.pop("base")), **values} if "base" in values else values


def model_config(name: str) -> WFVAEConfig | CausalVAEConfig | None:
    """The model that a recipe trains from scratch; None for one that goes on with a trained model."""
    from vaectl.models.config import read_config

    path = read_recipe(name).get("model_config")
    return None if path is None else read_config(Path(path))
