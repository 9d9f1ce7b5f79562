"""The job behind `vaectl eval`: decode each pair of clips once and compute all metrics in one pass.

Joins `video`, `models` and `metrics`. Threads decode clips in advance, and a clip is freed once it is measured, so
memory does not grow with the number of clips. `pairs` decides which clips belong together, `frames` how they are read,
and the caller how the numbers are shown.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from vaectl import memory
from vaectl.distributed import device_of_rank, gather, is_main, process_group, rank, wait_for_others, world_size
from vaectl.engine import Limits, open_model
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.frames import how_to_read
from vaectl.evaluation.manifest import read_manifest
from vaectl.evaluation.pairs import Pairing, find_pairs
from vaectl.evaluation.pipeline import Metrics, PartialResults, compare_all
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
from vaectl.options.eval import BUILTIN
from vaectl.progress import Progress, Silent


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
        manifest = read_manifest(options.generated_video_dir) if options.generated_video_dir else None
        reading = how_to_read(options, manifest, progress)
        stills = reading.protocol.num_frames == 1
        pairing = find_pairs(options.real_video_dir, options.generated_video_dir, manifest, options.subset_size, stills)
        check_partners(pairing, options)
        if is_main():
            check_outputs(pairing, options)

        device = choose_device(device_of_rank(options.device))
        settings = MetricSettings(options.lpips_net, options.lpips_weights, options.fvd_detector, progress)
        metrics = build(options.metric, settings, device)
        facts = tuple(MetricFacts(name, m.unit, m.better, isinstance(m, SetMetric)) for name, m in metrics.items())
        check_set_sizes(pairing, facts, options)
        model = None
        if options.model:
            path = None if options.model == BUILTIN else options.model
            limits = Limits.of(options)
            model = open_model(path, str(device), options.dtype, limits, progress=progress, weights=options.weights)
        wait_for_others()

        mine, results = pairing.pairs[rank() :: world_size()], PartialResults()
        report = ReportBuilder(facts) if options.report else None
        progress.start("1 clip" if len(mine) == 1 else f"{len(mine)} clips", len(mine) * reading.protocol.num_frames)
        try:
            compare_all(mine, reading, model, metrics, report, options, results, progress)
            results = merge_ranks(results, pairing, metrics)
            if report:
                report.gather()
        except KeyboardInterrupt:
            if not results.clips or not is_main():
                raise
            stopped = True
        finally:
            progress.finish()

        compared = len(results.clips) + len(results.left_out)
        left_out = pairing.missing | results.left_out
        if not results.clips and is_main():
            raise VaectlError(first_reasons(left_out))
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
            failures=(*(() if options.allow_missing else left_out.values()), *failures),
        )
        if is_main():
            failures = write(evaluation, report, options)
            evaluation = replace(evaluation, failures=(*evaluation.failures, *failures))
    if stopped:
        raise Interrupted(evaluation)
    return evaluation


# Checks before anything is decoded


def check_partners(pairing: Pairing, options: EvalOptions) -> None:
    """Raise UsageError for clips without a partner, unless `allow_missing` is set."""
    if pairing.missing and not options.allow_missing:
        raise UsageError(first_reasons(pairing.missing), "pass `allow_missing` to leave them out")


def check_set_sizes(pairing: Pairing, facts: Sequence[MetricFacts], options: EvalOptions) -> None:
    """Raise UsageError if a metric of sets has fewer than 2 clips."""
    sets = [metric.name for metric in facts if metric.of_set]
    if sets and len(pairing.pairs) < 2:
        raise UsageError(
            f"{options.real_video_dir}: {', '.join(sets)} needs at least 2 clips, not 1", "give more, or leave it out"
        )


def first_reasons(reasons: Mapping[str, str]) -> str:
    """Return one line: the first reason, and the names of the next clips that cannot be compared."""
    first, *others = reasons
    if not others:
        return reasons[first]
    more = "" if len(others) <= 3 else f" and {len(others) - 3} more"
    return f"{reasons[first]}; also affected: {', '.join(others[:3])}{more}"


def check_outputs(pairing: Pairing, options: EvalOptions) -> None:
    """Raise UsageError if an output file is an input, exists without `overwrite`, or cannot be written."""
    paths = [path for pair in pairing.pairs for path in (pair.real, pair.generated) if path]
    read = {identity(path) for path in paths if path.exists()}
    for file in filter(None, (options.csv, options.report)):
        if file.exists() and identity(file) in read:
            raise UsageError(f"{file}: is an input of this run", "name another file")
        with suppress(_Leave), atomic_write(file, overwrite=options.overwrite):
            raise _Leave
    if options.csv is not None and options.csv == options.report:
        raise UsageError(f"{options.csv}: `csv` and `report` name the same file", "give each its own")


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
                values[name] = metric.value()
            except VaectlError as error:
                failures.append(str(error))
    return values, failures


def write(evaluation: Evaluation, report: ReportBuilder | None, options: EvalOptions) -> list[str]:
    """Write the CSV file and the report if asked for; return one line for each that could not be written."""
    failures = []
    for file, fill in (options.csv, write_csv), (options.report, report and report.write):
        try:
            if file and fill:
                fill(file, evaluation)
        except VaectlError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{file}: writing failed ({error.strerror}); free space or choose another place")
    return failures
