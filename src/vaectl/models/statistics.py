"""Means and variances of a clip that is never there as a whole, for the norms that look at all of it.

Gathered part by part, kept for each channel of each frame, merged by means and squared deviations (Chan et al. 1983,
"Algorithms for computing the sample variance"), in float64. Knows neither networks nor where the parts come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Of each channel of each frame, over its positions."""

    count: int
    """Positions of a frame that went in."""
    mean_BCT: Tensor
    squares_BCT: Tensor
    """Sum of squared deviations from the mean."""

    @classmethod
    def of(cls, x_BCTHW: Tensor) -> Statistics:
        count = x_BCTHW.shape[3] * x_BCTHW.shape[4]
        variance, mean = torch.var_mean(x_BCTHW.to(at_least_float32(x_BCTHW)), dim=(3, 4), correction=0)
        return cls(count, mean.double(), variance.double() * count)

    def with_rows(self, other: Statistics) -> Statistics:
        """Together with other positions of the same frames."""
        count = self.count + other.count
        apart = other.mean_BCT - self.mean_BCT
        mean = self.mean_BCT + apart * (other.count / count)
        squares = self.squares_BCT + other.squares_BCT + apart**2 * (self.count * other.count / count)
        return Statistics(count, mean, squares)

    def with_frames(self, other: Statistics) -> Statistics:
        """Together with the frames that follow."""
        return Statistics(
            self.count,
            torch.cat([self.mean_BCT, other.mean_BCT], dim=2),
            torch.cat([self.squares_BCT, other.squares_BCT], dim=2),
        )

    def frames(self, start: int, stop: int) -> Statistics:
        return Statistics(self.count, self.mean_BCT[:, :, start:stop], self.squares_BCT[:, :, start:stop])

    def of_groups(self, groups: int, *, each_frame: bool) -> tuple[Tensor, Tensor]:
        """Mean and variance, (B, groups, T), of consecutive channels; over all frames, T = 1, or of each frame."""
        b, c, t = self.mean_BCT.shape
        mean, squares = (x.reshape(b, groups, c // groups, t) for x in (self.mean_BCT, self.squares_BCT))
        over = (2,) if each_frame else (2, 3)
        pooled = mean.mean(over, keepdim=True)
        variance = (squares / self.count + (mean - pooled) ** 2).mean(over, keepdim=True)
        return pooled.squeeze(2), variance.squeeze(2)


def at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
