"""What an evaluation found: plain values, as they are shown, written and reported. No tensors here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vaectl.io.json_values import plain


@dataclass(frozen=True)
class MetricFacts:
    """How the numbers of a metric are to be read."""

    name: str
    unit: str
    better: Literal["higher", "lower"]
    of_set: bool
    """One number for all clips together (fvd), not one for each frame."""


@dataclass(frozen=True)
class ClipScores:
    """One pair of clips with its numbers."""

    name: str
    """Path below the folder of originals, without extension, with forward slashes."""
    real: Path
    generated: Path | None
    """None where the model ran in memory."""
    num_frames: int
    width: int
    height: int
    values: dict[str, tuple[float, ...]]
    """Of each metric that measures frames: one number for each frame (flicker: for each pair of neighbours)."""

    def mean(self, metric: str) -> float:
        """The mean over the frames; inf where a frame is exact and the metric is psnr."""
        values = self.values[metric]
        return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values) / len(values)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values: the fields, and `mean` for each metric."""
        values: dict[str, Any] = {"frames" if key == "num_frames" else key: value for key, value in vars(self).items()}
        json: dict[str, Any] = plain(values | {"mean": {metric: self.mean(metric) for metric in self.values}})
        return json


@dataclass(frozen=True)
class Summary:
    """A metric over all clips."""

    mean: float
    low: float | None
    """The 95 % confidence interval of the mean over clips (Student's t); None for sets, below two clips, or where a
    clip's mean is inf."""
    high: float | None
    worst: str | None
    """The name of the clip with the worst mean; None for sets."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that `vaectl eval` tells."""

    metrics: tuple[MetricFacts, ...]
    clips: tuple[ClipScores, ...]
    set_values: dict[str, float]
    """Of each metric of sets, its number."""
    protocol: dict[str, Any]
    """All that has to be known to repeat the numbers: plain JSON values."""
    left_out: dict[str, str]
    """Clips that could not be compared, by name, with the reason in one line."""
    seconds: float
    decode_seconds: float
    """Spent decoding, summed over the threads that did, which ran beside the rest."""
    peak_memory: int
    """Bytes."""
    stopped_before: int = 0
    """How many more pairs there were when the run was stopped by Ctrl-C; 0 for a run that was not."""
    failures: tuple[str, ...] = ()
    """All that makes this a failed run, in one line each: clips that were not to be left out, files not written."""

    def worst_first(self, metric: str) -> Sequence[ClipScores]:
        """The clips, the one with the worst mean of `metric` first."""
        facts = next(m for m in self.metrics if m.name == metric)
        return sorted(self.clips, key=lambda clip: clip.mean(metric), reverse=facts.better == "lower")

    def summary(self, metric: str) -> Summary:
        """The metric over all clips, of which there is at least one; of a set metric, its number."""
        if metric in self.set_values:
            return Summary(self.set_values[metric], None, None, None)
        means = [clip.mean(metric) for clip in self.clips]
        low, high = confidence_interval(means) or (None, None)
        return Summary(sum(means) / len(means), low, high, self.worst_first(metric)[0].name)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values: paths as strings, null for what there is not, "inf" for a PSNR without any error."""
        summaries = {m.name: self.summary(m.name) for m in self.metrics if m.name in self.set_values or not m.of_set}
        facts = {m.name: {"unit": m.unit, "better": m.better, "of_set": m.of_set} for m in self.metrics}
        return {
            "summary": {name: {**plain(asdict(summary)), **facts[name]} for name, summary in summaries.items()},
            "protocol": self.protocol,
            "clips": [clip.as_json() for clip in self.clips],
            "left_out": self.left_out,
            "stopped_before": self.stopped_before,
            "failures": list(self.failures),
            "seconds": self.seconds,
            "decode_seconds": self.decode_seconds,
            "peak_memory": self.peak_memory,
        }


def confidence_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Where the mean lies with 95 % confidence, by Student's t; None below two values or where one is not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half
