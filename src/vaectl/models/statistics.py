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
    """Statistics of each channel of each frame over its positions: (B, C, T), in host memory."""

    count: int
    """Number of positions per frame."""
    mean: Tensor
    squares: Tensor
    """Sum of squared deviations from the mean."""

    @classmethod
    def of(cls, x_BTHWC: Tensor) -> Statistics:
        """Return the statistics of full frames, or of some of their positions."""
        count = x_BTHWC.shape[2] * x_BTHWC.shape[3]
        mean, variance = (y.cpu().double() for y in mean_and_variance(x_BTHWC))
        return cls(count, mean, variance * count)

    @classmethod
    def of_frames(cls, parts: Sequence[Statistics]) -> Statistics:
        """Join the statistics of consecutive frames."""
        mean, squares = torch.cat([part.mean for part in parts], 2), torch.cat([part.squares for part in parts], 2)
        return cls(parts[0].count, mean, squares)

    def with_positions(self, other: Statistics) -> Statistics:
        """Merge with other positions of the same frames."""
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        squares = self.squares + other.squares + apart**2 * (self.count * other.count / count)
        return Statistics(count, mean, squares)

    def frames(self, start: int, stop: int) -> Statistics:
        """Return the statistics of the frames from `start` to `stop`."""
        return Statistics(self.count, self.mean[:, :, start:stop], self.squares[:, :, start:stop])

    def of_groups(self, groups: int, *, each_frame: bool) -> tuple[Tensor, Tensor]:
        """Return mean and variance of groups of channels, (B, groups, T): of each frame, or of all with T = 1."""
        b, c, t = self.mean.shape
        mean, squares = (x.reshape(b, groups, c // groups, t) for x in (self.mean, self.squares))
        over = (2,) if each_frame else (2, 3)
        pooled = mean.mean(over, keepdim=True)
        variance = (squares / self.count + (mean - pooled) ** 2).mean(over, keepdim=True)
        return pooled.squeeze(2), variance.squeeze(2)


def mean_and_variance(x_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel of each frame, (B, C, T). Five times as fast as `torch.var_mean`."""
    b, t, _, _, c = x_BTHWC.shape
    made = x_BTHWC.new_empty((2, c, b * t), dtype=at_least_float32(x_BTHWC))  # T may be 0
    for i, frame in enumerate(x_BTHWC.flatten(0, 1)):
        x = frame.to(made.dtype)
        made[0, :, i] = mean = x.mean((0, 1))
        made[1, :, i] = (x - mean).square_().mean((0, 1))
    mean, variance = made.reshape(2, c, b, t).transpose(1, 2)
    return mean, variance


def at_least_float32(x: Tensor) -> torch.dtype:
    """Return the type of `x`, or float32 if that is larger."""
    return torch.promote_types(x.dtype, torch.float32)


class RunningCovariance:
    """Mean and covariance of a stream of vectors, in float64.

    Merges means and deviations, because E[x²] - E[x]² loses all digits if the mean is large.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(1, dtype=torch.float64)
        self.scatter = torch.zeros(1, 1, dtype=torch.float64)
        """The sum of the outer products of the deviations from the mean."""

    def add(self, vectors_ND: Tensor) -> None:
        """Add N vectors of D values."""
        mean = vectors_ND.mean(dim=0)
        rest = vectors_ND - mean
        self._join(len(vectors_ND), mean, rest.T @ rest)

    def merge(self, other: RunningCovariance) -> None:
        """Add all vectors of `other`."""
        if other.count:
            self._join(other.count, other.mean, other.scatter)

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total, shift = self.count + count, mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(shift, shift) * self.count * count / total
        self.mean = self.mean + shift * count / total
        self.count = total

    def covariance(self) -> Tensor:
        """Return the sample covariance (D, D), divided by count - 1."""
        return self.scatter / (self.count - 1)
