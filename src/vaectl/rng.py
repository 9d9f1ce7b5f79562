"""Random numbers as pure functions of what they are drawn for: the same on every machine, in any order of calls.

So a run can resume anywhere, on any rank, and a sample does not depend on the number of workers. A key names what a
number is for, such as (seed, "step", 5). Saved runs and results rely on the numbers: they must never change. Imports
torch only where a torch.Generator is made.
"""

from __future__ import annotations

from hashlib import blake2b, sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def hash64(*key: int | str) -> int:
    """Return the 64 bits that belong to `key`."""
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=8).digest(), "little")


def seed_of(*key: int | str) -> int:
    """Return the seed that belongs to `key`: 63 bits, as `torch.manual_seed` takes them."""
    return hash64(*key) >> 1


def uniform(*key: int | str) -> float:
    """Return the number in [0, 1) that belongs to `key`."""
    return (hash64(*key) >> 11) / 2**53


def permuted(index: int, size: int, *key: int | str) -> int:
    """Return where the permutation of 0, ..., size - 1 that belongs to `key` sends `index`. Takes no memory.

    A Feistel network over the next power of 4; values beyond `size` are sent on until they fall inside (Black and
    Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
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


def generator_for(seed: int, name: str) -> torch.Generator:
    """Return the generator of one clip among many, by its name: the other clips and their order do not matter.

    Its seed is another hash than `seed_of`: `sample` has always used this one.
    """
    import torch

    digest = sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
