"""The pipeline of an evaluation: decode clips, run the models if there are any, and measure.

Each step is a generator that takes the output of the step before. A clip is freed once it is measured. If a clip fails,
the reason is recorded and the others continue. Knows neither which clips there are nor how numbers are shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from vaectl.errors import UsageError, VaectlError, unforeseen
from vaectl.evaluation.frames import DecodedGroup, Reading, read_group
from vaectl.evaluation.pairs import Group
from vaectl.evaluation.protocol import host_overhead
from vaectl.evaluation.results import ClipScores, format_number, join_windows
from vaectl.memory import Limits
from vaectl.metrics.metric import FrameMetric, SetMetric, measure_all
from vaectl.options import EvalOptions
from vaectl.prefetch import batch_by_shape, parallel_streams
from vaectl.progress import Progress
from vaectl.rng import generator_for

if TYPE_CHECKING:
    from vaectl.evaluation.report import ReportBuilder
    from vaectl.models.vae import AnyVAE

Metrics: TypeAlias = Mapping[str, FrameMetric | SetMetric]


@dataclass
class BegunClip:
    """The results of a clip until its last window, apart from those of other clips: a window may fail."""

    sets: dict[str, SetMetric]
    windows: list[tuple[ClipScores, ...]] = field(default_factory=list)
    """For each window, the scores of each candidate."""
    worst: tuple[tuple[float, float], int, Tensor, list[Tensor]] | None = None
    """For the report, the window with the worst frame: the rank of that frame, the number, the frames of all sides."""


@dataclass
class PartialResults:
    """The results so far, of one rank or of all."""

    clips: list[tuple[ClipScores, ...]] = field(default_factory=list)
    """For each group, the scores of each candidate."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Clip name -> reason."""
    decode_seconds: float = 0.0
    begun: dict[str, BegunClip] = field(default_factory=dict)
    """Clip name -> its windows so far, until the last."""


@dataclass(frozen=True)
class Failed:
    """A group that cannot be compared."""

    group: Group
    reason: str


LeaveOut: TypeAlias = Callable[[Group, str], None]
"""Takes a group that cannot be compared, with the reason."""


def compare_all(
    groups: Sequence[Group],
    reading: Reading,
    models: Mapping[int, AnyVAE],
    metrics: Metrics,
    report: ReportBuilder | None,
    options: EvalOptions,
    results: PartialResults,
    progress: Progress,
) -> None:
    """Compute all metrics of all groups; `models` has those that run in memory, by the number of the candidate.

    Each result is added to `results` at once, so that Ctrl-C does not lose it.
    """

    def leave_out(group: Group, reason: str) -> None:
        results.begun.pop(group.name, None)
        results.left_out[group.name] = reason
        progress.end_clip(group.name, reason, failed=True)

    with closing(decode(groups, reading, options)) as attempts:
        clips = succeeded(attempts, results, leave_out)
        for number, model in models.items():
            clips = succeeded(through_model(clips, number, model, models, options, progress), results, leave_out)
        for batch in batch_by_shape(clips, lambda clip: clip.real.frames.shape, options.batch_size):
            for clip in batch:
                if clip.note:
                    progress.warn(clip.note)
            compare(batch, metrics, report, results, leave_out, progress)


def decode(
    groups: Sequence[Group], reading: Reading, options: EvalOptions
) -> Generator[DecodedGroup | Failed, None, None]:
    """Yield the windows of the groups with their frames, in order. Threads decode some of them in advance."""

    def attempt(group: Group) -> Generator[DecodedGroup | Failed, None, None]:
        try:
            yield from read_group(group, reading)
        except VaectlError as error:
            yield Failed(group, str(error))
        except Exception as error:  # an unexpected error in one clip must not stop the others
            yield Failed(group, str(unforeseen(group.real, error)))

    workers = min(8, os.cpu_count() or 1) if options.num_workers is None else max(1, options.num_workers)
    # With tiles memory is short: hold no clips that wait.
    return parallel_streams(attempt, groups, 1 if Limits.of(options).tiled else workers)


def succeeded(
    attempts: Iterable[DecodedGroup | Failed], results: PartialResults, leave_out: LeaveOut
) -> Iterator[DecodedGroup]:
    """Yield the groups that did not fail; pass the others to `leave_out`, with the reason, and skip their windows."""
    for attempt in attempts:
        if attempt.group.name in results.left_out:
            continue
        if isinstance(attempt, Failed):
            leave_out(attempt.group, attempt.reason)
        else:
            yield attempt


def through_model(
    clips: Iterable[DecodedGroup],
    number: int,
    model: AnyVAE,
    models: Mapping[int, AnyVAE],
    options: EvalOptions,
    progress: Progress,
) -> Iterator[DecodedGroup | Failed]:
    """Yield the clips with their reconstructions by candidate `number`, one of `models`.

    The batch size is 1, so that a clip always has the same result.
    """
    from vaectl.engine import reconstruct_frames  # imports the networks

    limits = Limits.of(options)
    which = f" (candidate {options.candidates[number].name})" if len(options.candidates) > 1 else ""
    others = [other for other in models.values() if other is not model]
    for clip in clips:
        frames, group = clip.real.frames, clip.group
        overhead = host_overhead(frames[None], clip.stored).with_weights(others)
        overhead = replace(overhead, fixed=overhead.fixed + (len(clip.generated) - 1) * frames.numel())
        generator = generator_for(options.model_seed, group.name, clip.window) if options.sample else None
        try:
            (made,) = reconstruct_frames(model, frames[None], group.real, limits, overhead, progress, generator)
        except UsageError:
            raise
        except VaectlError as error:
            yield Failed(group, str(VaectlError(f"{error.problem}{which}", error.remedy)))
        except Exception as error:
            known = unforeseen(group.real, error)
            yield Failed(group, str(VaectlError(f"{known.problem}{which}", known.remedy)))
        else:
            generated = list(clip.generated)
            generated[number] = replace(clip.real, frames=made)
            yield replace(clip, generated=tuple(generated))


def compare(
    batch: Sequence[DecodedGroup],
    metrics: Metrics,
    report: ReportBuilder | None,
    results: PartialResults,
    leave_out: LeaveOut,
    progress: Progress,
) -> None:
    """Measure windows of one shape. The numbers of a clip are added to `results` after its last window."""
    batch = [clip for clip in batch if clip.group.name not in results.left_out]
    if not batch:
        return
    real_BTCHW = torch.stack([clip.real.frames for clip in batch])
    generated = [
        torch.stack([clip.frames for clip in clips if clip])
        for clips in zip(*(clip.generated for clip in batch), strict=True)
    ]
    try:
        numbers: dict[str, list[Tensor]] = {}
        for name, metric in metrics.items():
            if isinstance(metric, FrameMetric):
                progress.status(f"{batch[0].name}: {name}")
                numbers[name] = measure_all(metric, real_BTCHW, generated)
    except Exception as error:
        for group in {clip.group.name: clip.group for clip in batch}.values():
            leave_out(group, reason_of(group, error))
        return
    for index, clip in enumerate(batch):
        if clip.group.name in results.left_out:  # by an earlier window
            continue
        sides = [clips[index] for clips in (real_BTCHW, *generated)]
        add_window(clip, scores_of(clip, numbers, index), sides, metrics, report, results, leave_out, progress)


def scores_of(clip: DecodedGroup, numbers: Mapping[str, Sequence[Tensor]], index: int) -> tuple[ClipScores, ...]:
    """Return the scores of each candidate in a window, which is number `index` of those measured together."""
    group, (num_frames, _, height, width) = clip.group, clip.real.frames.shape
    return tuple(
        ClipScores(
            group.name,
            group.real,
            path,
            num_frames,
            width,
            height,
            {name: tuple(rows[number][index].tolist()) for name, rows in numbers.items()},
        )
        for number, path in enumerate(group.generated)
    )


def add_window(
    clip: DecodedGroup,
    scores: tuple[ClipScores, ...],
    sides: Sequence[Tensor],
    metrics: Metrics,
    report: ReportBuilder | None,
    results: PartialResults,
    leave_out: LeaveOut,
    progress: Progress,
) -> None:
    """Add a window, with the frames of all `sides` (T, 3, H, W), to those of its clip; after the last, end the clip.

    Nothing is added to the metrics of sets before the last window, because each may fail.
    """
    sets = {name: metric for name, metric in metrics.items() if isinstance(metric, SetMetric)}
    name = clip.group.name
    results.decode_seconds += clip.seconds
    begun = results.begun.setdefault(name, BegunClip({of: each.empty() for of, each in sets.items()}))
    begun.windows.append(scores)
    real, *made = sides
    try:
        for of, of_clip in begun.sets.items():
            progress.status(f"{clip.name}: {of}")
            of_clip.add(real[None], [each[None] for each in made])
    except Exception as error:
        leave_out(clip.group, reason_of(clip.group, error))
        return
    if report and (begun.worst is None or report.worst(scores) < begun.worst[0]):
        begun.worst = report.worst(scores), clip.window, real, made
    if clip.window + 1 < clip.windows:
        return
    del results.begun[name]
    for of, of_clip in begun.sets.items():
        sets[of].merge(of_clip.state())
    scores = tuple(join_windows(each, clip.frames_left_out) for each in zip(*begun.windows, strict=True))
    if report and begun.worst:
        _, window, real, made = begun.worst
        report.add(scores, real, made, clip.real.frame_rate, window)
    results.clips.append(scores)
    progress.end_clip(name, figures_of(scores))


def reason_of(group: Group, error: Exception) -> str:
    """Return why a clip could not be measured, in one line."""
    return f"{group.real}: {error}" if isinstance(error, VaectlError) else str(unforeseen(group.real, error))


def figures_of(scores: Sequence[ClipScores]) -> str:
    """Return the means of a clip as text: of one candidate, or of the first metric for several."""
    if len(scores) == 1 or not scores[0].values:
        return scores[0].figures
    metric = next(iter(scores[0].values))
    return f"{metric} {', '.join(format_number(each.mean(metric), metric) for each in scores)}"
