"""Which files are also in trees of videos: the same real files, by any path and through links."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from vaectl.data.metadata_cache import VideoTree


def also_in(trees: Iterable[VideoTree], paths: Sequence[Path]) -> list[Path]:
    """Return those `paths` that are also videos of the trees.

    Of a million videos, only those with the size and the time of one of the paths are looked up on the disk.
    """
    wanted = {path: status for path in paths if (status := _status(path))}
    stamps = {(status.st_size, status.st_mtime_ns) for status in wanted.values()}
    found = {
        (status.st_dev, status.st_ino)
        for tree in trees
        for name, facts in tree.videos.items()
        if (facts.size, facts.modified) in stamps and (status := _status(f"{tree.folder}/{name}"))
    }
    return [path for path, status in wanted.items() if (status.st_dev, status.st_ino) in found]


def _status(path: Path | str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116  # a Path would double the time
    except OSError:
        return None
