"""What the tests of the command line share: the installed program, and a job that stands in for the real one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from vaectl.cli.app import main
from vaectl.errors import VaectlError
from vaectl.options import ReconstructOptions
from vaectl.progress import Progress

BIN = Path(sys.executable).parent
VAECTL = str(BIN / "vaectl")
"""The console script beside the interpreter that runs the tests."""


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment with `vaectl` on the path and 80 columns, without what colours or completes."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80"} | extra


@pytest.fixture
def vaectl() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the installed program with the given arguments."""

    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [VAECTL, *arguments], capture_output=True, text=True, env=environment(**extra), timeout=60, check=False
        )

    return run


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable], None]:
    """Let a function stand in for the job behind `vaectl reconstruct`, for what the command makes of its outcome."""

    def stand_in(function: Callable) -> None:
        monkeypatch.setitem(sys.modules, "vaectl.reconstruction", SimpleNamespace(reconstruct=function))

    return stand_in


@pytest.fixture
def run_options(job: Callable[[Callable], None]) -> Callable[..., ReconstructOptions]:
    """The options that a command line hands to the job."""

    def options_of(*arguments: str) -> ReconstructOptions:
        handed = []

        def keep(options: ReconstructOptions, _progress: Progress) -> None:
            handed.append(options)
            raise VaectlError("that is all")

        job(keep)
        assert main(arguments) == 1
        return handed[0]

    return options_of
