"""What `vaectl models` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from vaectl.options.common import MODEL, Debug, Json, read_path
from vaectl.options.option import Option


@dataclass(frozen=True, kw_only=True)
class ModelsOptions:
    """What `vaectl models` takes."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    path: Annotated[
        Path | None,
        Option(
            panel=MODEL,
            metavar="PATH",
            positional=True,
            read=read_path,
            help="A checkpoint, or its folder with config.json. (default: all that is known by name)",
        ),
    ] = None
    json: Json = False
    debug: Debug = False
