"""The pipeline of an evaluation: decode clips, run the model if there is one, and measure.

Each step is a generator that takes the output of the step before. A clip is freed once it is measured. If a pair fails,
the reason is recorded and the others continue. Knows neither which clips there are nor how numbers are shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch

from vaectl.engine import Limits, reconstruct_frames
from vaectl.errors import UsageError, VaectlError, unforeseen
from vaectl.evaluation.frames import DecodedPair, Reading, read_pair
from vaectl.evaluation.pairs import Pair
from vaectl.evaluation.protocol import host_overhead
from vaectl.evaluation.report import ReportBuilder
from vaectl.evaluation.results import ClipScores
from vaectl.metrics.metric import FrameMetric, SetMetric
from vaectl.models.vae import AnyVAE
from vaectl.options import EvalOptions
from vaectl.prefetch import batch_by_shape, parallel_map
from vaectl.progress import Progress
from vaectl.rng import generator_for

Metrics: TypeAlias = Mapping[str, FrameMetric | SetMetric]


@dataclass
class PartialResults:
    """The results so far, of one rank or of all."""

    clips: list[ClipScores] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Clip name -> reason."""
    decode_seconds: float = 0.0


@dataclass(frozen=True)
class Failed:
    """A pair that cannot be compared."""

    pair: Pair
    reason: str


def compare_all(
    pairs: Sequence[Pair],
    reading: Reading,
    model: AnyVAE | None,
    metrics: Metrics,
    report: ReportBuilder | None,
    options: EvalOptions,
    results: PartialResults,
    progress: Progress,
) -> None:
    """Compute all metrics of all pairs. Each result is added to `results` at once, so that Ctrl-C does not lose it."""

    def leave_out(pair: Pair, reason: str) -> None:
        results.left_out[pair.name] = reason
        progress.end_clip(pair.name, reason, failed=True)

    with closing(decode(pairs, reading, options)) as attempts:
        clips = succeeded(attempts, leave_out)
        if model:
            clips = succeeded(through_model(clips, model, options, progress), leave_out)
        for batch in batch_by_shape(clips, lambda clip: clip.real.frames.shape, options.batch_size):
            for clip in batch:
                if clip.note:
                    progress.warn(clip.note)
            compare(batch, metrics, report, results, leave_out, progress)


def decode(
    pairs: Sequence[Pair], reading: Reading, options: EvalOptions
) -> Generator[DecodedPair | Failed, None, None]:
    """Yield the pairs with their frames, in order. Threads decode some of them in advance."""

    def attempt(pair: Pair) -> DecodedPair | Failed:
        try:
            return read_pair(pair, reading)
        except VaectlError as error:
            return Failed(pair, str(error))
        except Exception as error:  # an unexpected error in one clip must not stop the others
            return Failed(pair, str(unforeseen(pair.real, error)))

    workers = min(8, os.cpu_count() or 1) if options.num_workers is None else max(1, options.num_workers)
    # With tiles memory is short: hold no clips that wait.
    return parallel_map(attempt, pairs, 1 if Limits.of(options).tiled else workers)


def succeeded(
    attempts: Iterable[DecodedPair | Failed], leave_out: Callable[[Pair, str], None]
) -> Iterator[DecodedPair]:
    """Yield the pairs that did not fail; pass the others to `leave_out`, with the reason."""
    for attempt in attempts:
        if isinstance(attempt, Failed):
            leave_out(attempt.pair, attempt.reason)
        else:
            yield attempt


def through_model(
    clips: Iterable[DecodedPair], model: AnyVAE, options: EvalOptions, progress: Progress
) -> Iterator[DecodedPair | Failed]:
    """Yield the clips with their reconstructions. The batch size is 1, so that a clip always has the same result."""
    limits = Limits.of(options)
    for clip in clips:
        frames, pair = clip.real.frames, clip.pair
        overhead = host_overhead(frames[None], clip.stored)
        generator = generator_for(options.model_seed, pair.name) if options.sample else None
        try:
            (made,) = reconstruct_frames(model, frames[None], pair.real, limits, overhead, progress, generator)
        except UsageError:
            raise
        except VaectlError as error:
            yield Failed(pair, str(error))
        except Exception as error:
            yield Failed(pair, str(unforeseen(pair.real, error)))
        else:
            yield replace(clip, generated=replace(clip.real, frames=made))


def compare(
    batch: Sequence[DecodedPair],
    metrics: Metrics,
    report: ReportBuilder | None,
    results: PartialResults,
    leave_out: Callable[[Pair, str], None],
    progress: Progress,
) -> None:
    """Measure clips of one shape and add their numbers to `results`."""
    real_BTCHW = torch.stack([clip.real.frames for clip in batch])
    generated_BTCHW = torch.stack([clip.generated.frames for clip in batch if clip.generated])
    try:
        numbers = {}
        for name, metric in metrics.items():
            if isinstance(metric, FrameMetric):
                progress.status(f"{batch[0].pair.name}: {name}")
                numbers[name] = metric.measure(real_BTCHW, generated_BTCHW).tolist()
    except Exception as error:
        for pair in (clip.pair for clip in batch):
            known = f"{pair.real}: {error}" if isinstance(error, VaectlError) else str(unforeseen(pair.real, error))
            leave_out(pair, known)
        return
    for metric in metrics.values():
        if isinstance(metric, SetMetric):
            metric.add(real_BTCHW, [generated_BTCHW])
    for index, (clip, real, generated) in enumerate(zip(batch, real_BTCHW, generated_BTCHW, strict=True)):
        values = {name: tuple(rows[index]) for name, rows in numbers.items()}
        num_frames, _, height, width = real.shape
        pair = clip.pair
        scores = ClipScores(pair.name, pair.real, pair.generated, num_frames, width, height, values)
        if report:
            report.add(scores, real, generated, clip.real.frame_rate)
        results.clips.append(scores)
        results.decode_seconds += clip.seconds
        progress.end_clip(pair.name, scores.figures)
