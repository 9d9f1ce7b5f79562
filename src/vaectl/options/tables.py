"""The options of `eval` and `compare` about tables of several candidates. Each is declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vaectl.options.common import OUTPUT, read_output_path
from vaectl.options.option import Option


def _file(help: str) -> Option:
    return Option(panel=OUTPUT, metavar="FILE", read=read_output_path, help=help)


Csv = Annotated[Path | None, _file("Write every number, one row for each clip and frame.")]
Markdown = Annotated[Path | None, _file("Write the table of candidates in Markdown.")]
Latex = Annotated[Path | None, _file("Write the table of candidates in LaTeX, for booktabs.")]
AllPairs = Annotated[
    bool, Option(panel=OUTPUT, help="Compare every two candidates. (default: each one with the first)")
]
