"""Error by position: a metric by frame within a latent group, and from the first frame to the last. Plain values.

In a causal video VAE, frame 0 has a latent frame of its own, and then every s frames share one (s: the temporal
compression). So frame t >= 1 is at position (t - 1) mod s of its group, and frame 0 is in none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias

from vaectl.io.json_values import plain
from vaectl.metrics import WITH_MOTION

if TYPE_CHECKING:
    from vaectl.evaluation.results import ClipScores, Evaluation

Window: TypeAlias = Sequence[tuple[int, float]]
"""Frame number, counted from the start of the window, and value."""


@dataclass(frozen=True)
class Positions:
    """The mean of a metric by frame position: over the frames of a clip, then over the clips that have the position.

    Exact frames (a PSNR of inf) are left out, so that one of them does not hide all others; a position is inf if all
    its frames are exact.
    """

    first: float | None
    """Frame 0; None for a metric of neighbouring frames, whose value belongs to the second frame, and for one that
    weights motion, because its value of frame 0 has none."""
    within_group: tuple[float | None, ...] | None
    """Positions 0 to s - 1, None for those that no clip has; None if the temporal compression is unknown."""
    over_time: tuple[float | None, ...]
    """Frame 0 to the last frame of the longest clip. Frame 0 is None where `first` is."""
    clips: tuple[int, ...]
    """The number of clips in each mean of `over_time`: fewer at the end if lengths differ, and where some are exact."""
    exact: int
    """The number of exact frames."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        json: dict[str, Any] = plain(asdict(self))
        return json


def by_position(evaluation: Evaluation, metric: str) -> Positions:
    """Return the mean of a metric of frames by position, over the clips of an evaluation."""
    clips = [windows_of(clip, metric) for clip in evaluation.clips]
    frames = _means(clips, lambda frame: frame)
    length = 1 + max(frames, default=-1)
    group, within = evaluation.temporal_compression, None
    if group is not None:
        found = _means(clips, lambda frame: (frame - 1) % group if frame else None)
        within = tuple(found[position][0] if position in found else None for position in range(group))
    over_time = tuple(frames.get(frame, (None, 0)) for frame in range(length))
    return Positions(
        first=frames.get(0, (None, 0))[0],
        within_group=within,
        over_time=tuple(mean for mean, _ in over_time),
        clips=tuple(count for _, count in over_time),
        exact=sum(math.isinf(value) for windows in clips for window in windows for _, value in window),
    )


def windows_of(clip: ClipScores, metric: str) -> list[Window]:
    """Return the values of each window of a clip. A window is encoded on its own, so its frames count from 0."""
    windows, begin = clip.in_windows(metric), int(metric in WITH_MOTION)
    return [[(frame, value) for frame, value in enumerate(each) if value is not None][begin:] for each in windows]


def _means(
    clips: Sequence[Sequence[Window]], position: Callable[[int], int | None]
) -> dict[int, tuple[float | None, int]]:
    """Return the mean at each position, over the frames of a clip and then over clips, and the number of clips."""
    means: dict[int, list[float]] = defaultdict(list)
    for windows in clips:
        of_clip: dict[int, list[float]] = defaultdict(list)
        for window in windows:
            for frame, value in window:
                if (place := position(frame)) is not None:
                    of_clip[place].append(value)
        for place, values in of_clip.items():
            means[place].append(_mean(values)[0])
    return {place: _mean(values) for place, values in means.items()}


def _mean(values: Sequence[float]) -> tuple[float, int]:
    """Return the mean of the values that are not inf, and their number; if all are, inf and the number of all."""
    known = [value for value in values if not math.isinf(value)]
    return (fmean(known), len(known)) if known else (math.inf, len(values))
