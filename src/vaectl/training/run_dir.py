"""The directory of a run: the names of its checkpoints, journals and pictures, and a lock on it.

    RUN/options.json              the resolved options
    RUN/checkpoint-00001000/      a model directory with the state of the run (see checkpoint.py)
    RUN/latest, RUN/best          links to checkpoints
    RUN/metrics.jsonl             one line per step
    RUN/validation.jsonl          one line per validation
    RUN/tensorboard/              the same values for TensorBoard
    RUN/samples/                  a picture per validation

Does not know the content of the files.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vaectl.io.leftovers import sweep
from vaectl.io.lock import locked

CHECKPOINT = re.compile(r"checkpoint-(\d{8,})")
UNFINISHED = ".unfinished-"
LATEST, BEST = "latest", "best"
DAMAGED = "damaged-"
METRICS, VALIDATIONS, TENSORBOARD = "metrics.jsonl", "validation.jsonl", "tensorboard"


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint of a step."""
    return f"checkpoint-{step:08d}"


def checkpoints(run: Path) -> dict[int, Path]:
    """Return the checkpoints of a run by step, in order; none if the directory does not exist."""
    if not run.is_dir():
        return {}
    found = {int(match[1]): path for path in run.iterdir() if (match := CHECKPOINT.fullmatch(path.name))}
    return dict(sorted(found.items()))


def point(link: Path, target: Path) -> None:
    """Point the symbolic link at `target`, in the same directory. Atomic: the link exists at all times."""
    temporary = link.with_name(f".{link.name}-{os.getpid()}")
    with suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target.name)
    temporary.replace(link)


def link(run: Path, best: int | None) -> None:
    """Point `latest` at the last checkpoint, and `best` at that of step `best`; without it, remove that link."""
    there = checkpoints(run)
    if there:
        point(run / LATEST, there[max(there)])
    if best in there:
        point(run / BEST, there[best])
    elif (run / BEST).is_symlink():
        (run / BEST).unlink()


def prune(run: Path, keep: int, best: int | None) -> None:
    """Remove all checkpoints except the last `keep` and the best. Each is renamed before it is removed."""
    for step, path in list(checkpoints(run).items())[:-keep]:
        if step != best:
            doomed = run / f"{UNFINISHED}{path.name}-{os.getpid()}"
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def set_aside(run: Path, damaged: Iterable[Path], last: Path) -> None:
    """Rename damaged checkpoints to damaged-…, and point `latest` at `last`."""
    for path in damaged:
        place = run / f"{DAMAGED}{path.name}"
        while place.exists():
            place = place.with_name(f"{place.name}~")
        path.rename(place)
        point(run / LATEST, last)
    if (run / BEST).is_symlink() and not (run / BEST).exists():
        (run / BEST).unlink()


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Lock the directory for this process and remove unfinished files of killed runs. Raises as `locked` does.

    A new directory is removed at the end, with its new parents, if the run has ended before its first step.
    """
    new = [folder for folder in (run, *run.parents) if not folder.exists()]
    with locked(run, "give another `ckpt_dir` or `exp_name`"):
        for path in run.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)
        for name in (LATEST, BEST):
            for path in run.glob(f".{name}-*"):
                path.unlink(missing_ok=True)
        for place in (run, run / "samples", *checkpoints(run).values()):
            sweep(place, again=True)
        try:
            yield
        finally:
            if new and not has_begun(run):
                shutil.rmtree(run, ignore_errors=True)
                with suppress(OSError):  # not empty
                    for folder in new[1:]:
                        folder.rmdir()


def has_begun(run: Path) -> bool:
    """Return whether the run has finished a step."""
    journal = run / METRICS
    return bool(checkpoints(run)) or (journal.is_file() and journal.stat().st_size > 0)
