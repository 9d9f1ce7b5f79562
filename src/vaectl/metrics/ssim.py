"""Structural similarity of 8-bit frames, as in the published tables.

Wang et al., "Image quality assessment: from error visibility to structural similarity" (IEEE TIP 2004): Gaussian window
of 11 pixels, sigma 1.5, K1 0.01, K2 0.03, population covariance, without the 5 pixels at each border where the window
does not fit; per frame and channel, then the mean.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vaectl.metrics import MetricSettings
from vaectl.metrics.frames import at_least, per_frame

WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
BLOCK = 16
"""Neighbours along a row that one matrix product computes."""


class SSIM:
    """A `FrameMetric`: 1 for equal frames, at least -1."""

    name = "ssim"
    unit = ""
    better: Literal["higher", "lower"] = "higher"
    smallest = WINDOW
    """Pixels of a side, at least."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # On a CPU, small batches stay in the cache and reuse memory that was just freed.
        self.pixels = 2**16 if device.type == "cpu" else 2**22
        offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
        window = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
        self.window = (window / window.sum()).float().to(device)
        self.band = torch.zeros(BLOCK + WINDOW - 1, BLOCK, device=device)
        for position, weight in enumerate(self.window):
            self.band.diagonal(-position).fill_(weight)

    def measure(self, real_BTCHW: Tensor, generated_BTCHW: Tensor) -> Tensor:
        at_least(self.smallest, real_BTCHW, self.name)
        real, generated = (clips.flatten(1, 2).unsqueeze(2) for clips in (real_BTCHW, generated_BTCHW))
        numbers = per_frame(self._similarity, real, generated, self.device, self.pixels)
        return numbers.view(*real_BTCHW.shape[:3]).mean(dim=2)

    def _similarity(self, a_N1HW: Tensor, b_N1HW: Tensor) -> Tensor:
        """Return the SSIM of each pair of channels, (N,) float32."""
        mean_s, mean_d, var_s, var_d = self._moments(a_N1HW, b_N1HW)
        above = (mean_s - mean_d).mul_(var_s - var_d)
        below = mean_s.add_(mean_d).mul_(var_s.add_(var_d))
        return self._average(above.div_(below), a_N1HW.shape[-1])

    def _moments(self, a_N1HW: Tensor, b_N1HW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return mean_s² + 2·C1, mean_d², var_s + 2·C2 and var_d, in the layout of `_blur`.

        Computed from means and variances of the sum s = a + b and the difference d = a - b:
        4·mean_a·mean_b = mean_s² - mean_d², 2·(mean_a² + mean_b²) = mean_s² + mean_d², and the same for covariance and
        variances. This blurs four maps instead of five, and avoids cancellation for similar frames.
        """
        columns = a_N1HW.shape[-1] - WINDOW + 1
        a, b = (F.pad(frames.squeeze(1), (0, -columns % BLOCK)).float() for frames in (a_N1HW, b_N1HW))
        maps = torch.cat([a + b, a - b])
        # A shift does not change variances. Around 0 float32 is finest, and squares of integers are exact.
        centre = maps.mean(dim=(1, 2), keepdim=True).round_()
        maps -= centre
        mean, square = self._blur(torch.cat([maps, maps.square()])).chunk(2, dim=1)
        var_s, var_d = square.addcmul_(mean, mean, value=-1).chunk(2, dim=1)
        mean_s, mean_d = mean.add_(centre).square_().chunk(2, dim=1)
        mean_s += 2 * C1
        var_s += 2 * C2
        return mean_s, mean_d, var_s, var_d

    @staticmethod
    def _average(blocks: Tensor, width: int) -> Tensor:
        """Return the mean of each map in the layout of `_blur`, of frames of that width: (N,)."""
        return blocks.movedim(0, 2).flatten(2)[..., : width - WINDOW + 1].mean(dim=(1, 2))

    def _blur(self, maps_NHW: Tensor) -> Tensor:
        """Return the window average wherever the window fits: (W' / 16, N, H-10, 16), W' = W - 10 a multiple of 16.

        Along columns: a convolution in which each column is a channel, which is vectorised without a copy. Along rows:
        one product of 26 values with a band matrix gives 16 neighbours.
        """
        count, _, width = maps_NHW.shape
        kernel = self.window.expand(width, 1, 1, WINDOW)
        maps = F.conv2d(maps_NHW.mT.unsqueeze(2), kernel, groups=width).squeeze(2).mT
        blocks = maps.reshape(-1, width).unfold(1, len(self.band), BLOCK).transpose(0, 1)
        return torch.bmm(blocks, self.band.expand(len(blocks), -1, -1)).view(len(blocks), count, -1, BLOCK)


def build(settings: MetricSettings, device: torch.device) -> SSIM:
    return SSIM(device)
