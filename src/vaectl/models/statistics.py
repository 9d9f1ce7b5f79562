"""Means, variances and covariances of data that is never in memory as a whole.

`Statistics` is for norms over a clip: per channel and frame, gathered part by part. `RunningCovariance` is for vectors.
Both merge means and squared deviations in float64 (Chan et al. 1983, "Algorithms for computing the sample variance").
Knows neither networks nor the source of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Of each channel of each frame, over its positions: (B, C, T), in host memory."""

    count: int
    """Positions of a frame that went in."""
    mean: Tensor
    squares: Tensor
    """Sum of squared deviations from the mean."""

    @classmethod
    def of(cls, x_BTHWC: Tensor) -> Statistics:
        """Of full frames or of some of their positions."""
        count = x_BTHWC.shape[2] * x_BTHWC.shape[3]
        mean, variance = (y.cpu().double() for y in mean_and_variance(x_BTHWC))
        return cls(count, mean, variance * count)

    @classmethod
    def of_frames(cls, parts: Sequence[Statistics]) -> Statistics:
        """Of frames that follow each other."""
        mean, squares = torch.cat([part.mean for part in parts], 2), torch.cat([part.squares for part in parts], 2)
        return cls(parts[0].count, mean, squares)

    def with_positions(self, other: Statistics) -> Statistics:
        """Together with other positions of the same frames."""
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        squares = self.squares + other.squares + apart**2 * (self.count * other.count / count)
        return Statistics(count, mean, squares)

    def frames(self, start: int, stop: int) -> Statistics:
        return Statistics(self.count, self.mean[:, :, start:stop], self.squares[:, :, start:stop])

    def of_groups(self, groups: int, *, each_frame: bool) -> tuple[Tensor, Tensor]:
        """Mean and variance, (B, groups, T), of consecutive channels; over all frames, T = 1, or of each frame."""
        b, c, t = self.mean.shape
        mean, squares = (x.reshape(b, groups, c // groups, t) for x in (self.mean, self.squares))
        over = (2,) if each_frame else (2, 3)
        pooled = mean.mean(over, keepdim=True)
        variance = (squares / self.count + (mean - pooled) ** 2).mean(over, keepdim=True)
        return pooled.squeeze(2), variance.squeeze(2)


def mean_and_variance(x_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel of each frame, (B, C, T). Frame by frame: five times as fast as `torch.var_mean`."""
    b, t, _, _, c = x_BTHWC.shape
    made = x_BTHWC.new_empty((2, c, b * t), dtype=at_least_float32(x_BTHWC))  # there may be no frames
    for i, frame in enumerate(x_BTHWC.flatten(0, 1)):
        x = frame.to(made.dtype)
        made[0, :, i] = mean = x.mean((0, 1))
        made[1, :, i] = (x - mean).square_().mean((0, 1))
    mean, variance = made.reshape(2, c, b, t).transpose(1, 2)
    return mean, variance


def at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class RunningCovariance:
    """Mean and covariance of vectors that come one after the other, in float64.

    Updated by merging (Chan et al., 1979): E[x²] - E[x]² would lose all digits where the mean is large.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(1, dtype=torch.float64)
        self.scatter = torch.zeros(1, 1, dtype=torch.float64)
        """The sum of the outer products of what deviates from the mean."""

    def add(self, vectors_ND: Tensor) -> None:
        mean = vectors_ND.mean(dim=0)
        rest = vectors_ND - mean
        self._join(len(vectors_ND), mean, rest.T @ rest)

    def merge(self, other: RunningCovariance) -> None:
        """Take in all that `other` has taken in."""
        if other.count:
            self._join(other.count, other.mean, other.scatter)

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total, shift = self.count + count, mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(shift, shift) * self.count * count / total
        self.mean = self.mean + shift * count / total
        self.count = total

    def covariance(self) -> Tensor:
        """(D, D), of a sample: divided by the count less 1."""
        return self.scatter / (self.count - 1)
