"""Intervals of means over clips, and tests of paired differences. Knows arrays only.

All functions take columns, (clips, S) float64 and finite, and work on all columns at once. Resamples and signs depend
only on the number of clips, so equal input gives equal numbers, also next to other columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Columns: TypeAlias = NDArray[np.float64]

FEW = 6
"""With fewer clips a test cannot reach p = 0.05, and the bootstrap has too few different resamples."""
MANY = 1000
"""With more clips, Student's t covers as much as the bootstrap, and takes no time."""
RESAMPLES = 4999
MOST_WIDTH = 3.0
"""Maximum distance of the end of an interval from the mean, in those of Student's t. If all clips but one are equal,
the bootstrap has no bound."""
EXACT = 14
"""Up to this many clips, the test tries every combination of signs."""
SIGNS = 9999
BLOCK = 2**22
"""Numbers of a matrix of resamples or signs that are in memory at once."""
COVERAGE = {2: 90, 3: 84, 4: 82, 6: 89, 20: 92, 50: 93, 100: 94}
"""Least number of clips -> what 95 % intervals cover of very skewed numbers (lognormal), in %, at least, up to the next
number, as measured by benchmarks/coverage.py."""


def interval_method(clips: int) -> str:
    """Return the method of `mean_intervals` for this number of clips, as it is written in results."""
    return "bootstrap-t" if FEW <= clips <= MANY else "student-t"


def coverage(clips: int) -> int:
    """Return the measured coverage of very skewed numbers for this number of clips, at least 2, in %."""
    return COVERAGE[max(least for least in COVERAGE if least <= clips)]


def mean_intervals(values_NS: Columns) -> tuple[Columns, Columns]:
    """Return the ends of the 95 % confidence interval of the mean of each column, (S,) each, for at least 2 rows.

    Bootstrap-t (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5), or Student's t for few and
    for very many rows.
    """
    from scipy.special import stdtrit  # takes 0.1 s, and a single clip needs none of it

    count = len(values_NS)
    mean_S = values_NS.mean(axis=0)
    error_S = values_NS.std(axis=0, ddof=1) / np.sqrt(count)
    student = float(stdtrit(count - 1, 0.975))
    if interval_method(count) == "student-t":
        return mean_S - student * error_S, mean_S + student * error_S
    t_RS = _studentized(values_NS - mean_S)
    tail = (RESAMPLES + 1) // 40 - 1
    t_RS.partition((tail, RESAMPLES - 1 - tail), axis=0)
    most = MOST_WIDTH * student
    upper_S, lower_S = t_RS[tail].clip(-most, 0), t_RS[-1 - tail].clip(0, most)
    return mean_S - lower_S * error_S, mean_S - upper_S * error_S


def _studentized(centred_NS: Columns) -> Columns:
    """Return the mean of each resample, divided by its standard error: (R, S); infinite if all its rows are equal."""
    count = len(centred_NS)
    drawn = resamples(count)
    parts = []
    for start in range(0, RESAMPLES, rows := max(1, BLOCK // count)):
        weights = drawn[start : start + rows].astype(np.float64) / count
        mean_RS, square_RS = weights @ centred_NS, weights @ centred_NS**2
        variance_RS = square_RS - mean_RS**2
        variance_RS[variance_RS <= 1e-12 * square_RS] = 0  # rounding errors
        with np.errstate(divide="ignore", invalid="ignore"):
            t_RS = mean_RS / np.sqrt(variance_RS / (count - 1))
        t_RS[np.isnan(t_RS)] = 0  # all rows are equal, and equal to the mean
        parts.append(t_RS)
    return np.concatenate(parts)


@lru_cache(maxsize=1)
def resamples(count: int) -> NDArray[np.uint8]:
    """Return how often each of `count` rows is in each resample, (R, count)."""
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count), dtype=np.int32)
    drawn += np.arange(0, RESAMPLES * count, count, dtype=np.int32)[:, None]
    return np.bincount(drawn.ravel(), minlength=RESAMPLES * count).astype(np.uint8).reshape(RESAMPLES, count)


def sign_flip_test(differences_NS: Columns) -> Columns:
    """Return the two-sided p-value of each column of paired differences, (S,).

    A paired permutation test of the mean: without a real difference, each sign is as likely as the other. All
    combinations of signs up to `EXACT` rows, else `SIGNS` random ones and the given one.
    """
    count = len(differences_NS)
    # Sums that are equal in theory differ by rounding errors.
    least_S = np.abs(differences_NS.sum(axis=0)) - 1e-9 * np.abs(differences_NS).sum(axis=0)
    exceeding_S, tried = np.zeros(differences_NS.shape[1]), 0
    for signs in _signs(count):
        exceeding_S += (np.abs(signs @ differences_NS) >= least_S).sum(axis=0)
        tried += len(signs)
    given = 0 if count <= EXACT else 1
    return (exceeding_S + given) / (tried + given)


def _signs(count: int) -> Iterator[Columns]:
    """Yield signs of `count` rows in blocks, (n, count). Of opposite combinations, only one is listed."""
    if count <= EXACT:
        bits = np.arange(2 ** (count - 1))[:, None] >> np.arange(count) & 1
        yield (1 - 2 * bits).astype(np.float64)
        return
    random, rows = np.random.default_rng(0), max(1, BLOCK // count)
    for start in range(0, SIGNS, rows):
        signs = 2 * random.integers(0, 2, (min(rows, SIGNS - start), count), dtype=np.int8) - 1
        yield signs.astype(np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, A simple sequentially rejective test procedure, 1979)."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def caveats(clips: int, about: str = "intervals and p-values") -> Iterator[str]:
    """Yield a line with what a reader has to know about the intervals of this number of clips; none below 2."""
    if clips < 2:
        return
    skewed = coverage(clips)
    how = "the bootstrap-t method" if interval_method(clips) == "bootstrap-t" else "Student's t"
    few = f"; with fewer than {FEW} clips, {about} mean little" if clips < FEW else ""
    less = f"; of very skewed numbers, intervals of {clips} clips cover about {skewed} %" if skewed < 93 else ""
    yield f"95 % intervals by {how}{few}{less}"
