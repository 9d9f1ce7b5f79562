"""The results of an evaluation: plain values, as they are shown and written. No tensors here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import Field

from vaectl.evaluation.position import by_position
from vaectl.io.json_values import plain
from vaectl.metrics import FACTS, WITH_HARMONIC_MEAN, MetricFacts

Whole: TypeAlias = Annotated[int, Field(ge=0, le=2**63 - 1)]
Amount: TypeAlias = Annotated[float, Field(ge=0, le=2**63, allow_inf_nan=False)]
"""A number that a file may have."""


@dataclass(frozen=True)
class ClipScores:
    """One pair of clips with its numbers."""

    name: str
    """Path below the folder of originals, without extension, with forward slashes."""
    real: Path
    generated: Path | None
    """None if the model ran in memory."""
    num_frames: int
    width: int
    height: int
    values: dict[str, tuple[float, ...]]
    """Metric of frames -> one number for each frame (flicker: for each pair of neighbours in a window)."""
    windows: int = 1
    """Windows of equal length that were measured one by one; the numbers are those of all, one after the other."""
    frames_left_out: int = 0
    """Frames of the original after the last window."""

    def __repr__(self) -> str:
        return f"ClipScores({self.name!r}, {self.num_frames} frames, {self.width}x{self.height}: {_shown(self.means)})"

    @property
    def means(self) -> dict[str, float]:
        """The mean over the frames of each metric of frames."""
        return {metric: self.mean(metric) for metric in self.values}

    def mean(self, metric: str) -> float:
        """Return the mean over the frames; inf for psnr if a frame is exact."""
        values = self.values[metric]
        return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values) / len(values)

    def in_windows(self, metric: str) -> list[tuple[float | None, ...]]:
        """Return the values of each window, one for each frame; None for the first if it compares neighbours."""
        values, size = self.values.get(metric, ()), self.num_frames // self.windows
        count = len(values) // self.windows
        return [(None,) * (size - count) + values[n * count : (n + 1) * count] for n in range(self.windows)]

    def harmonic_mean(self, metric: str) -> float:
        """Return the harmonic mean over the frames as libvmaf pools them: of the numbers plus 1, minus 1."""
        return statistics.harmonic_mean([value + 1 for value in self.values[metric]]) - 1

    @property
    def figures(self) -> str:
        """Return the means of the first metrics as text; the frames if no metric is of frames."""
        means = [f"{metric} {format_number(self.mean(metric), metric)}" for metric in list(self.values)[:4]]
        return ", ".join(means) or counted(self.num_frames, "frame")

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values: the fields, and `mean` for each metric."""
        values: dict[str, Any] = {"frames" if key == "num_frames" else key: value for key, value in vars(self).items()}
        harmonic = {metric: self.harmonic_mean(metric) for metric in WITH_HARMONIC_MEAN if metric in self.values}
        pooled = {"mean": self.means} | ({"harmonic_mean": harmonic} if harmonic else {})
        json: dict[str, Any] = plain(values | pooled)
        return json


def join_windows(windows: Sequence[ClipScores], frames_left_out: int) -> ClipScores:
    """Return the scores of a clip from those of its windows, in order."""
    values = {name: tuple(chain.from_iterable(each.values[name] for each in windows)) for name in windows[0].values}
    num_frames = sum(each.num_frames for each in windows)
    return replace(
        windows[0], num_frames=num_frames, values=values, windows=len(windows), frames_left_out=frames_left_out
    )


@dataclass(frozen=True)
class Summary:
    """A metric over all clips."""

    mean: float
    low: float | None
    """The 95 % confidence interval of the mean over clips, within what the metric can be; None for sets, below two
    clips, or if the mean of a clip is inf."""
    high: float | None
    interval: str | None
    """How it was computed: bootstrap-t or student-t."""
    worst: str | None
    """The name of the clip with the worst mean; None for sets."""
    harmonic_mean: float | None = None
    """Of vmaf and vmaf_neg: the mean over the clips of the harmonic mean over their frames."""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; `harmonic_mean` only where there is one."""
        values: dict[str, Any] = plain(asdict(self))
        return {key: value for key, value in values.items() if key != "harmonic_mean" or value is not None}


@dataclass(frozen=True)
class Cost:
    """What a model costs at the size of the protocol. Speed and memory are None if they were not measured."""

    parameters: Whole
    compression: tuple[Whole, Whole]
    """Frames and pixels of a side for each position of the latent."""
    latent_channels: Whole
    bits_per_pixel: Amount
    """Bits of the latent for each pixel of the clip, in the dtype of the model."""
    encode_frames_per_second: Amount | None = None
    decode_frames_per_second: Amount | None = None
    encode_peak_memory: Whole | None = None
    """Bytes of the weights and of what a run adds, on the device, without the clip."""
    decode_peak_memory: Whole | None = None
    warm: bool | None = None
    """Whether speed was measured after a run for warm-up; not if that run took long enough to be the measurement."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that `vaectl eval` reports about one candidate."""

    metrics: tuple[MetricFacts, ...]
    clips: tuple[ClipScores, ...]
    set_values: dict[str, float]
    """Metric of sets -> its number."""
    protocol: dict[str, Any]
    """Everything needed to repeat the numbers: plain JSON values."""
    left_out: dict[str, str]
    """Clips that could not be compared: name -> reason, in one line."""
    seconds: float
    decode_seconds: float
    """Time spent decoding, summed over threads; overlaps the rest of the run."""
    peak_memory: int
    """Bytes."""
    stopped_before: int = 0
    """Number of pairs left when Ctrl-C stopped the run; 0 for a complete run."""
    failures: tuple[str, ...] = ()
    """What makes this a failed run, in one line each: clips that could not be compared, files not written."""
    csv: Path | None = None
    """The CSV file, if it was written."""
    markdown: Path | None = None
    """The table in Markdown, if it was written."""
    latex: Path | None = None
    """The table in LaTeX, if it was written."""
    report: Path | None = None
    """The report, if it was written."""
    name: str = ""
    """Of the candidate, where there are several."""
    temporal_compression: int | None = None
    """Frames for each frame of the latent; None if that is unknown."""
    cost: Cost | None = None
    """None if nothing is known about the model."""

    def __repr__(self) -> str:
        return f"Evaluation({len(self.clips)} clip{'s' * (len(self.clips) != 1)}: {_shown(self.means)})"

    @property
    def means(self) -> dict[str, float]:
        """The mean over the clips of each metric; the number of a metric of sets."""
        return {name: self.mean(name) for name in self.measured}

    @property
    def measured(self) -> list[str]:
        """The metrics that have a number; one of sets has none if the run was stopped."""
        return [metric.name for metric in self.metrics if metric.name in self.set_values or not metric.of_set]

    def mean(self, metric: str) -> float:
        """Return the mean over the clips (at least one); for a metric of sets, its number."""
        if metric in self.set_values:
            return self.set_values[metric]
        return sum(clip.mean(metric) for clip in self.clips) / len(self.clips)

    def worst_first(self, metric: str) -> Sequence[ClipScores]:
        """Return the clips, the one with the worst mean of `metric` first."""
        facts = next(m for m in self.metrics if m.name == metric)
        return sorted(self.clips, key=lambda clip: clip.mean(metric), reverse=facts.better == "lower")

    def summary(self, metric: str) -> Summary:
        """Summarize a metric over all clips (at least one); for a metric of sets, its number."""
        if metric in self.set_values:
            return Summary(self.mean(metric), None, None, None, None)
        means = tuple(clip.mean(metric) for clip in self.clips)
        low, high, method = confidence_interval(means, FACTS[metric].bounds) or (None, None, None)
        harmonic = None
        if metric in WITH_HARMONIC_MEAN:
            harmonic = statistics.fmean(clip.harmonic_mean(metric) for clip in self.clips)
        return Summary(self.mean(metric), low, high, method, self.worst_first(metric)[0].name, harmonic)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values: paths as strings, null for missing values, "inf" for the PSNR of exact frames."""
        summaries = {name: self.summary(name) for name in self.measured}
        positions = {m.name: by_position(self, m.name).as_json() for m in self.metrics if not m.of_set}
        facts = {m.name: {"unit": m.unit, "better": m.better, "of_set": m.of_set} for m in self.metrics}
        return {
            "name": self.name,
            "summary": {name: {**summary.as_json(), **facts[name]} for name, summary in summaries.items()},
            "protocol": self.protocol,
            "clips": [clip.as_json() for clip in self.clips],
            "positions": positions,
            "cost": plain(asdict(self.cost)) if self.cost else None,
            "left_out": self.left_out,
            "stopped_before": self.stopped_before,
            "failures": list(self.failures),
            "seconds": self.seconds,
            "decode_seconds": self.decode_seconds,
            "peak_memory": self.peak_memory,
            "temporal_compression": self.temporal_compression,
            "csv": plain(self.csv),
            "markdown": plain(self.markdown),
            "latex": plain(self.latex),
            "report": plain(self.report),
        }


def _shown(means: dict[str, float]) -> str:
    return ", ".join(f"{metric} {format_number(value, metric)}" for metric, value in means.items())


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: 1 clip, 3 clips."""
    return f"{count} {noun}{'s' * (count != 1)}"


def format_number(value: float, metric: str) -> str:
    """Format a value of a metric, with the same decimals for any value."""
    return f"{value:.{FACTS[metric].decimals}f}"


class Interval(NamedTuple):
    """A 95 % confidence interval, and how it was computed."""

    low: float
    high: float
    method: str


UNBOUNDED = (-math.inf, math.inf)


@lru_cache(maxsize=128)
def confidence_interval(values: tuple[float, ...], bounds: tuple[float, float] = UNBOUNDED) -> Interval | None:
    """Return the 95 % confidence interval of the mean; None below two values or if one is not finite.

    What is outside `bounds`, where the mean cannot be, is cut off; this changes no coverage.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    import numpy as np

    from vaectl.evaluation.statistics import interval_method, mean_intervals

    lows, highs = mean_intervals(np.array(values)[:, None])
    low, high = np.clip([lows[0], highs[0]], *bounds).tolist()
    return Interval(low, high, interval_method(len(values)))
