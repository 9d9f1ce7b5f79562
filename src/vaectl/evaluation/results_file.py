"""Read the JSON files that `vaectl eval` wrote, of this version and of earlier ones. Nothing in them is trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

import vaectl
from vaectl.errors import UsageError, shown
from vaectl.evaluation.results import ClipScores, Cost, Evaluation, MetricFacts
from vaectl.io.parsing import read_json

MOST_BYTES = 2**30
"""A number takes about 20 bytes: 33 frames, 5 metrics and 300,000 clips."""
REMEDY = "give a file that vaectl eval wrote with `json`"


@dataclass(frozen=True)
class StoredMetric:
    """An entry of `summary`: the facts of a metric, and its number."""

    unit: str
    better: Literal["higher", "lower"]
    of_set: bool
    mean: float | None


@dataclass(frozen=True)
class StoredClip:
    """An entry of `clips`."""

    name: str
    real: Path
    generated: Path | None
    frames: int
    width: int
    height: int
    values: dict[str, tuple[float, ...]]
    windows: Annotated[int, Field(ge=1)] = 1
    frames_left_out: int = 0


@dataclass(frozen=True)
class StoredFrames:
    """The entry `clips` of the protocol."""

    num_frames: int | Literal["all"]
    sample_rate: int
    resize: str
    crop: str
    frame_rate: Fraction | None = None


@dataclass(frozen=True)
class StoredProtocol:
    """What is needed of the protocol."""

    clips: StoredFrames | str
    metrics: dict[str, Any]
    versions: dict[str, str]
    model: dict[str, Any] | None = None
    name: str | None = None
    changed: tuple[str, ...] = ()
    hash: str = ""


@dataclass(frozen=True)
class StoredEvaluation:
    """The result of one candidate. Unknown keys, which later versions may add, are ignored."""

    summary: dict[str, StoredMetric]
    protocol: dict[str, Any]
    clips: tuple[StoredClip, ...]
    left_out: dict[str, str]
    seconds: float
    decode_seconds: float
    peak_memory: int
    stopped_before: int = 0
    failures: tuple[str, ...] = ()
    name: str = ""
    temporal_compression: int | None = None
    cost: Cost | None = None


def read_results(path: Path) -> list[Evaluation]:
    """Read the result of one candidate or of several; `name` is empty where the file has none.

    Raises UsageError if the file cannot be read, or is no result of eval.
    """
    values = read_json(path, MOST_BYTES)
    entries = values.get("candidates") if isinstance(values, dict) and "candidates" in values else [values]
    if not isinstance(entries, list) or not entries:
        raise _refused(path, "candidates: should be a list", values)
    return [_evaluation(path, entry) for entry in entries]


def _evaluation(path: Path, values: object) -> Evaluation:
    try:
        stored = TypeAdapter(StoredEvaluation).validate_python(values)
        TypeAdapter(StoredProtocol).validate_python(stored.protocol)
        _check(stored)
    except ValidationError as error:
        first = error.errors()[0]
        place = shown(".".join(map(str, first["loc"])))
        reason = f"no {place}" if first["type"] == "missing" else f"{place}: {first['msg'].lower()}".removeprefix(": ")
        raise _refused(path, reason, values) from None
    except ValueError as error:
        raise _refused(path, str(error), values) from None
    return Evaluation(
        metrics=tuple(MetricFacts(name, m.unit, m.better, m.of_set) for name, m in stored.summary.items()),
        clips=tuple(
            ClipScores(num_frames=clip.frames, **{key: each for key, each in vars(clip).items() if key != "frames"})
            for clip in stored.clips
        ),
        set_values={name: m.mean for name, m in stored.summary.items() if m.of_set and m.mean is not None},
        protocol=stored.protocol,
        left_out=stored.left_out,
        seconds=stored.seconds,
        decode_seconds=stored.decode_seconds,
        peak_memory=stored.peak_memory,
        stopped_before=stored.stopped_before,
        failures=stored.failures,
        name=stored.name,
        temporal_compression=stored.temporal_compression,
        cost=stored.cost,
    )


def _check(stored: StoredEvaluation) -> None:
    """Raise ValueError for numbers that do not belong together."""
    if not stored.clips:
        raise ValueError("clips: is empty")
    names = [clip.name for clip in stored.clips]
    if len(set(names)) < len(names):
        raise ValueError("clips: two have the same name")
    of_frames = {name for name, metric in stored.summary.items() if not metric.of_set}
    for clip in stored.clips:
        if clip.values.keys() != of_frames:
            raise ValueError(f"clips: {shown(clip.name)} lacks the metrics of the summary")
        if clip.frames % clip.windows or any(len(numbers) % clip.windows for numbers in clip.values.values()):
            raise ValueError(f"clips: {shown(clip.name)} has windows of different lengths")
        for metric, numbers in clip.values.items():
            if not 0 < len(numbers) <= clip.frames or any(map(math.isnan, numbers)):
                raise ValueError(f"clips: {shown(clip.name)} has no valid numbers of {shown(metric)}")


def _refused(path: Path, reason: str, values: object) -> UsageError:
    """Return the error for a file that cannot be understood; it names the version of vaectl that wrote it, if known."""
    protocol = values.get("protocol") if isinstance(values, dict) else None
    versions = protocol.get("versions") if isinstance(protocol, dict) else None
    writer = versions.get("vaectl") if isinstance(versions, dict) else None
    wrote = f"; vaectl {shown(writer)} wrote it, this is {vaectl.__version__}" if isinstance(writer, str) else ""
    return UsageError(f"{path}: is not a result of vaectl eval ({reason}{wrote})", REMEDY)
