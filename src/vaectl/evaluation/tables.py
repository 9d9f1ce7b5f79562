"""Every number of an evaluation as a CSV file, for whoever wants to plot or to count for themselves."""

from __future__ import annotations

import csv
from pathlib import Path

from vaectl.evaluation.results import Evaluation
from vaectl.io.atomic_write import atomic_write


def write_csv(path: Path, evaluation: Evaluation) -> None:
    """One row for each clip and frame, counted from 0, with a column for each metric of frames, at full precision.

    A metric of neighbouring frames stands in the row of the second, and leaves that of the first empty. An exact frame
    has a PSNR of inf. It is UTF-8 also where a name is not: such bytes are written as `\\udcff`, as on the screen.
    Replaces what is there, all or nothing.
    """
    metrics = [metric.name for metric in evaluation.metrics if not metric.of_set]
    with (
        atomic_write(path, overwrite=True) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["clip", "frame", *metrics])
        for clip in evaluation.clips:
            columns = [("",) * (clip.num_frames - len(clip.values[name])) + clip.values[name] for name in metrics]
            rows.writerows([clip.name, frame, *row] for frame, row in enumerate(zip(*columns, strict=True)))
