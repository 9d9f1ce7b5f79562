"""The metadata of every video in a tree, cached between runs.

Each tree has a cache file in the user's cache folder, not next to the videos. A video is probed again if its size or
modification time changed. An unreadable one is probed each time. Does not know what the videos are used for.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from vaectl.errors import VaectlError
from vaectl.io.atomic_write import atomic_write
from vaectl.io.user_cache import user_cache
from vaectl.progress import Progress
from vaectl.video.discover import find_names, find_videos
from vaectl.video.index import build_index
from vaectl.video.probe import probe
from vaectl.video.sequence import stamp_of
from vaectl.video.truncation import is_cut_short

_VERSION = 2
_SAVE_INTERVAL_SECONDS = 30.0
"""Seconds between two saves of the cache while videos are probed."""
_FILES_PER_BATCH = 256
"""Files that are given to the threads at once."""


class Facts(NamedTuple):
    """The metadata of one file."""

    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970."""
    width: int
    height: int
    num_frames: int
    """As the container says, else counted. The exact number is known only when the file is read."""
    frame_rate: str
    """Frames per second, as a fraction."""


class VideoTree(NamedTuple):
    """A tree of videos. Keys are sorted paths relative to `folder`, with forward slashes."""

    folder: Path
    videos: dict[str, Facts]
    unreadable: dict[str, str]
    """The reason, in one line that names the file."""


def scan_videos(root: Path, progress: Progress, most: int | None = None) -> VideoTree:
    """Return the metadata of every video and image below `root`, or of the file `root`; of the first `most` only.

    Raises UsageError as `find_videos` does. Warns if the cache is damaged or cannot be written.
    """
    folder, names = (root, find_names(root)) if root.is_dir() else (root.parent, [p.name for p in find_videos(root)])
    cache = _cache_file(root)
    known = _load(cache, progress)
    others = {} if most is None else known
    videos, unreadable, fresh = {}, {}, []
    for name in names[:most]:
        facts = known.get(name)
        if facts is not None and facts[:2] == _identity(f"{folder}/{name}"):
            videos[name] = facts
        else:
            fresh.append(name)
    saved = time.monotonic()
    problem = None
    progress.start(f"{root}: scanning videos", len(fresh), "files")
    try:
        for name, found in zip(fresh, _probe_all(folder / name for name in fresh), strict=True):
            if isinstance(found, str):
                unreadable[name] = found
            else:
                videos[name] = found
            progress.advance(1)
            if time.monotonic() - saved > _SAVE_INTERVAL_SECONDS:
                problem = _save(cache, root, others | videos)
                saved = time.monotonic()
    finally:
        progress.finish()
        if others | videos != known:
            problem = _save(cache, root, others | videos)
    if problem:
        progress.warn(f"{problem} with XDG_CACHE_HOME, or each start scans all videos again")
    return VideoTree(folder, {name: videos[name] for name in names if name in videos}, unreadable)


def _probe_all(paths: Iterable[Path]) -> Iterator[Facts | str]:
    """Yield the metadata of each file, or what is wrong with it, in order. Probes many files at a time."""
    rest = iter(paths)
    threads = ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1)))
    try:
        while some := list(islice(rest, _FILES_PER_BATCH)):
            yield from threads.map(_facts, some)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _facts(path: Path) -> Facts | str:
    try:
        size, modified = _identity(path)
        info = probe(path)
        if path.is_file() and is_cut_short(path):
            return f"{path}: it is cut short; get the file again"
        num_frames = info.num_frames_from_header or len(build_index(info).times)
        return Facts(size, modified, info.width, info.height, num_frames, str(info.frame_rate))
    except VaectlError as error:
        return str(error)
    except Exception as error:  # one damaged file must not stop the scan
        return f"{path}: cannot be read ({type(error).__name__}: {error})"


def _identity(path: Path | str) -> tuple[int, int]:
    """Return size and modification time; (-1, -1), which no file has, if there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116  # for a million files, and a Path would double the time
    except FileNotFoundError:
        with suppress(OSError):
            return stamp_of(Path(path))
        return -1, -1
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _cache_file(root: Path) -> Path:
    tree = blake2b(os.fsencode(root.resolve()), digest_size=16).hexdigest()
    return user_cache("videos", f"{tree}.json")


def _load(cache: Path, progress: Progress) -> dict[str, Facts]:
    """Return the cached metadata. Warn about a damaged cache, and return none."""
    try:
        check, _, text = cache.read_bytes().partition(b"\n")
    except OSError:
        return {}  # if it cannot be written either, `_save` reports it
    if check != _checksum(text):
        progress.warn(f"{cache}: is damaged; scanning all videos again")
        return {}
    content = json.loads(text)
    return {name: Facts(*facts) for name, facts in content["videos"].items()} if content["version"] == _VERSION else {}


def _save(cache: Path, root: Path, videos: dict[str, Facts]) -> str | None:
    """Write the cache atomically, because several runs may write it at once. Return the problem, if any."""
    content = {"version": _VERSION, "tree": str(root.resolve()), "videos": videos}
    text = json.dumps(content, separators=(",", ":")).encode()
    try:
        with atomic_write(cache, overwrite=True) as temporary:
            temporary.write_bytes(_checksum(text) + b"\n" + text)
    except VaectlError as error:
        return str(error)
    except OSError as error:
        return f"{cache}: cannot be written ({error.strerror}); choose another folder"
    return None


def _checksum(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).hexdigest().encode()
