"""Paths of output files: no two results get the same path, and none replaces a file that is read.

Knows names and paths; which files are sources, and what is written, is the job's business.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from vaectl.errors import UsageError

MAX_NAME_BYTES = 255
"""Bytes of a name on all common file systems."""


def keep_outside(sources: Sequence[Path], source: Path, results: Path) -> list[Path]:
    """Those files of the folder `source` that are not in the folder `results`. Raises UsageError for none."""
    if results.exists() and not results.is_dir():
        raise UsageError(f"{results}: is a file, but {source} is a folder", "name a folder for the results")
    inside = results.resolve()
    if not inside.is_relative_to(source.resolve()):
        return list(sources)
    kept = [file for file in sources if not file.resolve().is_relative_to(inside)]
    if not kept:
        raise UsageError(f"{results}: holds all the videos of {source}", "name another folder for the results")
    return kept


def identity(file: Path) -> tuple[int, int]:
    """Equal for two names of one file: links, or another case where that does not matter."""
    status = file.stat()
    return status.st_dev, status.st_ino


def mirror(sources: Sequence[Path], endings: Sequence[str]) -> list[Path]:
    """A name for the result of each source, with the ending that it is given.

    `a.mov` gives `a.mp4`; where two sources would meet in one name, they keep their own extension: `a.mov.mp4`. A name
    that becomes too long by that is shortened.
    """
    names = [source.with_suffix(ending) for source, ending in zip(sources, endings, strict=True)]
    while clashes := {name for name, count in Counter(names).items() if count > 1}:
        names = [
            source.with_name(source.name + ending) if name in clashes else name
            for source, ending, name in zip(sources, endings, names, strict=True)
        ]
    return [
        name.with_name(fitting_name(name.name.removesuffix(ending), ending))
        for name, ending in zip(names, endings, strict=True)
    ]


def fitting_name(stem: str, ending: str) -> str:
    """`stem` + `ending`, or, where that is too long, a shorter stem with a hash of the whole one at its end."""
    name = stem + ending
    if len(os.fsencode(name)) <= MAX_NAME_BYTES:
        return name
    mark = "~" + blake2b(os.fsencode(name), digest_size=4).hexdigest()
    room = MAX_NAME_BYTES - len(os.fsencode(mark + ending))
    return os.fsencode(stem)[:room].decode("utf-8", "ignore") + mark + ending
