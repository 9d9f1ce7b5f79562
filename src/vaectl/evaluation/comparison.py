"""The results of several candidates, measured on the same clips under one protocol, and whether they differ.

Plain values. No tensors here, and no files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from vaectl.evaluation.results import Evaluation
from vaectl.evaluation.statistics import Columns, holm, interval_method, mean_intervals, sign_flip_test
from vaectl.io.json_values import plain
from vaectl.metrics import MetricFacts


@dataclass(frozen=True)
class Difference:
    """A metric of frames of two candidates, paired by clip."""

    metric: str
    candidate: str
    against: str
    mean: float | None
    """Mean over the clips of candidate minus against; inf if a frame is exact in one of them only, None if each of them
    has an exact frame that the other one has not."""
    low: float | None
    """The 95 % confidence interval of the mean; None for one clip, and if the mean is not finite."""
    high: float | None
    win_rate: float
    """Share of the clips in which the candidate is better; equal ones count half."""
    p: float | None
    """Two-sided p-value of a paired permutation test; None as the interval."""
    p_corrected: float | None
    """After Holm, for all comparisons of this metric; equal to `p` for two candidates."""


@dataclass(frozen=True)
class Comparison:
    """Everything that `vaectl eval` reports about one candidate or several.

    Raises ValueError if their clips differ, and for equal names.
    """

    evaluations: tuple[Evaluation, ...]
    """One for each candidate, in the given order, with the same clips."""
    all_pairs: bool = False
    """Compare every two candidates, not each one with the first."""

    def __post_init__(self) -> None:
        if len({tuple(clip.name for clip in evaluation.clips) for evaluation in self.evaluations}) > 1:
            raise ValueError("the candidates have different clips")
        if len({evaluation.name for evaluation in self.evaluations}) < len(self.evaluations):
            raise ValueError("two candidates have the same name")

    @property
    def clips(self) -> int:
        """The number of clips, the same for all candidates."""
        return len(self.evaluations[0].clips)

    @property
    def metrics(self) -> tuple[MetricFacts, ...]:
        """The metrics that at least one candidate has."""
        return tuple({metric.name: metric for evaluation in self.evaluations for metric in evaluation.metrics}.values())

    @property
    def pairs(self) -> list[tuple[Evaluation, Evaluation]]:
        """The pairs that are compared: a candidate, and the one that it is compared with."""
        first, *others = self.evaluations
        if self.all_pairs:
            return [(later, earlier) for earlier, later in combinations(self.evaluations, 2)]
        return [(other, first) for other in others]

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """The differences of all pairs in each metric of frames that both candidates have, by metric."""
        compared = [
            (metric, candidate, other)
            for metric in self.metrics
            for candidate, other in self.pairs
            if not metric.of_set and metric in candidate.metrics and metric in other.metrics
        ]
        return tuple(_tested(compared)) if compared and self.clips else ()

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values: of one candidate its evaluation; of several `candidates` and `significance`."""
        evaluations = [evaluation.as_json() for evaluation in self.evaluations]
        if len(evaluations) == 1:
            return evaluations[0]
        return {
            "candidates": evaluations,
            "significance": {
                "clips": self.clips,
                "interval": interval_method(self.clips) if self.clips > 1 else None,
                "test": "paired permutation of signs, two-sided",
                "correction": "Holm, for each metric",
                "differences": [plain(asdict(row)) for row in self.differences],
            },
        }


def _tested(compared: Sequence[tuple[MetricFacts, Evaluation, Evaluation]]) -> Iterator[Difference]:
    """Yield the difference in each metric between two candidates; p-values are corrected for each metric."""
    means = {
        (metric.name, each.name): np.array([clip.mean(metric.name) for clip in each.clips])
        for metric in {metric for metric, _, _ in compared}
        for each in {each.name: each for _, *pair in compared for each in pair}.values()
        if metric in each.metrics
    }
    columns = np.stack([_clip_differences(*each, means) for each in compared], axis=1)
    # Columns that are not finite, and single clips, have no interval and no p-value: nan.
    tested = np.flatnonzero(np.isfinite(columns).all(axis=0)) if len(columns) > 1 else np.array([], dtype=int)
    lows, highs, p_values = np.full((3, columns.shape[1]), np.nan)
    if tested.size:
        lows[tested], highs[tested] = mean_intervals(columns[:, tested])
        p_values[tested] = sign_flip_test(columns[:, tested])
    with np.errstate(invalid="ignore"):
        rows = np.stack([columns.mean(axis=0), lows, highs, p_values], axis=1).tolist()
    corrected: dict[int, float] = {}
    for name in {metric.name for metric, _, _ in compared}:
        places = [place for place in tested.tolist() if compared[place][0].name == name]
        corrected.update(zip(places, holm([rows[place][3] for place in places]), strict=True))
    for place, (metric, candidate, other) in enumerate(compared):
        least, most = metric.bounds
        mean, low, high, p = (None if math.isnan(number) else number for number in rows[place])
        yield Difference(
            metric.name,
            candidate.name,
            other.name,
            mean,
            None if low is None else max(low, least - most),
            None if high is None else min(high, most - least),
            _win_rate(columns[:, place], metric),
            p,
            corrected.get(place),
        )


def _clip_differences(
    metric: MetricFacts, candidate: Evaluation, other: Evaluation, means: Mapping[tuple[str, str], Columns]
) -> Columns:
    """Return candidate minus other for each clip, (clips,). A frame that is exact in both (inf) counts as 0."""
    with np.errstate(invalid="ignore"):
        differences = means[metric.name, candidate.name] - means[metric.name, other.name]
    for clip in np.flatnonzero(np.isnan(differences)).tolist():
        a, b = candidate.clips[clip].values[metric.name], other.clips[clip].values[metric.name]
        differences[clip] = sum(0.0 if x == y else x - y for x, y in zip(a, b, strict=True)) / len(a)
    return differences


def _win_rate(differences: Columns, metric: MetricFacts) -> float:
    """Return the share of the clips in which the candidate is better; equal ones count half, also if both are inf."""
    signs = np.nan_to_num(np.sign(differences if metric.better == "higher" else -differences))
    return float(0.5 + 0.5 * signs.mean())
