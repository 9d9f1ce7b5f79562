"""What is drawn by chance in a run, as a function of what it is drawn for. So a run can go on anywhere, on any rank."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(*key: int | str) -> int:
    """63 bits that depend on all of `key`, and are the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Have PyTorch choose deterministic algorithms within the block, so that a GPU gives the same bits every time.

    Raises RuntimeError within the block where an operation has no such algorithm.
    """
    before = torch.are_deterministic_algorithms_enabled()
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
