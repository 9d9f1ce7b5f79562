"""Download the archive of a Python package with the user's own pip, which knows the user's index, proxy and login."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from vaectl.errors import shown
from vaectl.progress import Progress

QUIET = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off")
RETRIES = ("--retries", "1", "--timeout", "15")
"""Without network, pip would try for minutes."""
MOST_SECONDS = 1800.0
"""A slower download is given up."""
FULL = (errno.ENOSPC, errno.EDQUOT)
MIB = 2**20


def command(requirement: str) -> str:
    """Return the command that does the same by hand, into the current folder."""
    return f"python3 -m pip download --no-deps {requirement}"


def download(requirement: str, sha256: str, size: int, folder: Path, progress: Progress) -> None:
    """Download the archive of `requirement` (name==version), of `size` bytes, into the existing `folder`.

    pip checks its SHA-256 before it runs anything in it. Raises OSError if that fails, with pip's reason in one line;
    only if `folder` is full, or cannot be written, it has an `errno`.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    arguments = ["download", "--no-deps", *QUIET, *RETRIES, "--dest", str(folder), "--requirement", str(requirements)]
    progress.start(requirement, round(size / MIB), "MiB")
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "pip", *arguments],
            cwd=folder,  # Python would import modules from the current one
            env=os.environ | {"TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # with the processes that it starts
        ) as process:
            try:
                output = _wait(process, folder, round(size / MIB), progress)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
    finally:
        progress.finish()
    if process.returncode:
        number = next((each for each in FULL if f"[Errno {each}]" in output), None)
        raise OSError(_reason(output)) if number is None else OSError(number, os.strerror(number))


def _wait(process: subprocess.Popen[str], folder: Path, most: int, progress: Progress) -> str:
    """Return the output of pip. Reports how much it has downloaded, up to `most` MiB: it may get other packages too.

    Raises TimeoutError if it takes too long.
    """
    begun, done = time.monotonic(), 0
    while True:
        try:
            return process.communicate(timeout=0.5)[0]
        except subprocess.TimeoutExpired:
            with suppress(OSError):  # pip moves the file
                received = sum(file.stat().st_size for file in folder.glob("pip-unpack-*/*") if file.is_file())
                received = min(most, round(received / MIB))
                progress.advance(max(0, received - done))
                done = max(done, received)
            if time.monotonic() - begun > MOST_SECONDS:
                raise TimeoutError(f"pip did not finish in {MOST_SECONDS / 60:.0f} minutes") from None


def _reason(output: str) -> str:
    """Return why pip failed, in one line."""
    if "connection broken by" in output:
        return "pip cannot reach its package index"
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["pip says nothing"]
    # A traceback follows "ERROR: Exception:", and its last line has the reason.
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ") and line[-1] != ":"]
    return shown((errors or lines)[-1], 200)
