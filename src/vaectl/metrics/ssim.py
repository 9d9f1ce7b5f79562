"""Structural similarity of 8-bit frames, as in the published tables.

Wang et al., "Image quality assessment: from error visibility to structural similarity" (IEEE TIP 2004): Gaussian window
of 11 pixels, sigma 1.5, K1 0.01, K2 0.03, population covariance, without the 5 pixels at each border whose window is
not whole; per frame and channel, then the mean.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vaectl.metrics import MetricSettings
from vaectl.metrics.frames import at_least, per_frame

WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
PIXELS = 2**18


class SSIM:
    """A `FrameMetric`: 1 for equal frames, at least -1."""

    unit = ""
    better: Literal["higher", "lower"] = "higher"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def measure(self, real_BTCHW: Tensor, generated_BTCHW: Tensor) -> Tensor:
        at_least(WINDOW, real_BTCHW, "ssim")
        return per_frame(similarity, real_BTCHW, generated_BTCHW, self.device, PIXELS)


def similarity(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """The SSIM of each pair of frames, (N,) float32; both uint8, at least 11x11 pixels.

    In terms of the sum s = a + b and the difference d = a - b, of which the windows give means and variances:
    4·mean_a·mean_b = mean_s² - mean_d², 2·(mean_a² + mean_b²) = mean_s² + mean_d², and the same for covariance and
    variances. So four maps are blurred, not five, and where frames are alike nothing large cancels.
    """
    a, b = a_NCHW.float(), b_NCHW.float()
    s, d = a + b, a - b
    # A variance is the same for values around 0, where float32 is finest.
    centre = s.mean(dim=(2, 3), keepdim=True)
    s -= centre
    mean_s, mean_d, square_s, square_d = blur(torch.stack([s, d, s.square(), d.square()])).unbind()
    var_s, var_d = square_s - mean_s.square(), square_d - mean_d.square()
    mean_s, mean_d = (mean_s + centre).square_(), mean_d.square_()
    luminance = (mean_s - mean_d + 2 * C1) / (mean_s + mean_d + 2 * C1)
    structure = (var_s - var_d + 2 * C2) / (var_s + var_d + 2 * C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def blur(maps: Tensor) -> Tensor:
    """Weighted by the Gaussian window, wherever the whole of it fits: (..., H-10, W-10) float32."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights /= weights.sum()
    for dim in (-2, -1):
        size = maps.shape[dim] - WINDOW + 1
        terms = [maps.narrow(dim, start, size) for start in range(WINDOW)]
        result = terms[WINDOW // 2] * float(weights[WINDOW // 2])
        for k in range(WINDOW // 2):
            result.add_(terms[k] + terms[-1 - k], alpha=float(weights[k]))
        maps = result
    return maps


def build(settings: MetricSettings, device: torch.device) -> SSIM:
    return SSIM(device)
