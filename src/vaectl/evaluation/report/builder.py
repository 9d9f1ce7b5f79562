"""Collect the pictures of a report during an evaluation, and write the page at its end.

Each frame is seen once. Only the pictures of the worst clips so far are kept, so neither memory nor the page grows with
the number of clips. The numbers come from the finished `Evaluation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from vaectl.distributed import gather
from vaectl.errors import VaectlError
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.report.document import document
from vaectl.evaluation.report.media import Media, picture
from vaectl.evaluation.results import ClipScores, MetricFacts
from vaectl.io.atomic_write import atomic_write

MEDIA_BYTES = 10 * 2**20
"""Limit for all pictures of a page, base64-encoded."""


class ReportBuilder:
    """Builds the report of one evaluation.

    Args:
        metrics: the metrics of the evaluation. The first metric of frames decides which clips are the worst; without
            one, the first clips are shown.
        clips_with_media: maximum number of clips with pictures; fewer if they would take more than `MEDIA_BYTES`.
    """

    def __init__(
        self, metrics: Sequence[MetricFacts], names: Sequence[str] = ("",), clips_with_media: int = 12
    ) -> None:
        self._ranking = next((metric for metric in metrics if not metric.of_set), None)
        self._room = clips_with_media
        self._seen = 0
        self._kept: list[tuple[float, int, Media]] = []  # worst first; the number keeps ties in order
        self._bar: tuple[float, int] | None = None  # only worse clips are kept
        self._failures: list[str] = []

    def add(
        self, scores_of_all: Sequence[ClipScores], real_T3HW: Tensor, generated: Sequence[Tensor], frame_rate: Fraction
    ) -> None:
        """Take the pictures of a pair of clips, (T, 3, H, W) uint8 RGB each, `frame_rate` in frames per second.

        If the folder for temporary files is full, the clip has no pictures and `write` reports it: the numbers of a
        long run are not lost for a video.
        """
        scores, generated_T3HW = scores_of_all[0], generated[0]
        place = self._rank(scores), self._seen
        self._seen += 1
        if self._failures or self._room < 1 or (self._bar is not None and place >= self._bar):
            return
        series = scores.values[self._ranking.name] if self._ranking else ()
        worst = worst_frame(series, scores.num_frames, self._ranking) if self._ranking else None
        try:
            media = picture(scores.name, real_T3HW, generated_T3HW, frame_rate, worst)
        except (VaectlError, OSError) as error:
            self._failures.append(str(error))
            return
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
            temporary.write_bytes(
                document(comparison.evaluations[0], [media for _, _, media in self._kept], self._ranking)
            )
        if self._failures:
            raise VaectlError(
                f"{path}: written, but lacks pictures: {self._failures[0]}", "set TMPDIR to a folder with more space"
            )

    def _rank(self, scores: ClipScores) -> float:
        """Return the sort key of a clip; lower is worse."""
        if self._ranking is None:
            return 0.0
        mean = scores.mean(self._ranking.name)
        if math.isnan(mean):
            return -math.inf
        return mean if self._ranking.better == "higher" else -mean

    def _size(self) -> int:
        return sum(media.size for _, _, media in self._kept)


def worst_frame(values: Sequence[float], num_frames: int, metric: MetricFacts) -> int:
    """Return the index of the worst of `num_frames` frames.

    If there are fewer values than frames, they belong to the last frames: a change counts for the second frame.
    """
    sign = 1 if metric.better == "higher" else -1
    ranks = [-math.inf if math.isnan(value) else sign * value for value in values]
    return num_frames - len(values) + ranks.index(min(ranks)) if ranks else 0
