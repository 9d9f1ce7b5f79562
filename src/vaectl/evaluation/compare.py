"""`vaectl.compare` and the job behind `vaectl compare`: candidates that were measured in different runs.

Decides whether their numbers may be compared: the same protocol, and the same clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from vaectl.errors import UsageError, first_few, shown
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.outputs import check_outputs, outputs_of, write_outputs
from vaectl.evaluation.results import ClipScores, Evaluation, counted
from vaectl.evaluation.results_file import read_results
from vaectl.io.output_paths import identity
from vaectl.metrics import OF_FFMPEG
from vaectl.options.compare import CompareOptions
from vaectl.progress import Progress, Warnings

Result: TypeAlias = Evaluation | str | Path

OF_CANDIDATE = {"real_video_dir", "generated_video_dir", "model", "clips.originals", "clips.generated"}
"""Keys of the protocol that may differ between candidates."""
NAMES = {"name", "changed", "hash"}
"""Keys that name the protocol; its settings are compared instead, whether they came from a name or from options."""
SETTLED_BY_CLIPS = {"clips.subset_size"}
"""Keys that say which clips there are; the names of the clips are compared instead."""
OF_EARLIER_VERSIONS = {
    "clips.rgb_conversion": "accurate",
    "clips.frame_rate": "None",
    "clips.all_windows": "False",
}
"""Settings that earlier versions had without naming them."""
OF_MACHINE = {"versions", "metrics.device"} | {
    f"metrics.{metric}.{key}" for metric in OF_FFMPEG for key in ("ffmpeg", "ffmpeg_of", "libvmaf")
}
"""Keys that change digits at most."""


def compare(
    results: Mapping[str, Result] | Sequence[Result],
    *,
    all_pairs: bool = False,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Compare candidates that were measured in different runs under the same protocol.

    Args:
        results: results of `vaectl.evaluate`, or paths of files that `vaectl eval` wrote with `json`, which may hold
            several candidates. A mapping names the candidates; with several in a file, they are called name/candidate.
        all_pairs: compare every two candidates; by default each one with the first.
        allow_missing: leave out clips that not all candidates have. FVD, which depends on the set, is then left out.
        progress: receives warnings. By default they are Python warnings.

    Raises UsageError for a file that cannot be read, for protocols or clips that differ, and for equal names.
    """
    if isinstance(results, str | Path | Evaluation):
        raise UsageError("`results` is one result, not several", "give a list or a dictionary")
    given = list(results.items()) if isinstance(results, Mapping) else [("", result) for result in results]
    return _compared(given, all_pairs, allow_missing, progress or Warnings())


def run(options: CompareOptions, progress: Progress) -> tuple[Comparison, list[str]]:
    """Compare the files of `options`, and write the tables asked for. Raises as `compare`.

    Also returns why files could not be written, in one line each.
    """
    files = outputs_of(options)
    inputs = {identity(each.path) for each in options.results if each.path.exists()}
    check_outputs(files, inputs, options.overwrite)
    given = [(each.name, each.path) for each in options.results]
    return write_outputs(files, _compared(given, options.all_pairs, options.allow_missing, progress))


def _compared(
    given: Sequence[tuple[str, Result]], all_pairs: bool, allow_missing: bool, progress: Progress
) -> Comparison:
    evaluations = named([each for name, result in given for each in _read(name, result)])
    check_protocols(evaluations, progress)
    evaluations = with_the_same_clips(evaluations, allow_missing, progress)
    return Comparison(tuple(evaluations), all_pairs)


def _read(name: str, result: Result) -> list[tuple[Evaluation, str]]:
    """Return the candidates of a result, each with the name to use where its own is not unique."""
    if isinstance(result, Evaluation):
        return [(replace(result, name=name or result.name), "")]
    path = Path(result)
    evaluations = read_results(path)
    if len(evaluations) > 1:
        if name:
            return [(replace(each, name=f"{name}/{each.name}"), "") for each in evaluations]
        return [(each, f"{path.stem}/{each.name}") for each in evaluations]
    return [(replace(evaluations[0], name=name or evaluations[0].name or path.stem), "" if name else path.stem)]


def named(evaluations: Sequence[tuple[Evaluation, str]]) -> list[Evaluation]:
    """Give candidates with equal names their other name. Raises UsageError without candidates, and for equal names."""
    if not evaluations:
        raise UsageError("there are no results to compare", "give at least one")
    times = Counter(each.name for each, _ in evaluations)
    chosen = [replace(each, name=other) if other and times[each.name] > 1 else each for each, other in evaluations]
    for name, count in Counter(each.name for each in chosen).items():
        if not name and len(chosen) > 1:
            raise UsageError("a candidate has no name", "give names, as in name=result")
        if count > 1:
            raise UsageError(f"{count} candidates are called {shown(name)}", "name each, as in name=result")
    return chosen


def check_protocols(evaluations: Sequence[Evaluation], progress: Progress) -> None:
    """Raise UsageError with all differences to the first candidate that matter; warn of the others."""
    first, *others = evaluations
    for other in others:
        unshared = {metric.name for metric in first.metrics} ^ {metric.name for metric in other.metrics}
        a, b = settings(first, unshared), settings(other, unshared)
        differing = [
            f"{key} {a.get(key, 'none')} and {b.get(key, 'none')}" for key in a | b if a.get(key) != b.get(key)
        ]
        names = f"{shown(first.name)} and {shown(other.name)}"
        if differing:
            raise UsageError(
                f"{names} were measured under different protocols: {'; '.join(differing)}",
                "measure them with the same options",
            )
        a, b = machine(first), machine(other)
        if changed := [f"{key} {a[key]} and {b[key]}" for key in a if key in b and a[key] != b[key]]:
            progress.warn(f"{names} were measured with different versions or devices: {'; '.join(changed)}")


def settings(evaluation: Evaluation, unshared: set[str]) -> dict[str, str]:
    """Return the settings that candidates must share: dotted key -> value.

    Those of the metrics `unshared` do not count, and a file counts by its SHA-256.
    """
    ignored = OF_CANDIDATE | NAMES | SETTLED_BY_CLIPS | OF_MACHINE | {f"metrics.{name}" for name in unshared}
    leaves = _leaves(evaluation.protocol, ignored)
    found = {shown(key): shown(value.partition(", SHA-256 ")[2] or value) for key, value in leaves}
    return found if isinstance(evaluation.protocol["clips"], str) else OF_EARLIER_VERSIONS | found


def machine(evaluation: Evaluation) -> dict[str, str]:
    """Return the versions and the device."""
    protocol = {key: evaluation.protocol[key] for key in ("versions", "metrics")}
    return {
        shown(key.rpartition(".")[2]): shown(value)
        for key, value in _leaves(protocol, set())
        if key.startswith("versions.") or key in OF_MACHINE
    }


def _leaves(value: Any, ignored: set[str], key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the text of each value inside dictionaries; `ignored` names keys to skip."""
    if key in ignored:
        return
    if not isinstance(value, dict):
        yield key, str(value)
        return
    for name, each in value.items():
        yield from _leaves(each, ignored, f"{key}.{name}" if key else str(name))


def with_the_same_clips(evaluations: Sequence[Evaluation], allow_missing: bool, progress: Progress) -> list[Evaluation]:
    """Return the candidates with the clips that all of them have, in the order of the first one.

    Raises UsageError if clips are missing, unless `allow_missing`, if none is left, and if the frames of a clip differ.
    """
    clips = [{clip.name: clip for clip in evaluation.clips} for evaluation in evaluations]
    shared = [name for name in clips[0] if all(name in each for each in clips)]
    everything = {name for each in clips for name in each}
    missing = {
        evaluation.name: [name for name in sorted(everything) if name not in each]
        for evaluation, each in zip(evaluations, clips, strict=True)
    }
    for candidate, names in missing.items():
        if names and not (allow_missing and shared):
            raise UsageError(
                f"{shown(candidate)} lacks {len(names)} of {len(everything)} clips: {first_few(names)}",
                "pass `allow_missing` to compare the clips that all candidates have" if shared else "",
            )
    for name in shared:
        shapes = {_shape(each[name]) for each in clips}
        if len(shapes) > 1:
            raise UsageError(
                f"{shown(name)} was measured at different sizes: {' and '.join(sorted(shapes))}",
                "measure it with the same options",
            )
    if left_out := len(everything) - len(shared):
        progress.warn(f"left out: {left_out} of {len(everything)} clips, which not all candidates have")
    return [
        _restricted(evaluation, [each[name] for name in shared], progress)
        for evaluation, each in zip(evaluations, clips, strict=True)
    ]


def _shape(clip: ClipScores) -> str:
    return f"{counted(clip.num_frames, 'frame')} of {clip.width}x{clip.height}"


def _restricted(evaluation: Evaluation, clips: Sequence[ClipScores], progress: Progress) -> Evaluation:
    """Return the evaluation with these clips; metrics of sets go if they are fewer. Raises UsageError if all go."""
    of_sets = [metric.name for metric in evaluation.metrics if metric.of_set]
    if len(clips) == len(evaluation.clips) or not of_sets:
        return replace(evaluation, clips=tuple(clips))
    if len(of_sets) == len(evaluation.metrics):
        raise UsageError(
            f"{shown(evaluation.name)}: has only {', '.join(of_sets)}, which is of all its clips",
            "measure the same clips for all candidates",
        )
    progress.warn(f"{shown(evaluation.name)}: {', '.join(of_sets)} left out, because it is of all its clips")
    metrics = tuple(metric for metric in evaluation.metrics if not metric.of_set)
    return replace(evaluation, clips=tuple(clips), metrics=metrics, set_values={})
