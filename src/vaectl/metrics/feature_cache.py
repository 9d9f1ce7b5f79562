"""Cache the features of original clips between runs, by the content of their frames. Does not know the network.

Each clip has a small file in the user's cache folder. Removing any of them, or the folder, is safe at any time. A file
that is damaged or cannot be written costs only time.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaectl.errors import VaectlError
from vaectl.io.atomic_write import atomic_write
from vaectl.io.user_cache import user_cache
from vaectl.progress import Progress

CHECK_BYTES = 16


def cached_features(
    frames_TCHW: Tensor, network: str, size: int | None, compute: Callable[[], Tensor], progress: Progress
) -> Tensor:
    """Return the features of a clip (T, C, H, W) uint8: those in the cache, or else what `compute` gives.

    `network` names everything that the features depend on, except the frames. The result is (1, size) float64; the
    size is checked if it is known.
    """
    key = blake2b(f"{network} {tuple(frames_TCHW.shape)}\n".encode(), digest_size=16)
    key.update(frames_TCHW.cpu().flatten().numpy().data)
    file = user_cache("features", key.hexdigest())
    if (stored := _stored(file, size)) is not None:
        return stored
    features = compute()
    values = features.numpy().astype("<f8").tobytes()
    try:
        with atomic_write(file, overwrite=True) as temporary:
            temporary.write_bytes(check(values) + values)
    except (OSError, VaectlError):
        progress.note(f"{file.parent}: cannot be written, so later runs compute the features of the originals again")
    return features


def _stored(file: Path, size: int | None) -> Tensor | None:
    """Return the features in a file of the cache; None if it has none, or is damaged."""
    try:
        content = file.read_bytes() if file.is_file() else b""  # a pipe might never end
    except OSError:
        return None
    values = content[CHECK_BYTES:]
    if not values or len(values) % 8 or content[:CHECK_BYTES] != check(values):
        return None
    features = torch.from_numpy(np.frombuffer(values, "<f8").astype(np.float64))[None]
    return features if size in (None, features.shape[1]) and features.isfinite().all() else None


def check(values: bytes) -> bytes:
    return blake2b(values, digest_size=CHECK_BYTES).digest()
