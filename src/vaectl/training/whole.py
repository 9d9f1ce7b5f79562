"""Which checkpoints of a run are complete: all files exist and have the recorded length and CRC-32.

A power cut can leave files empty or full of zeros, and a disk can lose a block. The command line uses this before the
job starts, so nothing here imports torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vaectl.errors import UsageError, VaectlError, shown
from vaectl.io.parsing import parsing, read_json, size_of
from vaectl.options.option import dump, names_of, options_of, parse
from vaectl.options.train import TrainOptions
from vaectl.training.run_dir import checkpoints

FACTS = "training.json"
FACTS_BYTES = 2**24
CHUNK = 2**22


class Facts(BaseModel):
    """The content of training.json: about the checkpoint and the run that wrote it."""

    model_config = ConfigDict(extra="ignore")

    step: int = Field(ge=0)
    weights: str
    best: dict[str, int | float] | None
    """The best validation, with its step."""
    validation: str | None = None
    """The fingerprint of the validation clips; None without validation and in checkpoints of earlier versions."""
    validation_due: bool = False
    """Whether the step is not validated yet: the run saves first. It then replaces this and `best`."""
    data: str
    """The fingerprint of the videos."""
    ranks: int = Field(ge=1)
    threads: int = Field(ge=1)
    vaectl: str
    torch: str
    commit: str | None = None
    """Of the model of the hub that the run started from."""
    options: dict[str, Any]
    files: dict[str, tuple[int, int]] = {}
    """Bytes and CRC-32 of each other file; empty in checkpoints of earlier versions."""


def read_facts(checkpoint: Path) -> Facts:
    """Read the training.json of a checkpoint. Raises UsageError if it is missing or damaged."""
    file = checkpoint / FACTS
    try:
        facts = Facts.model_validate(read_json(file, FACTS_BYTES))
        if facts.best is not None and "step" not in facts.best:
            raise UsageError(f"{file}: cannot be read (best: no step)")
        known = names_of(options_of(TrainOptions))  # earlier versions used other names, and bf16 for bfloat16
        given = {known[name]: value for name, value in facts.options.items() if name in known and value is not None}
        recorded = parse(TrainOptions, given, lambda name: f"{file}: cannot be read (options: {name}")
        facts = facts.model_copy(update={"options": dump(recorded)})
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"])) or "its content"
        raise UsageError(
            f"{file}: cannot be read ({shown(what)}: {first['msg'].lower()})", "take another checkpoint"
        ) from None
    except UsageError as error:
        if not file.exists():
            raise UsageError(
                f"{checkpoint}: is no training checkpoint of vaectl ({FACTS}: no such file)",
                "to start a new run with its weights, pass it as `model`",
            ) from None
        raise UsageError(error.problem, error.remedy or "take another checkpoint") from None
    return facts


def damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, in one line that names the file; None for a complete one."""
    try:
        facts = read_facts(checkpoint)
        names = facts.files or dict.fromkeys(("training_state.pt", "config.json"), (-1, 0))
        for name, (size, crc) in names.items():
            file = checkpoint / Path(name).name
            found = size_of(file, "take another checkpoint")
            if found == 0 or (found != size and size >= 0):
                wanted = "" if size < 0 else f", not {size}"
                return f"{file}: cannot be read (it has {found} bytes{wanted})"
            if size >= 0 and crc32(file, file.stat().st_mtime_ns, size) != crc:
                return f"{file}: cannot be read (its content has changed since)"
    except VaectlError as error:
        return error.problem
    return None


@lru_cache(maxsize=64)
def crc32(file: Path, _modified: int, _size: int) -> int:
    """Return the CRC-32 of a file. Cached until size or modification time change."""
    value = 0
    with parsing(file, "cannot be read"), file.open("rb") as opened:
        while part := opened.read(CHUNK):
            value = zlib.crc32(part, value)
    return value


def sums_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Return bytes and CRC-32 of each file in a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: (size := path.stat().st_size, crc32(path, path.stat().st_mtime_ns, size)) for path in files}


def damaged_after(run: Path, checkpoint: Path) -> list[Path]:
    """Return the later checkpoints of the run if all of them are damaged, else an empty list."""
    found = checkpoints(run)
    step = next((step for step, path in found.items() if path.resolve() == checkpoint.resolve()), None)
    later = [path for number, path in found.items() if step is not None and number > step]
    return later if all(damage(path) is not None for path in later) else []


def last_whole(run: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the last complete checkpoint of a run, None if the run has none. `warn` gets a line per damaged one.

    Raises UsageError if all are damaged.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints(run).values()):
        reason = damage(path)
        if reason is None:
            for each in damaged:
                warn(f"{each}; continuing from {path.name}, the one before")
            return path
        damaged.append(reason)
    if damaged:
        raise UsageError(
            f"{damaged[0]}, and {run} has no complete checkpoint",
            "take another checkpoint, or start a new run with `model`",
        )
    return None
