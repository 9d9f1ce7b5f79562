"""Paths of output files: no two results share a path, and no result replaces a source.

Knows only names and paths. The job knows which files are sources, and writes the results.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from vaectl.errors import UsageError

MAX_NAME_BYTES = 255
"""Limit of common file systems."""


def keep_outside(
    sources: Sequence[Path], source: Path, results: Path, recorded: Callable[[Path], Iterable[Path]]
) -> tuple[list[Path], list[Path]]:
    """Return the files of folder `source` that are not in folder `results`, and those that are, but are not results.

    `recorded` returns the paths of the results in a folder. Raises UsageError if there are no files outside `results`.
    """
    if results.exists() and not results.is_dir():
        raise UsageError(f"{results}: is a file, but {source} is a folder", "name a folder for the results")
    inside = results.resolve()
    if not inside.is_relative_to(source.resolve()):
        return list(sources), []
    real = {file: file.resolve() for file in sources}
    kept = [file for file in sources if not real[file].is_relative_to(inside)]
    if not kept:
        raise UsageError(f"{results}: holds all the videos of {source}", "name another folder for the results")
    ours = {file.resolve() for file in recorded(results)}
    return kept, [file for file in sources if real[file].is_relative_to(inside) and real[file] not in ours]


def left_out(others: Sequence[Path], results: Path) -> str:
    """Return the note on the second list of `keep_outside`."""
    reason = "because they are in the folder of results and are not results"
    return f"{results}: videos and images left out, {reason}: {len(others)}"


def identity(file: Path) -> tuple[int, int]:
    """Return a value that is equal for all names of one file: links, or names in another case."""
    status = file.stat()
    return status.st_dev, status.st_ino


def mirror(sources: Sequence[Path], endings: Sequence[str]) -> list[Path]:
    """Return a path for the result of each source, with the given endings.

    `a.mov` gives `a.mp4`. If two sources would give the same name, or one the name of a folder of sources, they keep
    their extension: `a.mov.mp4`. Names that are too long are shortened. Raises ValueError if two sources are equal, and
    UsageError if the longer name is that of a folder too.
    """
    if len(set(sources)) < len(sources):
        raise ValueError("two sources have the same name")
    names = [source.with_suffix(ending) for source, ending in zip(sources, endings, strict=True)]
    whole = [source.with_name(source.name + ending) for source, ending in zip(sources, endings, strict=True)]
    folders = {folder for source in sources for folder in source.parents}
    while clashes := {name for name, count in Counter(names).items() if count > 1 or name in folders}:
        for source, name, long in zip(sources, names, whole, strict=True):
            if name == long and name in clashes & folders:
                raise UsageError(f"{source}: its result would have the name of the folder {name}", "rename one of them")
        names = [long if name in clashes else name for name, long in zip(names, whole, strict=True)]
    return [
        name.with_name(fitting_name(name.name.removesuffix(ending), ending))
        for name, ending in zip(names, endings, strict=True)
    ]


def fitting_name(stem: str, ending: str) -> str:
    """Return `stem` + `ending`. If it is too long, the stem is cut and ends with a hash of the full name."""
    name = stem + ending
    if len(os.fsencode(name)) <= MAX_NAME_BYTES:
        return name
    mark = "~" + blake2b(os.fsencode(name), digest_size=4).hexdigest()
    room = MAX_NAME_BYTES - len(os.fsencode(mark + ending))
    return os.fsencode(stem)[:room].decode("utf-8", "ignore") + mark + ending
