"""Which files are also in trees of videos: the same real files, by any path and through links."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from vaectl.data.metadata_cache import VideoTree
from vaectl.video.sequence import files_of


def also_in(trees: Iterable[VideoTree], paths: Sequence[Path]) -> list[Path]:
    """Return those `paths` that are also videos of the trees. Numbered images count if they share one image.

    Of a million videos, only those with the size and the time of one of the paths are looked up on the disk.
    """
    wanted = {path: _statuses(path) for path in paths}
    stamps = {(status.st_size, status.st_mtime_ns) for statuses in wanted.values() for status in statuses}
    found = {
        (status.st_dev, status.st_ino)
        for tree in trees
        for name, facts in tree.videos.items()
        if (facts.size, facts.modified) in stamps or "%" in name  # the stamp of numbered images is of all of them
        for status in _statuses(tree.folder / name)
    }
    return [
        path for path, statuses in wanted.items() if any((status.st_dev, status.st_ino) in found for status in statuses)
    ]


def _statuses(path: Path) -> list[os.stat_result]:
    return [status for file in files_of(path) if (status := _status(file))]


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
