"""The tests run on any machine: skipped by name, but never in CI; also under nohup and next to other load."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.skips import in_ci

NO_BROWSER = "report in a browser: no Chromium; install one with: apt install chromium"
BODIES = {
    "browser": "def test_it(browser): assert browser",
    "test": "import pytest\n@pytest.mark.skip(reason='a test')\ndef test_it(): pass",
    "file": "import pytest\npytest.skip('a file', allow_module_level=True)",
}


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_skip_gives_its_reason_and_fails_in_ci(tmp_path: Path, ci: str) -> None:
    for name, body in BODIES.items():
        (tmp_path / f"test_{name}.py").write_text(body)
    plugins = ["-p", "tests.skips", "-p", "tests.evaluation.conftest", "-p", "no:cacheprovider"]
    options = ["-rsfE", "--continue-on-collection-errors", *plugins, "-c", os.devnull, "--rootdir", tmp_path]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path],
        cwd=ROOT,
        env=os.environ | {"CI": ci, "PATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    for reason in (NO_BROWSER, "a test", "a file"):
        assert f"{'nothing is skipped in CI, but here' if ci else ''}: {reason}\n" in done.stdout
    assert (done.returncode != 0, "3 skipped" in done.stdout) == (bool(ci), not ci)


@pytest.mark.parametrize(
    ("value", "expected"), [(None, False), ("", False), ("0", False), ("False", False), ("1", True), ("true", True)]
)
def test_what_counts_as_ci(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: bool) -> None:
    monkeypatch.delenv("CI", raising=False)
    if value is not None:
        monkeypatch.setenv("CI", value)
    assert in_ci() is expected


UNDER_NOHUP = """
import signal, subprocess, sys, hypothesis
def test_it():
    program = "import signal; print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP))"
    print(subprocess.check_output([sys.executable, "-c", program], text=True))
    print("deadline", hypothesis.settings.default.deadline)
"""


def test_programs_get_the_usual_signals_under_nohup_and_no_deadline(tmp_path: Path) -> None:
    def ignore() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    (tmp_path / "test_it.py").write_text(UNDER_NOHUP)
    options = ["-s", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path / "test_it.py"],
        cwd=ROOT,
        preexec_fn=ignore,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "<built-in function default_int_handler> 0\n" in done.stdout
    assert "deadline None" in done.stdout
