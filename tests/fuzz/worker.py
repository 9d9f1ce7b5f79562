"""Tries inputs one after the other, and says what came of each: a program of its own, because it may crash or hang.

Usage: python -m tests.fuzz.worker KIND SEED WHOLE, then a number on each line of standard input; for each it answers
with a line of JSON on standard output: the outcome, seconds, bytes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random

import torch

from tests.fuzz.kinds import KINDS, SilentLossError
from vaectl.errors import VaectlError

LONGEST_MESSAGE = 2000


def most_memory() -> int:
    """Bytes that this process has held at most since `clear_refs` was written."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def outcome_of(kind: str, whole: Path, here: Path, rng: Random) -> str:
    try:
        KINDS[kind].attempt(whole, here, rng)
    except VaectlError as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST_MESSAGE:
            return f"message of {len(text)} characters: {text[:200]!r}"
        return "refused"
    except SilentLossError as error:
        return f"silent loss: {error}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"[:500]
    return "read"


def main() -> None:
    kind, seed, whole = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        here = Path(tempfile.mkdtemp(prefix=f"fuzz-{kind}-"))
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        before, begun = most_memory(), time.monotonic()
        outcome = outcome_of(kind, whole, here, Random(f"{kind}/{seed}/{line.strip()}"))
        facts = {"outcome": outcome, "seconds": time.monotonic() - begun, "bytes": most_memory() - before}
        shutil.rmtree(here, ignore_errors=True)
        print(json.dumps(facts), file=answers, flush=True)


if __name__ == "__main__":
    main()
