"""Mean and covariance of vectors that are never all in memory. Knows nothing of what the vectors are."""

from __future__ import annotations

import torch
from torch import Tensor


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
