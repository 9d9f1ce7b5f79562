"""The perceptual loss: LPIPS of each frame (Zhang et al. 2018). Knows no weights."""

from __future__ import annotations

from torch import Tensor

from vaectl.metrics.lpips import LPIPS


def perceptual_distances(lpips: LPIPS, x_BCTHW: Tensor, y_BCTHW: Tensor) -> Tensor:
    """Return LPIPS of every frame, (B, T) float32; the clips are in [-1, 1]."""
    x, y = (clip.transpose(1, 2).flatten(0, 1) for clip in (x_BCTHW, y_BCTHW))
    distances: Tensor = lpips(x, y)
    return distances.float().reshape(x_BCTHW.shape[0], x_BCTHW.shape[2])
