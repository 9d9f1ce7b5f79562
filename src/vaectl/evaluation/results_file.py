"""Read the JSON files that `vaectl eval` wrote, of this version and of earlier ones. Nothing in them is trusted.

What passes here can be summarized, compared and written: numbers are what their metric can be, and as many as there are
frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

import vaectl
from vaectl.errors import UsageError, shown
from vaectl.evaluation.results import Amount, ClipScores, Cost, Evaluation, Whole
from vaectl.io.parsing import read_json
from vaectl.metrics import FACTS, OF_FFMPEG, WITH_HARMONIC_MEAN

MOST_BYTES = 2**30
"""A number takes about 20 bytes: 33 frames, 5 metrics and 300,000 clips."""
MOST = 1e9
"""No metric is larger, apart from inf for exact frames."""
ROUNDING = 1e-3
"""How far rounding can take a metric beyond its bounds, generously."""
DEEPEST = 20
"""Levels of lists and objects in a protocol; eval writes 4."""
REMEDY = "give a file that vaectl eval wrote with `json`"
OF_NEIGHBOURS = {"flicker"}
"""The metrics that compare neighbouring frames: one number less than frames in each window."""
SAID = {
    "dataclass_type": "input should be an object",
    "dict_type": "input should be an object",
    "tuple_type": "input should be a list",
    "path_type": "input should be a path",
    "string_pattern_mismatch": "input should be a rate, as in 30000/1001",
}
"""What pydantic says in words of Python, by the type of the error."""

Positive = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
Rate = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}(/[1-9][0-9]{0,17})?$")]


@dataclass(frozen=True)
class StoredMetric:
    """An entry of `summary`: the facts of a metric, which are not used (`FACTS`), and its number."""

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
    frames: Positive
    width: Positive
    height: Positive
    values: dict[str, tuple[float, ...]]
    windows: Positive = 1
    frames_left_out: Whole = 0


@dataclass(frozen=True)
class StoredFrames:
    """The entry `clips` of the protocol."""

    num_frames: Positive | Literal["all"]
    sample_rate: Positive
    resize: str
    crop: str
    frame_rate: Rate | None = None
    all_windows: Annotated[bool, Field(strict=True)] = False
    rgb_conversion: str = "accurate"


@dataclass(frozen=True)
class StoredModel:
    """The entry `model` of the protocol."""

    path: str | None = None
    weights: str | None = None
    dtype: str | None = None
    posterior: str | None = None


@dataclass(frozen=True)
class StoredName:
    """The entries of a protocol that has a name."""

    name: str
    changed: tuple[str, ...]
    hash: str


@dataclass(frozen=True)
class StoredProtocol:
    """What is needed of the protocol."""

    clips: StoredFrames | str
    metrics: dict[str, str | dict[str, Any]]
    versions: dict[str, str]
    model: StoredModel | None = None


@dataclass(frozen=True)
class StoredEvaluation:
    """The result of one candidate. Unknown keys, which later versions may add, are ignored."""

    summary: dict[str, StoredMetric]
    protocol: dict[str, Any]
    clips: tuple[StoredClip, ...]
    left_out: dict[str, str]
    seconds: Amount
    decode_seconds: Amount
    peak_memory: Whole
    stopped_before: Whole = 0
    failures: tuple[str, ...] = ()
    name: str = ""
    temporal_compression: Annotated[int, Field(ge=1, le=4096)] | None = None
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
        _check_protocol(stored)
        _check_clips(stored)
    except ValidationError as error:
        of_protocol = error.title in (StoredProtocol.__name__, StoredName.__name__)
        found = values["protocol"] if of_protocol and isinstance(values, dict) else values
        raise _refused(path, _said(error.errors()[0], found), values) from None
    except ValueError as error:
        raise _refused(path, str(error), values) from None
    return Evaluation(
        metrics=tuple(FACTS[name] for name in stored.summary),
        clips=tuple(
            ClipScores(num_frames=clip.frames, **{key: each for key, each in vars(clip).items() if key != "frames"})
            for clip in stored.clips
        ),
        set_values={name: m.mean for name, m in stored.summary.items() if FACTS[name].of_set and m.mean is not None},
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


def _check_protocol(stored: StoredEvaluation) -> None:
    """Raise ValueError for a protocol that cannot be stated."""
    protocol, metrics = stored.protocol, TypeAdapter(StoredProtocol).validate_python(stored.protocol).metrics
    if protocol.get("name") is not None:
        TypeAdapter(StoredName).validate_python(protocol)
    for name in stored.summary:
        if name not in FACTS:
            raise ValueError(f"summary: {shown(name)} is no metric of this version")
        needed = ("model", "libvmaf", "ffmpeg_of", "frames") if name in WITH_HARMONIC_MEAN else ("frames",)
        facts = metrics.get(name)
        if name in OF_FFMPEG and facts is not None and not (isinstance(facts, dict) and all(map(facts.get, needed))):
            raise ValueError(f"metrics.{name}: lacks one of {', '.join(needed)}")
    _check_values(protocol)


def _check_values(value: Any, depth: int = 0) -> None:
    """Raise ValueError for a number that JSON does not have, and for lists and objects that are nested too deeply."""
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("protocol: has a number that is not finite")
    if depth > DEEPEST:
        raise ValueError("protocol: is nested too deeply")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_values(each, depth + 1)


def _check_clips(stored: StoredEvaluation) -> None:
    """Raise ValueError for numbers that do not belong together, and for those that no metric can be."""
    if not stored.clips:
        raise ValueError("clips: is empty")
    names = [clip.name for clip in stored.clips]
    if len(set(names)) < len(names):
        raise ValueError("clips: two have the same name")
    for name, metric in stored.summary.items():
        if FACTS[name].of_set and metric.mean is not None and not _possible(name, [metric.mean]):
            raise ValueError(f"summary: {name} cannot be {metric.mean}")
    of_frames = {name for name in stored.summary if not FACTS[name].of_set}
    for clip in stored.clips:
        if clip.values.keys() != of_frames:
            raise ValueError(f"clips: {shown(clip.name)} lacks the metrics of the summary")
        if clip.frames % clip.windows:
            raise ValueError(f"clips: {shown(clip.name)} has windows of different lengths")
        for name, numbers in clip.values.items():
            count = clip.frames - clip.windows * (name in OF_NEIGHBOURS)
            if not numbers or len(numbers) != count or not _possible(name, numbers):
                raise ValueError(f"clips: {shown(clip.name)} has no valid numbers of {name}")


def _possible(metric: str, numbers: Sequence[float]) -> bool:
    """Whether a metric can be these numbers, apart from rounding errors. Only a PSNR can be inf."""
    least, most = FACTS[metric].bounds
    exact = most == inf and FACTS[metric].better == "higher"
    least, most = max(least, -MOST) - ROUNDING, min(most, MOST) + ROUNDING
    return all(least <= number <= most or (exact and number == inf) for number in numbers)


def _said(error: ErrorDetails, values: object) -> str:
    """Return a problem that pydantic found in `values` in words: the place, without pydantic's own names, and why."""

    def place() -> Iterator[str]:
        found = values
        for part in error["loc"]:
            if isinstance(found, dict) and part in found:
                found = found[str(part)]
            elif isinstance(found, list) and isinstance(part, int) and part < len(found):
                found = found[part]
            elif error["type"] != "missing" or part != error["loc"][-1]:
                continue
            yield str(part)

    where, why = shown(".".join(place())), SAID.get(error["type"], error["msg"].lower())
    if error["type"] == "missing":
        return f"no {where}"
    return f"{where}: {why}" if where else why


def _refused(path: Path, reason: str, values: object) -> UsageError:
    """Return the error for a file that cannot be understood; it names the version of vaectl that wrote it, if known."""
    protocol = values.get("protocol") if isinstance(values, dict) else None
    versions = protocol.get("versions") if isinstance(protocol, dict) else None
    writer = versions.get("vaectl") if isinstance(versions, dict) else None
    wrote = f"; vaectl {shown(writer)} wrote it, this is {vaectl.__version__}" if isinstance(writer, str) else ""
    return UsageError(f"{path}: is not a result of vaectl eval ({reason}{wrote})", REMEDY)
