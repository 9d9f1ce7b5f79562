"""The folder where vaectl caches what it can compute again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(*parts: str) -> Path:
    """Return a path in the user's cache folder: `$XDG_CACHE_HOME/vaectl`, or `~/.cache/vaectl`. Never raises."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  # never raises
    return Path(caches, "vaectl", *parts)
