"""Values computed from a file, kept in this process until the file changes. Knows nothing of their content."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Generic, TypeAlias, TypeVar

_T = TypeVar("_T")
Identity: TypeAlias = tuple[int, int, int, int, int]
"""Device, inode, bytes, modification and change of the entry (ns)."""
_SETTLED_NS = 2 * 10**9
"""A file that changed less than this ago may change again within the resolution of its times."""


def identity_of(path: Path) -> Identity | None:
    """Return numbers that differ if `path` is another file or has changed; None if there is no file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FileCache(Generic[_T]):
    """One value for each file, the most recently used ones.

    Args:
        most: the largest sum of the sizes.
        size: of a value.
    """

    def __init__(self, most: int, size: Callable[[_T], int] = lambda _: 1) -> None:
        self._most, self._size = most, size
        self._kept: OrderedDict[tuple[Path, Identity], _T] = OrderedDict()
        self._total = 0
        self._lock = Lock()

    def get(self, path: Path, compute: Callable[[], _T]) -> _T:
        """Return the value of the file at `path`: the kept one, or that of `compute`. Raises as `compute` does."""
        identity = identity_of(path)
        if identity is None:
            return compute()
        key = path, identity
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = compute()
        if time.time_ns() - max(identity[3:]) > _SETTLED_NS and identity_of(path) == identity:
            with self._lock:
                self._add(key, value)
        return value

    def _add(self, key: tuple[Path, Identity], value: _T) -> None:
        if key not in self._kept:
            self._kept[key] = value
            self._total += self._size(value)
        while self._total > self._most:
            self._total -= self._size(self._kept.popitem(last=False)[1])
