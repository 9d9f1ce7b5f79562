"""The clips of a run: those it trains on and those it validates with, and how many steps they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

from vaectl import distributed
from vaectl.data import ClipDataset, Sampling, Source, open_dataset
from vaectl.data.metadata_cache import scan_videos
from vaectl.data.sampling import span
from vaectl.errors import UsageError, VaectlError
from vaectl.options.train import TrainOptions
from vaectl.progress import Progress

DEFAULT_EPOCHS = 10
MAX_LISTED = 20
"""Unusable validation clips that are listed; the others are only counted."""
T = TypeVar("T")


class ValidationClips(NamedTuple):
    """The clips that the validation measures."""

    paths: list[Path]
    left_out: int
    """Clips of the subset that cannot be read or are too short."""
    fingerprint: str
    """Changes with the clips, their frames and their size, so that numbers can no longer be compared."""


def sources_of(options: TrainOptions) -> list[Source]:
    """Return the sources of videos, with their weights."""
    weights = options.video_weight or [None] * len(options.video_path)
    return [Source(path, weight) for path, weight in zip(options.video_path, weights, strict=True)]


def data_of(options: TrainOptions, validation: Sequence[Path], progress: Progress) -> ClipDataset:
    """Return the clips to train on, and warn about `validation` clips among them.

    Raises as `open_dataset` does; VaectlError if ranks see different videos.
    """
    sampling = Sampling(
        num_frames=options.num_frames,
        resolution=options.resolution,
        crop_size=options.crop_size,
        sample_rate=options.sample_rate,
        dynamic_sample=options.dynamic_sample,
        random_crop=options.random_crop,
        flip=options.flip,
        animate_images=options.animate_images,
        seed=options.seed,
    )
    data = after_first_rank(
        lambda: open_dataset(
            sources_of(options), sampling, strict=options.strict, progress=progress, validation=validation
        )
    )
    if len(set(distributed.gather(data.fingerprint))) > 1:
        raise VaectlError("the ranks find different videos in `video_path`", "give all ranks the same tree")
    return data


def after_first_rank(scan: Callable[[], T]) -> T:
    """Return the result of `scan`: one rank per machine scans the videos, then the others read its cache."""
    for first in (True, False):
        if first == (distributed.local_rank() == 0):
            result = scan()
        distributed.wait_for_others()
    return result


def validation_clips(options: TrainOptions, progress: Progress) -> ValidationClips | None:
    """Return the clips of the evaluation subset that are readable and long enough; None without `eval_video_path`.

    Reads headers, not frames. Warns about the other clips by name. Raises UsageError if no clip is left.
    """
    root, num_frames, rate = options.eval_video_path, options.eval_num_frames, options.eval_sample_rate
    if root is None:
        return None
    try:
        found = after_first_rank(lambda: scan_videos(root, progress, options.eval_subset_size or None))
    except UsageError as error:
        raise UsageError(f"`eval_video_path`: {error.problem}", error.remedy) from None
    need = span(num_frames, rate)
    wants = f"`eval_num_frames={num_frames}`" + (f" at `eval_sample_rate={rate}`" if rate > 1 else "")
    short = {
        name: f"{found.folder / name}: has {facts.num_frames} frames, and {wants} needs {need}"
        for name, facts in found.videos.items()
        if facts.num_frames < need
    }
    reasons = [*found.unreadable.values(), *short.values()]
    clips = [found.folder / name for name in found.videos if name not in short]
    if not clips:
        raise UsageError(
            f"`eval_video_path`: 0 of {len(reasons)} clips can be validated; the first: {reasons[0]}",
            "lower `eval_num_frames` or `eval_sample_rate`" if short else "give clips that can be read",
        )
    for reason in reasons[:MAX_LISTED]:
        progress.warn(f"{reason}; validation leaves it out")
    if (more := len(reasons) - MAX_LISTED) > 0:
        progress.warn(f"`eval_video_path`: validation leaves out {more} more clips, which are not listed")
    used = [(name, facts.size, facts.num_frames) for name, facts in found.videos.items() if name not in short]
    digest = blake2b(repr((num_frames, rate, options.eval_resolution, used)).encode(), digest_size=16)
    return ValidationClips(clips, len(reasons), digest.hexdigest())


def steps_of(options: TrainOptions, clips: int) -> int:
    """Return the number of steps of the run: by `epochs` or `max_steps`, whichever ends first."""
    epochs = options.epochs or (None if options.max_steps else DEFAULT_EPOCHS)
    if epochs is None:
        assert options.max_steps is not None
        return options.max_steps
    step = options.batch_size * options.gradient_accumulation_steps * distributed.world_size()
    steps = max(1, epochs * clips // step)
    return min(steps, options.max_steps or steps)
