"""The job behind `vaectl eval`: pairs of clips, each decoded once, through all metrics in one pass.

Joins `video`, `models` and `metrics`. Clips are decoded ahead of measuring, in threads, and forgotten when they are
measured, so memory does not grow with their number. Which clips belong together is for `pairs` to say, how they are
read for `frames`, and how the numbers are shown for whoever called.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch

from vaectl import memory
from vaectl.engine import Beside, Limits, generator_for, open_model, reconstruct_frames
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.frames import DecodedPair, Reading, how_to_read, read_pair
from vaectl.evaluation.manifest import read_manifest
from vaectl.evaluation.pairs import Pair, Pairing, find_pairs
from vaectl.evaluation.protocol import FRAMES_AT_ONCE
from vaectl.evaluation.report import ReportBuilder
from vaectl.evaluation.results import ClipScores, Evaluation, MetricFacts
from vaectl.evaluation.statement import statement
from vaectl.evaluation.tables import write_csv
from vaectl.metrics import MetricSettings, build
from vaectl.metrics.metric import FrameMetric, SetMetric
from vaectl.models.placement import choose_device
from vaectl.models.vae import AnyVAE
from vaectl.options import EvalOptions
from vaectl.options.eval import BUILTIN
from vaectl.pipeline import in_parallel
from vaectl.progress import Progress
from vaectl.targets import identity
from vaectl.video.replace import replacing

Metrics: TypeAlias = Mapping[str, FrameMetric | SetMetric]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what was found before it."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__()
        self.evaluation = evaluation


@dataclass
class Found:
    """What is known so far."""

    left_out: dict[str, str]
    clips: list[ClipScores] = field(default_factory=list)
    decode_seconds: float = 0.0


def evaluate(options: EvalOptions, progress: Progress) -> Evaluation:
    """Compare originals with what became of them, as `options` say; write the CSV file and the report if asked for.

    What went wrong on the way is told in the result. Raises UsageError for requests that cannot work, VaectlError where
    nothing can be compared, and `Interrupted` when Ctrl-C comes after the first clips.
    """
    begun = time.monotonic()
    manifest = read_manifest(options.generated_video_dir) if options.generated_video_dir else None
    reading = how_to_read(options, manifest, progress)
    stills = reading.protocol.num_frames == 1
    pairing = find_pairs(options.real_video_dir, options.generated_video_dir, manifest, options.subset_size, stills)
    refuse_missing(pairing, options)
    refuse_losses(pairing, options)

    device = choose_device(options.device)
    settings = MetricSettings(options.lpips_net, options.lpips_weights, options.fvd_detector)
    metrics = build(options.metric, settings, device)
    facts = tuple(MetricFacts(name, m.unit, m.better, isinstance(m, SetMetric)) for name, m in metrics.items())
    sets = [metric.name for metric in facts if metric.of_set]
    if sets and len(pairing.pairs) < 2:
        raise UsageError(
            f"{options.real_video_dir}: {', '.join(sets)} needs at least 2 clips, and there is 1; leave it out"
        )
    model = None
    if options.ckpt:
        path = None if options.ckpt == BUILTIN else options.ckpt
        model = open_model(path, str(device), options.dtype, Limits.of(options))

    found, stopped = Found(pairing.missing.copy()), False
    with ReportBuilder(facts) if options.report else nullcontext() as report:
        progress.start(f"{len(pairing.pairs)} clips", len(pairing.pairs) * reading.protocol.num_frames)
        try:
            with closing(decode(pairing.pairs, reading, options)) as attempts:
                clips = succeeded(attempts, found)
                if model:
                    clips = succeeded(through_model(clips, model, options, progress), found)
                for batch in batches(clips, options.batch_size):
                    compare(batch, metrics, report, found)
                    progress.advance(sum(len(clip.real) for clip in batch))
        except KeyboardInterrupt:
            if not found.clips:
                raise
            stopped = True
        finally:
            progress.finish()
        reasons = list(found.left_out.values())
        if not found.clips:
            more = f" (and {len(reasons) - 1} more could not be compared)" if len(reasons) > 1 else ""
            raise VaectlError(f"{reasons[0]}{more}")
        set_values, failures = ({}, []) if stopped else values_of_sets(metrics)
        evaluation = Evaluation(
            metrics=facts,
            clips=tuple(found.clips),
            set_values=set_values,
            protocol=statement(options, reading, manifest, str(device)),
            left_out=found.left_out,
            seconds=time.monotonic() - begun,
            decode_seconds=found.decode_seconds,
            peak_memory=memory.peak(device),
            stopped_before=len(pairing.pairs) + len(pairing.missing) - len(found.clips) - len(reasons),
            failures=(*([] if options.allow_missing else reasons), *failures),
        )
        evaluation = replace(evaluation, failures=(*evaluation.failures, *write(evaluation, report, options)))
    if stopped:
        raise Interrupted(evaluation)
    return evaluation


# Before anything is decoded


def refuse_missing(pairing: Pairing, options: EvalOptions) -> None:
    """Clips without partner are an error, unless they are to be left out."""
    if pairing.missing and not options.allow_missing:
        first, *others = pairing.missing.values()
        more = f", and so have {len(others)} more ({', '.join(list(pairing.missing)[1:4])}…)" if others else ""
        raise UsageError(f"{first}{more}; pass --allow-missing to leave them out")


def refuse_losses(pairing: Pairing, options: EvalOptions) -> None:
    """What is to be written must not be what is read, nor be there without `overwrite`, and there must be a place."""
    read = {identity(file) for pair in pairing.pairs for file in (pair.real, pair.generated) if file}
    for file in filter(None, (options.csv, options.report)):
        if file.exists() and identity(file) in read:
            raise UsageError(f"{file}: is what this run reads; name another file")
        with suppress(_Enough), replacing(file, overwrite=options.overwrite):
            raise _Enough
    if options.csv is not None and options.csv == options.report:
        raise UsageError(f"{options.csv}: --csv and --report name the same file; give each its own")


class _Enough(Exception):  # noqa: N818  # it is no error
    """Ends a block early."""


# The stages, one after the other


@dataclass(frozen=True)
class Failed:
    """A pair that cannot be compared."""

    pair: Pair
    reason: str


def decode(
    pairs: Sequence[Pair], reading: Reading, options: EvalOptions
) -> Generator[DecodedPair | Failed, None, None]:
    """The pairs with their frames, in order, some of them decoded ahead."""

    def attempt(pair: Pair) -> DecodedPair | Failed:
        try:
            return read_pair(pair, reading)
        except VaectlError as error:
            return Failed(pair, str(error))

    # Tiles are there to save memory, which clips that wait would take.
    workers = 1 if Limits.of(options).tiled else max(1, options.num_workers)
    return in_parallel(attempt, pairs, workers)


def succeeded(attempts: Iterable[DecodedPair | Failed], found: Found) -> Iterator[DecodedPair]:
    """Those that did not fail; of the others the reason is kept."""
    for attempt in attempts:
        if isinstance(attempt, Failed):
            found.left_out[attempt.pair.name] = attempt.reason
        else:
            yield attempt


def through_model(
    clips: Iterable[DecodedPair], model: AnyVAE, options: EvalOptions, progress: Progress
) -> Iterator[DecodedPair | Failed]:
    """The clips with what the model makes of them: each alone, so that its frames are always the same ones."""
    limits = Limits.of(options)
    for clip in clips:
        frames, pair = clip.real.frames, clip.pair
        pixels = frames.shape[2] * frames.shape[3]
        reading = Beside.of(stored=clip.stored, frame=0, shown=0)
        held = reading.fixed + FRAMES_AT_ONCE * reading.per_frame + 8 * frames.numel()
        beside = Beside(held, Beside.of(stored=0, frame=pixels, shown=0).per_frame)
        generator = generator_for(options.seed, pair.name) if options.sample else None
        try:
            (made,) = reconstruct_frames(model, frames[None], pair.real, limits, beside, progress, generator)
        except UsageError:
            raise
        except VaectlError as error:
            yield Failed(pair, str(error))
        else:
            yield replace(clip, generated=replace(clip.real, frames=made))


def batches(clips: Iterable[DecodedPair], size: int) -> Iterator[list[DecodedPair]]:
    """Neighbours whose frames have one shape, at most `size` of them together."""
    batch: list[DecodedPair] = []
    for clip in clips:
        if batch and (len(batch) == size or clip.real.frames.shape != batch[0].real.frames.shape):
            yield batch
            batch = []
        batch.append(clip)
    if batch:
        yield batch


def compare(batch: Sequence[DecodedPair], metrics: Metrics, report: ReportBuilder | None, found: Found) -> None:
    """Measure clips of one shape, and keep what was found."""
    real_BTCHW = torch.stack([clip.real.frames for clip in batch])
    generated_BTCHW = torch.stack([clip.generated.frames for clip in batch if clip.generated])
    try:
        numbers = {
            name: metric.measure(real_BTCHW, generated_BTCHW).tolist()
            for name, metric in metrics.items()
            if isinstance(metric, FrameMetric)
        }
    except VaectlError as error:
        found.left_out |= {clip.pair.name: f"{clip.pair.real}: {error}" for clip in batch}
        return
    for metric in metrics.values():
        if isinstance(metric, SetMetric):
            metric.add(real_BTCHW, generated_BTCHW)
    for index, (clip, real, generated) in enumerate(zip(batch, real_BTCHW, generated_BTCHW, strict=True)):
        values = {name: tuple(rows[index]) for name, rows in numbers.items()}
        frames, _, height, width = real.shape
        pair = clip.pair
        scores = ClipScores(pair.name, pair.real, pair.generated, frames, width, height, values)
        if report:
            report.add(scores, real, generated, clip.real.frame_rate)
        found.clips.append(scores)
        found.decode_seconds += clip.seconds


# At the end


def values_of_sets(metrics: Metrics) -> tuple[dict[str, float], list[str]]:
    """The number of each metric of sets, and why there is none."""
    values, failures = {}, []
    for name, metric in metrics.items():
        if isinstance(metric, SetMetric):
            try:
                values[name] = metric.value()
            except VaectlError as error:
                failures.append(str(error))
    return values, failures


def write(evaluation: Evaluation, report: ReportBuilder | None, options: EvalOptions) -> list[str]:
    """Write the files that are asked for; what could not be written, in one line each."""
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
