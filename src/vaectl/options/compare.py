"""The options of `vaectl compare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from vaectl.options.candidates import NamedPath, read_named_paths
from vaectl.options.common import INPUT, Config, Debug, Json, Overwrite, PrintConfig, read_path
from vaectl.options.option import Option
from vaectl.options.tables import AllPairs, Csv, Latex, Markdown


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """The options of `vaectl compare`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    results: Annotated[
        tuple[NamedPath, ...],
        Option(
            panel=INPUT,
            metavar="RESULT...",
            positional=True,
            many=True,
            read=read_named_paths(read_path),
            help="Files that vaectl eval --json wrote, with one candidate or several; NAME=RESULT names it.",
        ),
    ]
    allow_missing: Annotated[
        bool, Option(panel=INPUT, help="Leave out clips that not all candidates have, and report how many.")
    ] = False

    json: Json = False
    csv: Csv = None
    markdown: Markdown = None
    latex: Latex = None
    all_pairs: AllPairs = False
    overwrite: Overwrite = False

    config: Config = None
    print_config: PrintConfig = False
    debug: Debug = False
