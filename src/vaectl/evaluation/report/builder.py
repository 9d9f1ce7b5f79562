"""Collect the pictures of a report during an evaluation, and write the page at its end.

Each frame is seen once. Only the pictures of the worst clips so far are kept, so neither memory nor the page grows with
the number of clips. The numbers come from the finished `Comparison`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from vaectl.distributed import gather
from vaectl.errors import VaectlError
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.report.document import document
from vaectl.evaluation.report.media import Media, picture
from vaectl.evaluation.results import ClipScores
from vaectl.io.atomic_write import atomic_write
from vaectl.metrics import MetricFacts

Rank: TypeAlias = tuple[float, float]
MEDIA_BYTES = 10 * 2**20
"""Limit for all pictures of a page, base64-encoded."""


class ReportBuilder:
    """Builds the report of one candidate, or of several on the same clips.

    Args:
        metrics: the metrics of the evaluation. The first metric of frames decides which clips are the worst: those with
            the worst mean over the candidates. Without one, the first clips are shown.
        names: of the candidates, in the order of everything else.
        clips_with_media: maximum number of clips with pictures; fewer if they would take more than `MEDIA_BYTES`.
    """

    def __init__(
        self, metrics: Sequence[MetricFacts], names: Sequence[str] = ("",), clips_with_media: int = 12
    ) -> None:
        self._ranking = next((metric for metric in metrics if not metric.of_set), None)
        self._names = tuple(names)
        self._room = clips_with_media
        self._seen = 0
        self._kept: list[tuple[Rank, int, Media]] = []  # worst first; the number keeps ties in order
        self._bar: tuple[Rank, int] | None = None  # only worse clips are kept
        self._failures: list[str] = []

    def worst(self, scores: Sequence[ClipScores]) -> Rank:
        """Return the rank of the worst frame of a window; lower is worse."""
        metric = self._ranking
        series = [one.values[metric.name] for one in scores] if metric else []
        return min((rank(values, metric) for values in zip(*series, strict=True) if metric), default=(0.0, 0.0))

    def add(
        self,
        scores: Sequence[ClipScores],
        real_T3HW: Tensor,
        generated: Sequence[Tensor],
        frame_rate: Fraction,
        window: int = 0,
    ) -> None:
        """Take the pictures of a clip: the original, and for each candidate its scores and what it generated.

        All frames are (T, 3, H, W) uint8 RGB, those of one `window`; `frame_rate` is in frames per second. If the
        folder for temporary files is full, the clip has no pictures and `write` reports it: the numbers of a long run
        are not lost for a video.
        """
        metric = self._ranking
        place = rank([one.mean(metric.name) for one in scores], metric) if metric else (0.0, 0.0), self._seen
        self._seen += 1
        if self._failures or self._room < 1 or (self._bar is not None and place >= self._bar):
            return
        name, num_frames, worst = scores[0].name, len(real_T3HW), None
        if metric:
            series = [one.in_windows(metric.name)[window] for one in scores]
            known = [[value for value in values if value is not None] for values in series]
            worst = worst_frame(known, num_frames, metric)
        try:
            media = picture(name, real_T3HW, generated, frame_rate, worst)
        except (VaectlError, OSError) as error:
            self._failures.append(str(error))
            return
        if first := window * num_frames:
            media = replace(media, first=first, frame=first + media.frame)
        self._kept.append((*place, media))
        self._tidy()

    def gather(self) -> None:
        """Collect the pictures of all ranks. Every rank has to call it."""
        builders = gather((self._kept, self._failures))
        self._kept = [kept for others, _ in builders for kept in others]
        self._failures = [failure for _, failures in builders for failure in failures]
        self._tidy()

    def _tidy(self) -> None:
        """Sort the clips, worst first, and drop those that exceed the limits."""
        self._kept.sort(key=lambda kept: kept[:2])
        while len(self._kept) > self._room or (len(self._kept) > 1 and self._size() > MEDIA_BYTES):
            self._bar = self._kept.pop()[:2]

    def write(self, path: Path, comparison: Comparison) -> None:
        """Write the page to `path` atomically; replaces an existing file.

        Raises UsageError if `path` cannot be written, OSError if the disk is full, and VaectlError if the page is
        written but lacks pictures, because there was no room for temporary files.
        """
        with atomic_write(path, overwrite=True) as temporary:
            kept = [media for _, _, media in self._kept]
            temporary.write_bytes(document(comparison, self._names, kept, self._ranking))
        if self._failures:
            raise VaectlError(
                f"{path}: written, but lacks pictures: {self._failures[0]}", "set TMPDIR to a folder with more space"
            )

    def _size(self) -> int:
        return sum(media.size for _, _, media in self._kept)


def rank(values: Sequence[float], metric: MetricFacts) -> Rank:
    """Return the sort key of something that each candidate has a value for; lower is worse.

    Its first part is the mean of the values. The second is the worst of them, for candidates that are exact.
    """
    sign = 1 if metric.better == "higher" else -1
    ranks = [-math.inf if math.isnan(value) else sign * value for value in values]
    worst = min(ranks)
    return sum(ranks) / len(ranks) if worst > -math.inf else worst, worst


def worst_frame(series: Sequence[Sequence[float]], num_frames: int, metric: MetricFacts) -> int:
    """Return the index of the worst of `num_frames` frames; `series` has the values of each candidate.

    If there are fewer values than frames, they belong to the last frames: a change counts for the second frame.
    """
    ranks = [rank(values, metric) for values in zip(*series, strict=True)]
    return num_frames - len(ranks) + ranks.index(min(ranks)) if ranks else 0
