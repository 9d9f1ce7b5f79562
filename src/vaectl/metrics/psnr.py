"""Peak signal-to-noise ratio of 8-bit frames, as in the published tables: per frame, then the mean over frames."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

PEAK = 255


def mean_squared_errors(a_TCHW: Tensor, b_TCHW: Tensor) -> list[float]:
    """Mean squared difference of each pair of frames, over C, H and W, in squared 8-bit levels.

    Both (T, C, H, W) uint8. Computed in integers, so exact.
    """
    difference = a_TCHW.to(torch.int32) - b_TCHW.to(torch.int32)
    sums = difference.square_().sum(dim=(1, 2, 3), dtype=torch.int64)
    return [total / a_TCHW[0].numel() for total in sums.tolist()]


def mean_psnr(squared_errors: Iterable[float]) -> float:
    """Mean over frames of 10·log10(255² / mean squared error), in dB; inf where a frame is exact, nan without any."""
    values = [10 * math.log10(PEAK**2 / error) if error else math.inf for error in squared_errors]
    return sum(values) / len(values) if values else math.nan
