"""Random numbers as pure functions of a key: the same on every machine, in any order of calls.

So a run can resume at any step on any rank, and a sample does not depend on the number of workers. A key says what a
number is for, for example (seed, "step", 5). Saved runs and results rely on these numbers, so they must never change.
Imports torch only to make a torch.Generator.
"""

from __future__ import annotations

from hashlib import blake2b, sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def hash64(*key: int | str) -> int:
    """Return a 64-bit hash of `key`."""
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=8).digest(), "little")


def seed_of(*key: int | str) -> int:
    """Return a 63-bit hash of `key`, as a seed for `torch.manual_seed`."""
    return hash64(*key) >> 1


def uniform(*key: int | str) -> float:
    """Return a hash of `key` in [0, 1)."""
    return (hash64(*key) >> 11) / 2**53


def permuted(index: int, size: int, *key: int | str) -> int:
    """Return item `index` of the permutation of 0, ..., size - 1 that belongs to `key`. Stores no table.

    A Feistel network over the next power of 4. Values of `size` or more are permuted again until they are below it
    (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
    """
    bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << bits) - 1
    while True:
        left, right = index >> bits, index & mask
        for step in range(4):
            left, right = right, left ^ (hash64(step, right, *key) & mask)
        index = left << bits | right
        if index < size:
            return index


def generator_for(seed: int, name: str, window: int = 0) -> torch.Generator:
    """Return a generator for a window of the clip called `name`. It does not depend on other clips or their order.

    The hash differs from `seed_of`, because `sample` has always used this one.
    """
    import torch

    place = f"{name}\0{window}" if window else name
    digest = sha256(f"{seed}/{place}".encode("utf-8", "surrogateescape")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
