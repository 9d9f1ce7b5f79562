"""Name weights by their values, so that equal weights have one name in results, whatever file has them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from torch import Tensor


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names, shapes and float32 values of weights, in hexadecimal digits."""
    digest = sha256()
    for name in sorted(weights):
        digest.update(f"{name} {tuple(weights[name].shape)}\n".encode())
        digest.update(weights[name].float().flatten().numpy().data)
    return digest.hexdigest()


def name_of(file: Path, digest: str) -> str:
    """Return the name, in results, of weights that have no better one."""
    return f"{file}, SHA-256 {digest}"
