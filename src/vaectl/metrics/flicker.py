"""Flicker: how much more, or less, a generated clip changes from frame to frame than its original.

For each pair of neighbouring frames, d is the mean over C, H and W of |frame - previous frame|, in 8-bit levels.
Flicker is |d(generated) - d(real)|: 0 if both change by the same amount, whatever the frames show.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vaectl.errors import UsageError
from vaectl.metrics import MetricSettings
from vaectl.metrics.frames import per_frame

PIXELS = 2**20


class Flicker:
    """A `FrameMetric` with one number for each pair of neighbours. Computed in integers, so exact."""

    unit = "levels"
    better: Literal["higher", "lower"] = "lower"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def measure(self, real_BTCHW: Tensor, generated_BTCHW: Tensor) -> Tensor:
        """Return (B, T-1) float64. Raises UsageError for clips of one frame."""
        if real_BTCHW.shape[1] < 2:
            raise UsageError("flicker needs clips of at least 2 frames", "ask for more frames, or leave it out")
        return (self._changes(generated_BTCHW) - self._changes(real_BTCHW)).abs()

    def _changes(self, clips_BTCHW: Tensor) -> Tensor:
        return per_frame(mean_difference, clips_BTCHW[:, :-1], clips_BTCHW[:, 1:], self.device, PIXELS)


def mean_difference(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Return the mean of |a - b| over C, H and W for each pair of frames: (N,) float64, 8-bit levels. Both uint8."""
    larger = torch.maximum(a_NCHW, b_NCHW) - torch.minimum(a_NCHW, b_NCHW)
    return larger.sum(dim=(1, 2, 3), dtype=torch.int64).cpu().double() / a_NCHW.shape[1:].numel()


def build(settings: MetricSettings, device: torch.device) -> Flicker:
    return Flicker(device)
