"""The job behind `vaectl eval`: decode each clip once and compute all metrics in one pass.

Joins `video`, `models` and `metrics`. Threads decode clips in advance, and a clip is freed once it is measured, so
memory does not grow with the number of clips. `pairs` decides which clips belong together, `frames` how they are read,
and the caller how the numbers are shown.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

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
from vaectl.evaluation import outputs
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.cost import known_costs, measure_costs
from vaectl.evaluation.frames import how_to_read
from vaectl.evaluation.manifest import Manifest
from vaectl.evaluation.pairs import Grouping, find_pairs, group_pairs
from vaectl.evaluation.pipeline import Metrics, PartialResults, compare_all
from vaectl.evaluation.prepared import manifest_of
from vaectl.evaluation.provenance import provenance
from vaectl.evaluation.report import ReportBuilder
from vaectl.evaluation.results import Cost, Evaluation, MetricFacts
from vaectl.io.output_paths import identity
from vaectl.metrics import MetricSettings, build
from vaectl.metrics.metric import SetMetric
from vaectl.models.device import choose_device
from vaectl.models.vae import AnyVAE
from vaectl.options import EvalOptions
from vaectl.progress import Progress, Silent
from vaectl.video.sequence import files_of

REASONS = 10
"""Maximum number of further reasons shown where no clip can be compared."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with the results so far."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self.comparison = comparison


def evaluate(options: EvalOptions, progress: Progress) -> Comparison:
    """Compare the reconstructions of one candidate or several with their originals; write the files asked for.

    The originals are read once. Every evaluation lists the failures of the run. Under torchrun the ranks share the
    clips; at the end rank 0 has all numbers, the other ranks their own. Raises UsageError for invalid requests,
    VaectlError if no clip can be compared, and `Interrupted` on Ctrl-C after the first clips.
    """
    begun, stopped = time.monotonic(), False
    candidates = options.candidates
    with process_group(progress, options.rendezvous_timeout, options.device):
        progress = progress if is_main() else Silent()
        manifests = [None if each.is_model else manifest_of(each.path) for each in candidates]
        reading = how_to_read(options, manifests, progress)
        num_frames = reading.protocol.num_frames
        grouping = find_groups(options, manifests, stills=num_frames == 1)
        check_partners(grouping, options, progress)
        if is_main():
            check_outputs(grouping, options)
            warn_of_same_files(grouping, progress)

        device = choose_device(device_of_rank(options.device))
        metrics, facts = build_metrics(options, device, progress, None if num_frames == "all" else num_frames)
        if not reading.protocol.all_windows:
            check_set_sizes(grouping, facts, options)
        models = open_models(options, device, progress)
        wait_for_others()

        mine, results = grouping.groups[rank() :: world_size()], PartialResults()
        report = ReportBuilder(facts, [each.name for each in candidates]) if options.report else None
        progress.start_clips(len(mine), share=share())
        try:
            compare_all(mine, reading, models, metrics, report, options, results, progress)
            results = merge_ranks(results, grouping, metrics)
            if report:
                report.gather()
        except KeyboardInterrupt:
            if not results.clips or not is_main():
                raise
            stopped = True

        compared = len(results.clips) + len(results.left_out)
        left_out = grouping.missing | results.left_out
        if not results.clips and is_main():
            raise VaectlError(first_reason(left_out, progress))
        set_values, failures = ({}, []) if stopped else values_of_sets(metrics)
        seconds, peak_memory = time.monotonic() - begun, memory.peak(device)
        costs: list[Cost | None] = [None] * len(candidates)
        if is_main():
            first, limits = results.clips[0][0], Limits.of(options)
            size = first.num_frames // first.windows, first.height, first.width
            costs = known_costs(models, manifests, size)
            if not stopped and (len(models) > 1 if options.cost is None else options.cost):
                try:
                    costs = measure_costs(models, costs, size, limits, progress)
                except KeyboardInterrupt:
                    stopped = True
        evaluations = tuple(
            Evaluation(
                name=candidate.name,
                metrics=facts,
                clips=tuple(scores[number] for scores in results.clips),
                set_values={name: values[number] for name, values in set_values.items()},
                protocol=provenance(options, candidate, reading, manifests[number], str(device)),
                left_out=left_out,
                seconds=seconds,
                decode_seconds=results.decode_seconds,
                peak_memory=peak_memory,
                stopped_before=len(grouping.groups) - compared if stopped else 0,
                failures=(*(() if options.allow_missing else kinds_first(left_out)), *failures),
                temporal_compression=temporal_compression(models.get(number), manifests[number]),
                cost=costs[number],
            )
            for number, candidate in enumerate(candidates)
        )
        comparison = Comparison(evaluations, options.all_pairs)
        if is_main():
            comparison, _ = outputs.write_outputs(
                outputs.outputs_of(options), comparison, report.write if report else None
            )
    if stopped:
        raise Interrupted(comparison)
    return comparison


def open_models(options: EvalOptions, device: torch.device, progress: Progress) -> dict[int, AnyVAE]:
    """Load the candidates that are models: number of the candidate -> model. Raises as `open_model` does."""
    limits, dtype, weights = Limits.of(options), options.model_dtype, options.weights
    return {
        number: open_model(each.path, str(device), dtype, limits, progress=progress, weights=weights)
        for number, each in enumerate(options.candidates)
        if each.is_model
    }


def find_groups(options: EvalOptions, manifests: Sequence[Manifest | None], stills: bool) -> Grouping:
    """Return each original with its reconstructions, one by each candidate. Raises UsageError as `find_pairs` does."""
    real, candidates = options.real_video_dir, options.candidates
    pairings = [
        find_pairs(real, None if each.is_model else each.path, manifest, options.subset_size, stills)
        for each, manifest in zip(candidates, manifests, strict=True)
    ]
    return group_pairs(pairings, [each.path for each in candidates])


def build_metrics(
    options: EvalOptions, device: torch.device, progress: Progress, num_frames: int | None
) -> tuple[Metrics, tuple[MetricFacts, ...]]:
    """Build the metrics for clips of `num_frames` (None: any number) on `device`, and the facts about them.

    Raises as `vaectl.metrics.build` does.
    """
    settings = MetricSettings(
        options.lpips_net, options.lpips_weights, options.fvd_detector, options.vmaf_model, progress, num_frames
    )
    metrics = build(options.metric, settings, device)
    return metrics, tuple(MetricFacts(name, m.unit, m.better, isinstance(m, SetMetric)) for name, m in metrics.items())


def temporal_compression(model: AnyVAE | None, manifest: Manifest | None) -> int | None:
    """Return the frames for each latent frame of what made the generated clips; None if that is unknown."""
    if model:
        return int(model.config.time_compression)
    return manifest.model.temporal_compression if manifest else None


# Checks before anything is decoded


def check_partners(grouping: Grouping, options: EvalOptions, progress: Progress) -> None:
    """Raise UsageError for clips without a partner, unless `allow_missing` is set."""
    if grouping.missing and not options.allow_missing:
        raise UsageError(first_reason(grouping.missing, progress), "pass `allow_missing` to leave them out")


def check_set_sizes(grouping: Grouping, facts: Sequence[MetricFacts], options: EvalOptions) -> None:
    """Raise UsageError if a metric of sets has fewer than 2 clips."""
    sets = [metric.name for metric in facts if metric.of_set]
    if sets and len(grouping.groups) < 2:
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


def check_outputs(grouping: Grouping, options: EvalOptions) -> None:
    """Raise UsageError if an output file is an input, exists without `overwrite`, or cannot be written."""
    paths = [
        file for group in grouping.groups for path in (group.real, *group.generated) if path for file in files_of(path)
    ]
    outputs.check_outputs(
        outputs.outputs_of(options), {identity(path) for path in paths if path.exists()}, options.overwrite
    )


def warn_of_same_files(grouping: Grouping, progress: Progress) -> None:
    """Warn if a reconstruction is the same file as its original, through links or not."""
    for paths in zip(*(group.generated for group in grouping.groups), strict=True):
        pairs = [(group.real, path) for group, path in zip(grouping.groups, paths, strict=True) if path]
        same = [path for real, path in pairs if real.exists() and path.exists() and real.samefile(path)]
        if same:
            progress.warn(
                f"{same[0]}: is the same file as its original; this holds for {len(same)} of {len(pairs)} pairs, and"
                " their numbers say nothing"
            )


# After the last clip


def merge_ranks(results: PartialResults, grouping: Grouping, metrics: Metrics) -> PartialResults:
    """Return the results of all ranks, in the order of the groups, on rank 0; on other ranks their own.

    On rank 0 the metrics of sets merge the state of the other ranks.
    """
    sets = {name: metric for name, metric in metrics.items() if isinstance(metric, SetMetric)}
    gathered = gather((results, {name: metric.state() for name, metric in sets.items()}))
    for _, states in gathered[1:]:
        for name, metric in sets.items():
            metric.merge(states[name])
    if len(gathered) < 2:
        return results
    order = {group.name: place for place, group in enumerate(grouping.groups)}
    return PartialResults(
        sorted((scores for part, _ in gathered for scores in part.clips), key=lambda scores: order[scores[0].name]),
        {name: reason for part, _ in gathered for name, reason in part.left_out.items()},
        sum(part.decode_seconds for part, _ in gathered),
    )


def values_of_sets(metrics: Metrics) -> tuple[dict[str, list[float]], list[str]]:
    """Return the values of each metric of sets, one for each candidate, and one line for each that has none."""
    values, failures = {}, []
    for name, metric in metrics.items():
        if isinstance(metric, SetMetric):
            try:
                values[name] = metric.values()
            except VaectlError as error:
                failures.append(str(error))
    return values, failures
