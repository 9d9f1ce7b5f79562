"""Every number of an evaluation as a CSV file, for plots and statistics of your own."""

from __future__ import annotations

import csv
from itertools import chain
from pathlib import Path

from vaectl.evaluation.comparison import Comparison
from vaectl.io.atomic_write import atomic_write


def write_csv(path: Path, comparison: Comparison) -> None:
    """Write one row for each clip and frame (from 0), with a column for each metric of frames, at full precision.

    Of several candidates, the first column names the candidate; a metric that one does not have is empty. A metric of
    neighbouring frames is in the row of the second frame; the row of frame 0 is empty. An exact frame has a PSNR of
    inf. The file is UTF-8; bytes of names that are not are written as `\\udcff`. Replaces `path` atomically.
    """
    metrics = [metric.name for metric in comparison.metrics if not metric.of_set]
    several = len(comparison.evaluations) > 1
    with (
        atomic_write(path, overwrite=True) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*(["candidate"] if several else []), "clip", "frame", *metrics])
        for evaluation in comparison.evaluations:
            of = [evaluation.name] if several else []
            for clip in evaluation.clips:
                columns = [chain.from_iterable(clip.in_windows(name)) for name in metrics]
                rows.writerows([*of, clip.name, frame, *row] for frame, row in enumerate(zip(*columns, strict=True)))
