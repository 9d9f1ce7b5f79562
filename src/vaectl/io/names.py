"""Names of files that are made of other names, and may become too long for the file system."""

from __future__ import annotations

import os
from hashlib import blake2b

LONGEST = 255
"""Bytes of a name on all common file systems."""


def fitting_name(stem: str, ending: str) -> str:
    """`stem` + `ending`, or, where that is too long, a shorter stem with a hash of the whole one at its end."""
    name = stem + ending
    if len(os.fsencode(name)) <= LONGEST:
        return name
    mark = "~" + blake2b(os.fsencode(name), digest_size=4).hexdigest()
    room = LONGEST - len(os.fsencode(mark + ending))
    return os.fsencode(stem)[:room].decode("utf-8", "ignore") + mark + ending
