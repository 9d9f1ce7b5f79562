"""`vaectl eval`: run the job of the same name and show its numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from vaectl.cli.comparison import REASONS
from vaectl.memory import format_size

if TYPE_CHECKING:
    from vaectl.evaluation.results import Cost, Evaluation
    from vaectl.options import EvalOptions

EXAMPLES = """
Examples:
  vaectl eval --real-video-dir clips/ --generated-video-dir out/
  vaectl eval --real-video-dir clips/ --model model/ --report report.html
  vaectl eval --real-video-dir clips/ --model model/ --protocol vidtok
  vaectl eval --real-video-dir clips/ --model builtin --model ours=model/ \\
    --generated-video-dir theirs=out/ --latex table.tex
  vaectl eval --real-video-dir a.mp4 --generated-video-dir b.mp4 \\
    --metric psnr,flicker --num-frames 120 --crop-size 0 --csv numbers.csv
"""

CLIPS = 20
"""With more clips, the table of clips is left out."""


def eval(options: EvalOptions) -> None:
    """Compare reconstructions with their originals.

    Computes all metrics in one pass and reads each clip once. The default protocol is that of the published tables:
    take the first frames, resize the shorter side, crop the centre, compare 8-bit frames; --protocol names others. With
    --model, eval reconstructs the originals in memory first; the numbers equal those of prepare-eval followed by eval.
    Repeat --model and --generated-video-dir to compare several candidates.
    """
    from vaectl.cli.comparison import show as show_comparison
    from vaectl.cli.console import reporter, say
    from vaectl.cli.spelling import as_json
    from vaectl.distributed import is_main
    from vaectl.evaluation.evaluate import evaluate
    from vaectl.evaluation.outputs import Interrupted

    with reporter() as progress:
        if options.mp:
            progress.note("--mp has no effect: clips are always decoded in parallel (--num-workers)")
        if options.sample_fps is not None:
            progress.note("--sample-fps has no effect: --sample-rate and --frame-rate choose the frames")
        if options.cost and not options.model:
            progress.note("--cost has no effect: no model runs (--model)")
        try:
            comparison, stop = evaluate(options, progress), None
        except Interrupted as error:
            comparison, stop = error.comparison, error
    if not is_main():
        return
    if options.json:
        print(as_json(comparison.as_json()))
    elif len(comparison.evaluations) == 1:
        show(comparison.evaluations[0])
    else:
        show_comparison(comparison)
    evaluation = comparison.evaluations[0]
    for failure in evaluation.failures[:REASONS]:
        say("error", failure)
    if len(evaluation.failures) > REASONS:
        say("error", f"{len(evaluation.failures) - REASONS} more like these; --json lists them all")
    if stop:
        sys.stdout.flush()
        raise stop
    if evaluation.failures:
        raise typer.Exit(1)


def underlying(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options below the `given` ones: those of the protocol."""
    from vaectl.evaluation.protocols import options_of_protocol

    return options_of_protocol(given)


def show(evaluation: Evaluation) -> None:
    """Print the table of clips if they are few, the table of metrics, and the settings, on stdout."""
    from vaectl.cli.comparison import written
    from vaectl.cli.tables import print_line, print_table, stdout

    console = stdout()
    if 1 < len(evaluation.clips) <= CLIPS:
        metrics = [metric.name for metric in evaluation.metrics if not metric.of_set]
        print_table(console, ("clip", "frames", "size", *metrics), clip_rows(evaluation, metrics))
    print_table(console, ("metric", "mean", "95 % interval", "worst", "of clip"), metric_rows(evaluation), names=(0, 4))
    for line in (*remarks(evaluation), *written(evaluation)):
        print_line(console, line)


def metric_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """Yield a row for each metric: mean over the clips, confidence interval, worst clip."""
    from vaectl.evaluation.results import format_number

    for metric in evaluation.metrics:
        label = f"{metric.name}{f' ({metric.unit})' if metric.unit else ''} {'↑' if metric.better == 'higher' else '↓'}"
        if metric.of_set and metric.name not in evaluation.set_values:
            yield label, "none"
            continue
        summary, number = evaluation.summary(metric.name), partial(format_number, metric=metric.name)
        interval, worst = "", ""
        if summary.low is not None and summary.high is not None:
            interval = f"{number(summary.low)} to {number(summary.high)}"
        if summary.worst is not None:
            worst = number(evaluation.worst_first(metric.name)[0].mean(metric.name))
        yield label, number(summary.mean), interval, worst, summary.worst or ""


def clip_rows(evaluation: Evaluation, metrics: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each clip: the mean over its frames of each of `metrics`."""
    from vaectl.evaluation.results import format_number

    for clip in evaluation.clips:
        means = [format_number(clip.mean(metric), metric) for metric in metrics]
        yield clip.name, str(clip.num_frames), f"{clip.width}x{clip.height}", *means


def cost_lines(evaluation: Evaluation, cost: Cost) -> Iterator[str]:
    """Yield a line about the latent, and two about speed and memory if they were measured."""
    from vaectl.evaluation.paper import cost_remarks, two_digits

    time, space = cost.compression
    yield (
        f"latent: {time}x{space}x{space} to {cost.latent_channels} channels, {cost.bits_per_pixel:.3g} bits a pixel;"
        f" {cost.parameters / 1e6:.1f}M parameters"
    )
    if cost.encode_peak_memory is not None and cost.decode_peak_memory is not None:
        yield (
            f"encode: {two_digits(cost.encode_frames_per_second)} frames/s, {format_size(cost.encode_peak_memory)};"
            f" decode: {two_digits(cost.decode_frames_per_second)} frames/s, {format_size(cost.decode_peak_memory)}"
        )
    yield from cost_remarks([evaluation])


def remarks(evaluation: Evaluation) -> Iterator[str]:
    """Yield the lines below the tables: exact frames, clips left out, and the settings."""
    from vaectl.cli.comparison import exact_lines, measured_line, model_in_words, position_lines, window_lines
    from vaectl.cli.spelling import spell_options
    from vaectl.evaluation.paper import incomplete, metric_remarks
    from vaectl.evaluation.protocols import frames_in_words, name_in_words
    from vaectl.evaluation.statistics import caveats

    clips, protocol = evaluation.clips, evaluation.protocol
    read, model = protocol["clips"], protocol["model"]
    yield from exact_lines(evaluation)
    yield from metric_remarks([evaluation])
    if any(not metric.of_set for metric in evaluation.metrics):
        yield from caveats(len(clips), "intervals")
    yield from position_lines(evaluation)
    yield from incomplete([evaluation])
    if not evaluation.failures:
        yield from (f"  {spell_options(reason)}" for reason in list(evaluation.left_out.values())[:REASONS])
    if name := name_in_words(protocol):
        yield spell_options(f"protocol: {name}")
    rgb = "; RGB by swscale" if read.get("rgb_conversion") == "swscale" else ""
    yield f"frames: {frames_in_words(read)}{rgb}; {read['resize']}; crop {read['crop']}"
    yield from window_lines(evaluation)
    if model:
        yield f"model: {model_in_words(model)}"
    if evaluation.cost:
        yield from cost_lines(evaluation, evaluation.cost)
    yield measured_line(evaluation)
