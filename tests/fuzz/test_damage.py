"""Damaged inputs by the dozen, and by the thousand with `make fuzz`: refused in one line, or read.

Failures are: an exception that is not ours, a crash, more than ten seconds, more than 2 GiB, a message that is not one
line, and fewer frames than FFmpeg decodes without a word. VAECTL_FUZZ_SEED draws other inputs.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fuzz.kinds import KINDS

SEED = os.environ.get("VAECTL_FUZZ_SEED", "1")
SECONDS = 10.0
BYTES = 2**31
FEW = {"clips": 30, "checkpoints": 80, "configs": 100, "manifests": 80, "runs": 6}
MANY = {"clips": 800, "checkpoints": 3000, "configs": 5000, "manifests": 5000, "runs": 1000}


class Worker:
    """A process that tries inputs; another takes its place where it crashes or hangs."""

    def __init__(self, kind: str, whole: Path) -> None:
        self._command = [sys.executable, "-m", "tests.fuzz.worker", kind, SEED, str(whole)]
        self._process: subprocess.Popen[str] | None = None

    def attempt(self, number: int) -> dict[str, object]:
        """What came of the input of that number."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            heard = ready.select(SECONDS * 3)  # the machine may be busy with other things
        line = process.stdout.readline() if heard else ""
        if line:
            answer: dict[str, object] = json.loads(line)
            return answer
        self.close()
        crashed = "" if not heard else f" with {process.returncode}"
        return {"outcome": f"crash{crashed}" if heard else "hang", "seconds": 3 * SECONDS, "bytes": 0}

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.attempt(-1)  # imports, and what else happens once, are not to be counted
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module", params=KINDS)
def worker(request, tmp_path_factory) -> Iterator[tuple[str, Worker]]:
    kind = request.param
    whole = tmp_path_factory.mktemp(kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(whole / "cache"))
        KINDS[kind].make(whole)
        worker = Worker(kind, whole)
        yield kind, worker
        worker.close()


def failures(kind: str, worker: Worker, count: int) -> tuple[list[str], Counter[str]]:
    """The failures among the first `count` inputs of a kind, and how many there were of each outcome."""
    found, outcomes = [], Counter[str]()
    for number in range(count):
        answer = worker.attempt(number)
        outcome, seconds, size = str(answer["outcome"]), float(str(answer["seconds"])), int(str(answer["bytes"]))
        outcomes[outcome.partition(":")[0]] += 1
        if outcome not in ("read", "refused"):
            found.append(f"{kind} {number}: {outcome}")
        elif seconds > SECONDS or size > BYTES:
            found.append(f"{kind} {number}: {outcome} after {seconds:.1f} s with {size / 2**20:.0f} MiB")
    return found, outcomes


def test_damaged_input_is_read_or_refused(worker):
    kind, process = worker
    found, outcomes = failures(kind, process, FEW[kind])
    assert not found, "\n".join(found)
    assert outcomes["refused"] >= FEW[kind] // 10, "what is not damaged shows nothing"


@pytest.mark.fuzz
def test_thousands_of_damaged_inputs_are_read_or_refused(worker, capsys):
    kind, process = worker
    found, outcomes = failures(kind, process, MANY[kind])
    with capsys.disabled():
        print(f"\n{kind}, seed {SEED}: {sum(outcomes.values())} inputs, {dict(outcomes)}, {len(found)} failures")
    assert not found, "\n".join(found)
