"""The job behind `vaectl eval`: decode each clip once and compute all metrics in one pass.

Joins `video`, `models` and `metrics`. Threads decode clips in advance, and a clip is freed once it is measured, so
memory does not grow with the number of clips. `pairs` decides which clips belong together, `frames` how they are read,
and the caller how the numbers are shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from vaectl.errors import BUG, VaectlError, unforeseen
from vaectl.evaluation import outputs
from vaectl.evaluation.checks import (
    check_frame_size,
    check_outputs,
    check_partners,
    check_set_sizes,
    first_reason,
    kinds_first,
    warn_of_same_files,
)
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.frames import Reading, how_to_read
from vaectl.evaluation.manifest import Manifest
from vaectl.evaluation.outputs import Interrupted
from vaectl.evaluation.pairs import Grouping, find_pairs, group_pairs
from vaectl.evaluation.pipeline import Metrics, PartialResults, compare_all
from vaectl.evaluation.prepared import manifest_of
from vaectl.evaluation.provenance import provenance
from vaectl.evaluation.results import Cost, Evaluation
from vaectl.memory import Limits
from vaectl.metrics import FACTS, MetricFacts, MetricSettings, build
from vaectl.metrics.metric import SetMetric
from vaectl.models.device import choose_device
from vaectl.options import EvalOptions
from vaectl.options.candidates import Candidate
from vaectl.progress import Progress, Silent

if TYPE_CHECKING:
    from vaectl.evaluation.cost import Size
    from vaectl.evaluation.report import ReportBuilder
    from vaectl.models.vae import AnyVAE


@dataclass(frozen=True)
class Setup:
    """What is measured, and with what."""

    candidates: tuple[Candidate, ...]
    manifests: list[Manifest | None]
    """One for each candidate."""
    reading: Reading
    grouping: Grouping
    device: torch.device
    metrics: Metrics
    facts: tuple[MetricFacts, ...]
    models: dict[int, AnyVAE]
    """Number of the candidate -> model."""
    protocols: list[dict[str, Any]]
    """What is needed to repeat the numbers, for each candidate."""


@dataclass
class Totals:
    """What is known of all clips together, step by step, so that Ctrl-C loses only the rest."""

    set_values: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    costs: list[Cost | None] = field(default_factory=list)
    seconds: float = 0.0
    """Of the run without the measurement of costs, as the peak memory."""
    peak_memory: int = 0
    stopped: bool = False


def evaluate(options: EvalOptions, progress: Progress) -> Comparison:
    """Compare the reconstructions of one candidate or several with their originals; write the files asked for.

    The originals are read once. Every evaluation lists the failures of the run. Under torchrun the ranks share the
    clips; at the end rank 0 has all numbers, the other ranks their own. Raises UsageError for invalid requests,
    VaectlError if no clip can be compared, and `Interrupted` on Ctrl-C after the first clips.
    """
    begun = time.monotonic()
    with process_group(progress, options.rendezvous_timeout, options.device):
        progress = progress if is_main() else Silent()
        setup = set_up(options, progress)
        wait_for_others()
        mine, results, totals = setup.grouping.groups[rank() :: world_size()], PartialResults(), Totals()
        report = report_builder(setup) if options.report else None
        progress.start_clips(len(mine), share=share())
        try:
            compare_all(mine, setup.reading, setup.models, setup.metrics, report, options, results, progress)
            memory.return_freed()  # a small network has kept it for the next clip
            results = merge_ranks(results, setup.grouping, setup.metrics)
            if report:
                report.gather()
            if is_main() and not results.clips:
                raise VaectlError(first_reason(setup.grouping.missing | results.left_out, progress))
            add_totals(totals, setup, results, options, progress, begun)
        except KeyboardInterrupt:
            if not results.clips or not is_main():
                raise
            totals.stopped = True
        if not totals.seconds:
            totals.seconds, totals.peak_memory = time.monotonic() - begun, memory.peak(setup.device)
        comparison = Comparison(tuple(evaluations_of(setup, results, totals, options)), options.all_pairs)
        if is_main():
            files = outputs.outputs_of(options)
            try:
                comparison, _ = outputs.write_outputs(files, comparison, report.write if report else None)
            except Interrupted as stop:
                comparison, totals.stopped = stop.comparison, True
    if totals.stopped:
        raise Interrupted(comparison)
    return comparison


def set_up(options: EvalOptions, progress: Progress) -> Setup:
    """Find the clips, check the request, and load metrics and models. Decodes nothing. Raises as `evaluate` does."""
    candidates = options.candidates
    if any(each.is_model for each in candidates):
        import_module("vaectl.engine")  # before metrics and clips: it measures the memory of the process without them
    manifests = [None if each.is_model else manifest_of(each.path) for each in candidates]
    reading = how_to_read(options, manifests, progress)
    num_frames = reading.protocol.num_frames
    grouping = find_groups(options, manifests, stills=num_frames == 1)
    check_partners(grouping, options, progress)
    if is_main():
        check_outputs(grouping, options)
        warn_of_same_files(grouping, progress)
    if not reading.protocol.all_windows:
        check_set_sizes(grouping, options)
    device = choose_device(device_of_rank(options.device))
    metrics, facts = build_metrics(options, device, progress, None if num_frames == "all" else num_frames)
    check_frame_size(metrics, reading.protocol)
    models = open_models(options, device, progress)
    protocols = [
        provenance(options, candidate, reading, manifest, str(device))
        for candidate, manifest in zip(candidates, manifests, strict=True)
    ]
    return Setup(candidates, manifests, reading, grouping, device, metrics, facts, models, protocols)


def open_models(options: EvalOptions, device: torch.device, progress: Progress) -> dict[int, AnyVAE]:
    """Load the candidates that are models: number of the candidate -> model. Raises as `open_model` does."""
    if all(not each.is_model for each in options.candidates):
        return {}
    from vaectl.engine import open_model  # imports the networks

    limits, dtype, weights = Limits.of(options), options.model_dtype, options.weights
    return {
        number: open_model(
            each.path, str(device), dtype, limits, progress=progress, weights=weights, compile=options.compile
        )
        for number, each in enumerate(options.candidates)
        if each.is_model
    }


def report_builder(setup: Setup) -> ReportBuilder:
    """Return the report of a run, without clips."""
    from vaectl.evaluation.report import ReportBuilder  # few runs have one

    return ReportBuilder(setup.facts, [each.name for each in setup.candidates])


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
    return metrics, tuple(FACTS[name] for name in metrics)


def temporal_compression(model: AnyVAE | None, manifest: Manifest | None) -> int | None:
    """Return the frames for each latent frame of what made the generated clips; None if that is unknown."""
    if model:
        return int(model.config.time_compression)
    return manifest.model.temporal_compression if manifest else None


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


def add_totals(
    totals: Totals, setup: Setup, results: PartialResults, options: EvalOptions, progress: Progress, begun: float
) -> None:
    """Add the metrics of sets, and on rank 0 the costs, which are measured last."""
    totals.set_values, totals.failures = values_of_sets(setup.metrics)
    totals.seconds, totals.peak_memory = time.monotonic() - begun, memory.peak(setup.device)
    if is_main() and (len(setup.models) > 1 if options.cost is None else options.cost):
        from vaectl.evaluation.cost import measure_costs  # imports the networks

        names, limits = [each.name for each in setup.candidates], Limits.of(options)
        known, size = costs_at_size(setup, results)
        totals.costs = measure_costs(setup.models, names, known, size, limits, progress)


def costs_at_size(setup: Setup, results: PartialResults) -> tuple[list[Cost | None], Size]:
    """Return what is known of the cost of each candidate at the size of the first clip, and that size."""
    if not results.clips:  # of this rank
        return [None] * len(setup.candidates), (0, 0, 0)
    first = results.clips[0][0]
    size = first.num_frames // first.windows, first.height, first.width
    if not setup.models and not any(setup.manifests):
        return [None] * len(setup.candidates), size
    from vaectl.evaluation.cost import known_costs  # imports the networks

    return known_costs(setup.models, setup.manifests, size), size


def evaluations_of(setup: Setup, results: PartialResults, totals: Totals, options: EvalOptions) -> Iterator[Evaluation]:
    """Yield the evaluation of each candidate."""
    left_out = setup.grouping.missing | results.left_out
    remaining = len(setup.grouping.groups) - len(results.clips) - len(results.left_out)
    costs = totals.costs or costs_at_size(setup, results)[0]
    for number, candidate in enumerate(setup.candidates):
        manifest = setup.manifests[number]
        yield Evaluation(
            name=candidate.name,
            metrics=setup.facts,
            clips=tuple(scores[number] for scores in results.clips),
            set_values={name: values[number] for name, values in totals.set_values.items()},
            protocol=setup.protocols[number],
            left_out=left_out,
            seconds=totals.seconds,
            decode_seconds=results.decode_seconds,
            peak_memory=totals.peak_memory,
            stopped_before=remaining if totals.stopped else 0,
            failures=(*(() if options.allow_missing else kinds_first(left_out)), *totals.failures),
            temporal_compression=temporal_compression(setup.models.get(number), manifest),
            cost=costs[number],
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
            except Exception as error:  # must not lose the numbers of the other metrics
                failures.append(str(unforeseen(name, error, BUG)))
    return values, failures
