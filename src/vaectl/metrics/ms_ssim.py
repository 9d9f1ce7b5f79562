"""Multi-scale structural similarity of 8-bit frames.

Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment" (Asilomar 2003): five
scales, each half the size of the one before. The contrast and structure terms of all scales and the luminance term of
the last are weighted as published. The window is that of `ssim`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vaectl.metrics import MetricSettings
from vaectl.metrics.ssim import SSIM, WINDOW

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1
"""Pixels of a side for which the window still fits at the last scale."""


class MultiScaleSSIM(SSIM):
    """A `FrameMetric`: 1 for equal frames, at least 0.

    A scale with a negative mean counts as 0, as in other implementations: the published formula has no real value then.
    """

    name = "ms_ssim"
    smallest = SMALLEST

    def _similarity(self, a_N1HW: Tensor, b_N1HW: Tensor) -> Tensor:
        """Return the MS-SSIM of each pair of channels, (N,) float32."""
        product = torch.ones(len(a_N1HW), device=a_N1HW.device)
        a, b = a_N1HW.float(), b_N1HW.float()
        for scale, weight in enumerate(WEIGHTS):
            if scale:
                # At an odd side, the last pixel counts twice, as in the published code, which mirrors it.
                a, b = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (a, b))
            mean_s, mean_d, var_s, var_d = self._moments(a, b)
            similarity = (var_s - var_d).div_(var_s.add_(var_d))
            if scale == len(WEIGHTS) - 1:
                similarity *= (mean_s - mean_d).div_(mean_s.add_(mean_d))
            product *= self._average(similarity, a.shape[-1]).relu() ** weight
        return product


def build(settings: MetricSettings, device: torch.device) -> MultiScaleSSIM:
    return MultiScaleSSIM(device)
