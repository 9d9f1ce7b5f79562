"""What an evaluation found: plain values, as they are shown, written and reported. No tensors here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


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
    frames: int
    width: int
    height: int
    values: dict[str, tuple[float, ...]]
    """Of each metric that measures frames: one number for each frame (flicker: for each pair of neighbours)."""

    def mean(self, metric: str) -> float:
        """The mean over the frames; inf where a frame is exact and the metric is psnr."""
        values = self.values[metric]
        return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values) / len(values)


@dataclass(frozen=True)
class Summary:
    """A metric over all clips."""

    mean: float
    low: float | None
    """The 95 % confidence interval of the mean over clips (Student's t); None below two clips, or for sets."""
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
    peak_memory: int
    """Bytes."""

    def worst_first(self, metric: str) -> Sequence[ClipScores]:
        """The clips, the one with the worst mean of `metric` first."""
        facts = next(m for m in self.metrics if m.name == metric)
        return sorted(self.clips, key=lambda clip: clip.mean(metric), reverse=facts.better == "lower")
