"""The job behind `vaectl eval`: decode each pair of clips once and compute all metrics in one pass.

Joins `video`, `models` and `metrics`. Threads decode clips in advance, and a clip is freed once it is measured, so
memory does not grow with the number of clips. `pairs` decides which clips belong together, `frames` how they are read,
and the caller how the numbers are shown.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from vaectl import memory
from vaectl.distributed import (
    device_of_rank,
    gather,
    is_main,
    process_group,
    rank,
    share,
    wait_for_others,
    world_size,
)
from vaectl.engine import Limits, open_model
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.frames import how_to_read
from vaectl.evaluation.pairs import Pairing, find_pairs
from vaectl.evaluation.pipeline import Metrics, PartialResults, compare_all
from vaectl.evaluation.prepared import manifest_of
from vaectl.evaluation.provenance import provenance
from vaectl.evaluation.report import ReportBuilder
from vaectl.evaluation.results import Evaluation, MetricFacts
from vaectl.evaluation.tables import write_csv
from vaectl.io.atomic_write import atomic_write
from vaectl.io.output_paths import identity
from vaectl.metrics import MetricSettings, build
from vaectl.metrics.metric import SetMetric
from vaectl.models.device import choose_device
from vaectl.options import EvalOptions
from vaectl.progress import Progress, Silent
from vaectl.video.sequence import files_of

REASONS = 10
"""Maximum number of further reasons shown where no clip can be compared."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with the results so far."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__()
        self.evaluation = evaluation


def evaluate(options: EvalOptions, progress: Progress) -> Evaluation:
    """Compare reconstructions with their originals; write the CSV file and the report if `options` ask for them.

    The result lists failures. Under torchrun the ranks share the pairs; at the end rank 0 has all numbers, the other
    ranks their own. Raises UsageError for invalid requests, VaectlError if no pair can be compared, and `Interrupted`
    on Ctrl-C after the first clips.
    """
    begun, stopped = time.monotonic(), False
    with process_group(progress, options.rendezvous_timeout, options.device):
        progress = progress if is_main() else Silent()
        manifest = manifest_of(options.generated_video_dir) if options.generated_video_dir else None
        reading = how_to_read(options, manifest, progress)
        stills = reading.protocol.num_frames == 1
        pairing = find_pairs(options.real_video_dir, options.generated_video_dir, manifest, options.subset_size, stills)
        check_partners(pairing, options, progress)
        if is_main():
            check_outputs(pairing, options)
            warn_of_same_files(pairing, progress)

        device = choose_device(device_of_rank(options.device))
        metrics, facts = build_metrics(options, device, progress)
        check_set_sizes(pairing, facts, options)
        model = None
        if options.model:
            limits, dtype = Limits.of(options), options.model_dtype
            model = open_model(options.model, str(device), dtype, limits, progress=progress, weights=options.weights)
        wait_for_others()

        mine, results = pairing.pairs[rank() :: world_size()], PartialResults()
        report = ReportBuilder(facts) if options.report else None
        progress.start_clips(len(mine), share=share())
        try:
            compare_all(mine, reading, model, metrics, report, options, results, progress)
            results = merge_ranks(results, pairing, metrics)
            if report:
                report.gather()
        except KeyboardInterrupt:
            if not results.clips or not is_main():
                raise
            stopped = True

        compared = len(results.clips) + len(results.left_out)
        left_out = pairing.missing | results.left_out
        if not results.clips and is_main():
            raise VaectlError(first_reason(left_out, progress))
        set_values, failures = ({}, []) if stopped else values_of_sets(metrics)
        evaluation = Evaluation(
            metrics=facts,
            clips=tuple(results.clips),
            set_values=set_values,
            protocol=provenance(options, reading, manifest, str(device)),
            left_out=left_out,
            seconds=time.monotonic() - begun,
            decode_seconds=results.decode_seconds,
            peak_memory=memory.peak(device),
            stopped_before=len(pairing.pairs) - compared if stopped else 0,
            failures=(*(() if options.allow_missing else kinds_first(left_out)), *failures),
        )
        if is_main():
            evaluation = write(evaluation, report, options)
    if stopped:
        raise Interrupted(evaluation)
    return evaluation


def build_metrics(
    options: EvalOptions, device: torch.device, progress: Progress
) -> tuple[Metrics, tuple[MetricFacts, ...]]:
    """Build the metrics on `device`, and the facts about them. Raises as `vaectl.metrics.build` does."""
    settings = MetricSettings(
        options.lpips_net, options.lpips_weights, options.fvd_detector, options.vmaf_model, progress
    )
    metrics = build(options.metric, settings, device)
    return metrics, tuple(MetricFacts(name, m.unit, m.better, isinstance(m, SetMetric)) for name, m in metrics.items())


# Checks before anything is decoded


def check_partners(pairing: Pairing, options: EvalOptions, progress: Progress) -> None:
    """Raise UsageError for clips without a partner, unless `allow_missing` is set."""
    if pairing.missing and not options.allow_missing:
        raise UsageError(first_reason(pairing.missing, progress), "pass `allow_missing` to leave them out")


def check_set_sizes(pairing: Pairing, facts: Sequence[MetricFacts], options: EvalOptions) -> None:
    """Raise UsageError if a metric of sets has fewer than 2 clips."""
    sets = [metric.name for metric in facts if metric.of_set]
    if sets and len(pairing.pairs) < 2:
        raise UsageError(
            f"{options.real_video_dir}: {', '.join(sets)} needs at least 2 clips, not 1", "give more, or leave it out"
        )


def first_reason(reasons: Mapping[str, str], progress: Progress) -> str:
    """Return the first kind of reason, in one line with the names of its clips; warn of the other kinds."""
    first, *others = [_one_line(kind) for kind in by_kind(reasons)]
    for line in others[:REASONS]:
        progress.warn(line)
    if len(others) > REASONS:
        progress.warn(f"{len(others) - REASONS} more reasons like these")
    return first


def by_kind(reasons: Mapping[str, str]) -> list[dict[str, str]]:
    """Group reasons, which begin with a path, by what they say without paths and numbers."""
    kinds: dict[str, dict[str, str]] = {}
    for name, reason in reasons.items():
        kinds.setdefault(re.sub(r"\S*/\S*|\d+", "", reason.partition(": ")[2]), {})[name] = reason
    return list(kinds.values())


def kinds_first(reasons: Mapping[str, str]) -> list[str]:
    """Return the reasons, one of each kind first, because the command line shows only some of them."""
    kinds = [list(kind.values()) for kind in by_kind(reasons)]
    return [kind[0] for kind in kinds] + [reason for kind in kinds for reason in kind[1:]]


def _one_line(reasons: Mapping[str, str]) -> str:
    first, *others = reasons
    if not others:
        return reasons[first]
    more = "" if len(others) <= 3 else f" and {len(others) - 3} more"
    return f"{reasons[first]}; also affected: {', '.join(others[:3])}{more}"


def check_outputs(pairing: Pairing, options: EvalOptions) -> None:
    """Raise UsageError if an output file is an input, exists without `overwrite`, or cannot be written."""
    paths = [file for pair in pairing.pairs for path in (pair.real, pair.generated) if path for file in files_of(path)]
    read = {identity(path) for path in paths if path.exists()}
    for file, what, suffixes in (
        (options.csv, "`csv` writes a CSV file", (".csv", ".txt")),
        (options.report, "`report` writes a web page", (".html", ".htm")),
    ):
        if file is None:
            continue
        if file.exists() and identity(file) in read:
            raise UsageError(f"{file}: is an input of this run", "name another file")
        if file.suffix and file.suffix.lower() not in suffixes and not file.is_dir():
            raise UsageError(f"{file}: {what}, not {file.suffix}", f"name it {file.stem}{suffixes[0]}")
        with suppress(_Leave), atomic_write(file, overwrite=options.overwrite):
            raise _Leave
    if options.csv and options.report and options.csv.resolve() == options.report.resolve():
        raise UsageError(f"{options.csv}: `csv` and `report` name the same file", "give each its own")


def warn_of_same_files(pairing: Pairing, progress: Progress) -> None:
    """Warn if both clips of a pair are the same file, through links or not."""
    same = [
        pair
        for pair in pairing.pairs
        if pair.generated and pair.real.exists() and pair.generated.exists() and pair.real.samefile(pair.generated)
    ]
    if same:
        progress.warn(
            f"{same[0].generated}: is the same file as its original; this holds for {len(same)} of {len(pairing.pairs)}"
            " pairs, and their numbers say nothing"
        )


class _Leave(Exception):  # noqa: N818  # not an error
    """Leaves a block early."""


# After the last clip


def merge_ranks(results: PartialResults, pairing: Pairing, metrics: Metrics) -> PartialResults:
    """Return the results of all ranks, in the order of the pairs, on rank 0; on other ranks their own.

    On rank 0 the metrics of sets merge the state of the other ranks.
    """
    sets = {name: metric for name, metric in metrics.items() if isinstance(metric, SetMetric)}
    gathered = gather((results, {name: metric.state() for name, metric in sets.items()}))
    for _, states in gathered[1:]:
        for name, metric in sets.items():
            metric.merge(states[name])
    if len(gathered) < 2:
        return results
    order = {pair.name: place for place, pair in enumerate(pairing.pairs)}
    return PartialResults(
        sorted((clip for part, _ in gathered for clip in part.clips), key=lambda clip: order[clip.name]),
        {name: reason for part, _ in gathered for name, reason in part.left_out.items()},
        sum(part.decode_seconds for part, _ in gathered),
    )


def values_of_sets(metrics: Metrics) -> tuple[dict[str, float], list[str]]:
    """Return the value of each metric of sets, and one line for each that has none."""
    values, failures = {}, []
    for name, metric in metrics.items():
        if isinstance(metric, SetMetric):
            try:
                (values[name],) = metric.values()
            except VaectlError as error:
                failures.append(str(error))
    return values, failures


def write(evaluation: Evaluation, report: ReportBuilder | None, options: EvalOptions) -> Evaluation:
    """Write the CSV file and the report if asked for; return the evaluation with their paths, or why one is missing."""
    written: dict[str, Path] = {}
    failures = list(evaluation.failures)
    for name, file, fill in ("csv", options.csv, write_csv), ("report", options.report, report and report.write):
        try:
            if file and fill:
                fill(file, evaluation)
                written[name] = file
        except VaectlError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{file}: writing failed ({error.strerror}); free space or choose another place")
    return replace(evaluation, failures=tuple(failures), csv=written.get("csv"), report=written.get("report"))
