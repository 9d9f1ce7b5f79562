"""The files that `eval` and `compare` write: checks before the work, and writing after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaectl.errors import BUG, UsageError, VaectlError, unforeseen
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.paper_files import write_latex, write_markdown
from vaectl.evaluation.tables import write_csv
from vaectl.io.atomic_write import atomic_write
from vaectl.io.output_paths import identity

KINDS = {
    "csv": ("a CSV file", (".csv", ".txt")),
    "markdown": ("a table in Markdown", (".md", ".markdown", ".txt")),
    "latex": ("a table in LaTeX", (".tex", ".txt")),
    "report": ("a web page", (".html", ".htm")),
}
"""Option -> what it writes, and the extensions of its file."""
WRITE: dict[str, Callable[[Path, Comparison], None]] = {
    "csv": write_csv,
    "markdown": write_markdown,
    "latex": write_latex,
}


def outputs_of(options: Any) -> dict[str, Path]:
    """Return the files that `options` ask for, by option."""
    files = {name: getattr(options, name, None) for name in KINDS}
    return {name: file for name, file in files.items() if file is not None}


def check_outputs(files: Mapping[str, Path], inputs: set[tuple[int, int]], overwrite: bool) -> None:
    """Raise UsageError if a file is an input, exists without `overwrite`, or cannot be written.

    `inputs`: the `identity` of each file that is read.
    """
    taken: dict[Path, str] = {}
    for name, file in files.items():
        what, suffixes = KINDS[name]
        if file.exists() and identity(file) in inputs:
            raise UsageError(f"{file}: is an input of this run", "name another file")
        if file.suffix and file.suffix.lower() not in suffixes and not file.is_dir():
            raise UsageError(f"{file}: `{name}` writes {what}, not {file.suffix}", f"name it {file.stem}{suffixes[0]}")
        with suppress(_Leave), atomic_write(file, overwrite=overwrite):
            raise _Leave
        if (other := taken.setdefault(file.resolve(), name)) != name:
            raise UsageError(f"{file}: `{other}` and `{name}` name the same file", "give each its own")


class _Leave(Exception):  # noqa: N818  # not an error
    """Leaves a block early."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with the results so far."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self.comparison = comparison


def write_outputs(
    files: Mapping[str, Path], comparison: Comparison, report: Callable[[Path, Comparison], None] | None = None
) -> tuple[Comparison, list[str]]:
    """Write the files; return the results with the paths, and why files are missing, which also is in the results.

    Raises `Interrupted`, with the same results, on Ctrl-C.
    """
    written: dict[str, Any] = {}
    failures: list[str] = []
    stopped = False
    for name, file in files.items():
        if stopped:
            failures.append(f"{file}: not written, because the run was stopped")
            continue
        try:
            fill = report if name == "report" else WRITE[name]
            if fill:
                fill(file, comparison)
                written[name] = file
        except VaectlError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{file}: writing failed ({error.strerror}); free space or choose another place")
        except Exception as error:  # must not lose the numbers
            failures.append(str(unforeseen(file, error, BUG)))
        except KeyboardInterrupt:
            stopped = True
            failures.append(f"{file}: not written, because the run was stopped")
    evaluations = (replace(each, failures=(*each.failures, *failures), **written) for each in comparison.evaluations)
    comparison = replace(comparison, evaluations=tuple(evaluations))
    if stopped:
        raise Interrupted(comparison)
    return comparison, failures
