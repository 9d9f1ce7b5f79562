"""`vaectl compare`: run the job of the same name and show its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from vaectl.options.compare import CompareOptions

EXAMPLES = """
Examples:
  vaectl compare wan.json wfvae.json
  vaectl compare before=a.json after=b.json --latex table.tex
  vaectl compare results/*.json --all-pairs --json
"""


def compare(options: CompareOptions) -> None:
    """Compare candidates that vaectl eval measured in different runs.

    Shows the tables of eval with a row for each candidate, and whether their differences are significant, paired by
    clip. It reads no videos, so it writes no report and measures no cost. The results must have the same protocol and
    the same clips; otherwise, compare says what differs and stops.
    """
    from vaectl.cli.comparison import show
    from vaectl.cli.console import reporter, say
    from vaectl.cli.spelling import as_json
    from vaectl.evaluation.compare import run

    with reporter() as progress:
        comparison, failures = run(options, progress)
    if options.json:
        print(as_json(comparison.as_json()))
    else:
        show(comparison)
    for failure in failures:
        say("error", failure)
    if failures:
        raise typer.Exit(1)
