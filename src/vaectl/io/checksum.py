"""Checksums of files of any size."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

_CHUNK_BYTES = 2**20


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits. Raises OSError if it cannot be read."""
    digest = sha256()
    with file.open("rb") as opened:
        while part := opened.read(_CHUNK_BYTES):
            digest.update(part)
    return digest.hexdigest()
