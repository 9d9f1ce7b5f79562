"""What is drawn by chance in a run, as a function of what it is drawn for. So a run can go on anywhere, on any rank."""

from __future__ import annotations

import hashlib


def seed_of(*key: int | str) -> int:
    """63 bits that depend on all of `key`, and are the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
