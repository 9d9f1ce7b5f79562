"""Measure how often 95 % confidence intervals of a mean contain the true mean, 0.

    python benchmarks/coverage.py [--draws N]

For each number of clips, N samples (10,000) of normal numbers and of skewed ones: exponential minus 1, and lognormal
(sigma 1) minus its mean. Prints the share of intervals that contain 0, in %, for four methods and for the one that
`vaectl eval` uses. The table of docs/metrics.md, and the warnings of vaectl.evaluation.statistics, are from here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import ndtr, ndtri, stdtrit

from vaectl.evaluation.statistics import RESAMPLES, interval_method, mean_intervals, resamples

CLIPS = (2, 3, 4, 5, 6, 7, 20, 50, 100, 1000)
DRAWS_AT_ONCE = 5000
SKEWED = "lognormal"
SAMPLES: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "exponential": lambda random, shape: random.exponential(size=shape) - 1,
    SKEWED: lambda random, shape: random.lognormal(size=shape) - np.exp(0.5),
}
Interval = tuple[NDArray[np.float64], NDArray[np.float64]]


def percentile(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled_means(values), [0.025, 0.975], axis=0)
    return low, high


def bca(values: NDArray[np.float64]) -> Interval:
    """Efron, Better Bootstrap Confidence Intervals (1987)."""
    means = np.sort(resampled_means(values), axis=0)
    mean = values.mean(axis=0)
    centred = values - mean
    bias = ndtri((means < mean).mean(axis=0).clip(1 / RESAMPLES, 1 - 1 / RESAMPLES))
    acceleration = (centred**3).sum(axis=0) / (6 * (centred**2).sum(axis=0) ** 1.5)
    ends = []
    for z in ndtri([0.025, 0.975]):
        level = ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
        places = (level * RESAMPLES).astype(int).clip(0, RESAMPLES - 1)
        ends.append(np.take_along_axis(means, places[None], axis=0)[0])
    return ends[0], ends[1]


def student(values: NDArray[np.float64]) -> Interval:
    count, mean = len(values), values.mean(axis=0)
    half = stdtrit(count - 1, 0.975) * values.std(axis=0, ddof=1) / np.sqrt(count)
    return mean - half, mean + half


def resampled_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = resamples(len(values)).astype(np.float64) @ values / len(values)
    return means


METHODS: dict[str, Callable[[NDArray[np.float64]], Interval]] = {
    "percentile": percentile,
    "BCa": bca,
    "Student's t": student,
    "vaectl": mean_intervals,
}


def measure(samples: str, clips: int, method: str, draws: int) -> float:
    """Return the share of `draws` intervals that contain the mean."""
    random, covered = np.random.default_rng(clips), 0
    for start in range(0, draws, DRAWS_AT_ONCE):
        low, high = METHODS[method](SAMPLES[samples](random, (clips, min(DRAWS_AT_ONCE, draws - start))))
        covered += int(((low <= 0) & (high >= 0)).sum())
    return covered / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10000)
    draws = parser.parse_args().draws
    table = Table("numbers", "clips", *METHODS, "its method")
    for samples in SAMPLES:
        for clips in CLIPS:
            shares = [f"{100 * measure(samples, clips, method, draws):.1f}" for method in METHODS]
            table.add_row(samples, str(clips), *shares, interval_method(clips))
    Console().print(table)


if __name__ == "__main__":
    main()
