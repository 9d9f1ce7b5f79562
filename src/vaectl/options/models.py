"""The options of `vaectl models`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from vaectl.options.common import (
    MODEL,
    ON_HUB,
    Config,
    Debug,
    Json,
    PrintConfig,
    Weights,
    check_weights,
    model_path,
    read_model,
)
from vaectl.options.option import Option


@dataclass(frozen=True, kw_only=True)
class ModelsOptions:
    """The options of `vaectl models`. Raises `ValueError` for two models."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    path: Annotated[
        Path | None,
        Option(
            panel=MODEL,
            metavar="PATH",
            positional=True,
            read=read_model,
            help=f"A model directory, one weights file in it, {ON_HUB}, or builtin. (default: list the known models)",
        ),
    ] = None
    model: Annotated[Path | None, model_path("The same as PATH, under the name that other commands use.")] = None
    weights: Weights = None
    json: Json = False
    config: Config = None
    print_config: PrintConfig = False
    debug: Debug = False

    def __post_init__(self) -> None:
        if self.path is not None and self.model is not None:
            raise ValueError("`model` excludes PATH; give one or the other")
        check_weights(self.weights, (self.path or self.model) is not None)
