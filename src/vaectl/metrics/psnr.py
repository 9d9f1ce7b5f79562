"""Peak signal-to-noise ratio of 8-bit frames, as in the published tables: per frame, then the mean over frames."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vaectl.metrics import MetricSettings
from vaectl.metrics.frames import per_frame

PEAK = 255
PIXELS = 2**16


class PSNR:
    """A `FrameMetric`: 10·log10(255² / mean squared error over C, H and W), in dB; inf for an exact frame."""

    unit = "dB"
    better: Literal["higher", "lower"] = "higher"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def measure(self, real_BTCHW: Tensor, generated_BTCHW: Tensor) -> Tensor:
        errors = per_frame(squared_errors, real_BTCHW, generated_BTCHW, self.device, PIXELS)
        return 10 * torch.log10(PEAK**2 / errors)


def squared_errors(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Return the mean squared difference over C, H and W of each pair of frames: (N,) float64, squared 8-bit levels.

    Both (N, C, H, W) uint8. Exact: float32 holds the sum of 256 squares, float64 the sum of these sums.
    """
    differences = (a_NCHW.float() - b_NCHW).flatten(1)
    num_frames, count = differences.shape
    squares = F.pad(differences, (0, -count % 256)).square_().view(num_frames, -(-count // 256), 256)
    return squares.sum(dim=2).cpu().double().sum(dim=1) / count


def mean_squared_errors(a_TCHW: Tensor, b_TCHW: Tensor) -> list[float]:
    """Return `squared_errors` as floats, computed one frame at a time."""
    return [squared_errors(a[None], b[None]).item() for a, b in zip(a_TCHW, b_TCHW, strict=True)]


def mean_psnr(squared_errors: Iterable[float]) -> float:
    """Return the mean PSNR over frames, in dB; inf if a frame is exact, nan without frames."""
    values = [10 * math.log10(PEAK**2 / error) if error else math.inf for error in squared_errors]
    return sum(values) / len(values) if values else math.nan


def build(settings: MetricSettings, device: torch.device) -> PSNR:
    return PSNR(device)
