"""`vaectl eval`: run the job of the same name and show its numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from vaectl.evaluation.results import Evaluation
    from vaectl.options import EvalOptions

EXAMPLES = """
Examples:
  vaectl eval --real-video-dir clips/ --generated-video-dir out/
  vaectl eval --real-video-dir clips/ --model model/ --report report.html
  vaectl eval --real-video-dir a.mp4 --generated-video-dir b.mp4 \\
    --metric psnr,flicker --num-frames 120 --crop-size 0 --csv numbers.csv
"""

CLIPS = 20
"""With more clips, the table of clips is left out."""
REASONS = 10
"""Maximum number of reasons shown; --json has all."""


def eval(options: EvalOptions) -> None:
    """Compare reconstructions with their originals.

    Computes all metrics in one pass and reads each pair of clips once. The protocol is that of the published tables:
    take the first frames, resize the shorter side, crop the centre, compare 8-bit frames. With --model, eval
    reconstructs the originals in memory first; the numbers equal those of prepare-eval followed by eval.
    """
    from vaectl.cli.console import reporter, say
    from vaectl.cli.spelling import as_json
    from vaectl.distributed import is_main
    from vaectl.evaluation.evaluate import Interrupted, evaluate

    with reporter() as progress:
        if options.mp:
            progress.note("--mp has no effect: clips are always decoded in parallel (--num-workers)")
        if options.sample_fps is not None:
            progress.note("--sample-fps has no effect: frames are chosen by --sample-rate")
        try:
            evaluation, stop = evaluate(options, progress), None
        except Interrupted as error:
            evaluation, stop = error.evaluation, error
    if not is_main():
        return
    if options.json:
        print(as_json(evaluation.as_json()))
    else:
        show(evaluation)
    for failure in evaluation.failures[:REASONS]:
        say("error", failure)
    if len(evaluation.failures) > REASONS:
        say("error", f"{len(evaluation.failures) - REASONS} more like these; --json lists them all")
    if stop:
        sys.stdout.flush()
        raise stop
    if evaluation.failures:
        raise typer.Exit(1)


def show(evaluation: Evaluation) -> None:
    """Print the table of clips if they are few, the table of metrics, and the settings, on stdout."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000  # do not wrap names in a pipe or a file
    if 1 < len(evaluation.clips) <= CLIPS:
        console.print(clips_table(evaluation))
    console.print(metrics_table(evaluation))
    for line in remarks(evaluation):
        console.print(Text(line), soft_wrap=True)


def metrics_table(evaluation: Evaluation) -> Table:
    """Build a row for each metric: mean over the clips, confidence interval, worst clip."""
    from rich.text import Text

    table = _table("metric")
    for title in ("mean", "95 % interval", "worst"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("of clip", overflow="fold", min_width=12)
    for metric in evaluation.metrics:
        label = f"{metric.name}{f' ({metric.unit})' if metric.unit else ''} {'↑' if metric.better == 'higher' else '↓'}"
        if metric.of_set and metric.name not in evaluation.set_values:
            table.add_row(label, "none")
            continue
        summary = evaluation.summary(metric.name)
        interval, worst = "", ""
        if summary.low is not None and summary.high is not None:
            interval = f"{_number(summary.low)} to {_number(summary.high)}"
        if summary.worst is not None:
            worst = _number(evaluation.worst_first(metric.name)[0].mean(metric.name))
        table.add_row(label, _number(summary.mean), interval, worst, Text(summary.worst or ""))
    return table


def clips_table(evaluation: Evaluation) -> Table:
    """Build a row for each clip: the mean over its frames of each metric of frames."""
    from rich.text import Text

    table = _table("clip", overflow="fold", min_width=12)
    metrics = [metric.name for metric in evaluation.metrics if not metric.of_set]
    for title in ("frames", "size", *metrics):
        table.add_column(title, justify="right", no_wrap=True)
    for clip in evaluation.clips:
        means = [_number(clip.mean(metric)) for metric in metrics]
        table.add_row(Text(clip.name), str(clip.num_frames), f"{clip.width}x{clip.height}", *means)
    return table


def remarks(evaluation: Evaluation) -> Iterator[str]:
    """Yield the lines below the tables: exact frames, clips left out, and the settings."""
    from vaectl.cli.spelling import spell_options

    clips, protocol = evaluation.clips, evaluation.protocol
    read, model = protocol["clips"], protocol["model"]
    for metric in evaluation.metrics:
        values = [value for clip in clips for value in clip.values.get(metric.name, ())]
        if exact := sum(map(math.isinf, values)):
            yield f"{metric.name}: {exact} of {len(values)} frames are exact, so it is inf"
    if evaluation.stopped_before:
        yield f"stopped: {evaluation.stopped_before} more clips were not compared"
    if evaluation.left_out:
        yield f"left out: {len(evaluation.left_out)} of {len(evaluation.left_out) + len(clips)} clips"
        if not evaluation.failures:
            yield from (f"  {spell_options(reason)}" for reason in list(evaluation.left_out.values())[:REASONS])
    every = f" (one in {read['sample_rate']})" if read["sample_rate"] > 1 else ""
    yield f"frames: {read['num_frames']}{every}; {read['resize']}; crop {read['crop']}"
    if model:
        kind = {"ema": " (EMA weights)", "raw": " (raw weights)"}.get(model.get("weights"), "")
        name = "built-in model" if model["path"] in (None, "builtin") else f"{model['path']}{kind}"
        yield f"model: {name} in {model['dtype']}, posterior {model['posterior']}"
    yield (
        f"measured on {protocol['metrics']['device']}: {evaluation.seconds:.1f} s, decoding"
        f" {evaluation.decode_seconds:.1f} s in parallel, peak memory {evaluation.peak_memory / 2**30:.2f} GiB"
    )


def _table(first: str, **settings: Any) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, **settings)
    return table


def _number(value: float) -> str:
    return f"{value:.{2 if abs(value) >= 10 else 4}f}"
