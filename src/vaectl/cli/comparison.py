"""Show the results of several candidates on stdout: a row for each, then their differences. For eval and compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from vaectl.evaluation.comparison import Comparison
    from vaectl.evaluation.paper import Column
    from vaectl.evaluation.results import Evaluation

REASONS = 10
"""Maximum number of reasons shown; --json has all."""


def show(comparison: Comparison) -> None:
    """Print the table of metrics, that of costs if any is known, the differences, and how they were measured."""
    from vaectl.cli.spelling import spell_options
    from vaectl.cli.tables import print_line, stdout
    from vaectl.evaluation.paper import cost_columns, marked, metric_columns, protocol_text, remarks

    console = stdout()
    names = [evaluation.name for evaluation in comparison.evaluations]
    for columns in metric_columns(comparison), cost_columns(comparison):
        for fitting in _chunks(console, names, columns):
            _print_columns(console, names, fitting)
    if comparison.differences:
        _print_differences(console, comparison)
    if marked(comparison):
        print_line(console, "* best" if console.color_system is None else "best in bold, second underlined")
    for line in (*remarks(comparison), f"protocol: {protocol_text(comparison.evaluations[0].protocol)}"):
        print_line(console, spell_options(line))
    evaluations = comparison.evaluations
    lines = [*window_lines(evaluations[0]), *_left_out(comparison)]
    for each in evaluations:
        lines += [f"{each.name}: {line}" for line in (*exact_lines(each), *position_lines(each))]
    lines += [*map(_source, evaluations), *_measured_lines(evaluations), *written(evaluations[0])]
    for line in lines:
        print_line(console, line)


def _print_differences(console: Console, comparison: Comparison) -> None:
    """Print the differences in one table; if it does not fit with whole names, in one for each pair."""
    from rich.cells import cell_len

    from vaectl.cli.tables import print_heading, print_table
    from vaectl.evaluation.paper import difference_blocks, difference_table

    titles, rows, names = difference_table(comparison)
    widths = [max(map(cell_len, column)) for column in zip(titles, *rows, strict=True)]
    if sum(widths) + len(widths) - 1 <= console.width:
        print_table(console, titles, rows, names=range(names))
        return
    titles, blocks = difference_blocks(comparison)
    for (candidate, against), rows in blocks.items():
        print_heading(console, f"{candidate} against {against}")
        print_table(console, titles, rows)


def _chunks(console: Console, names: Sequence[str], columns: Sequence[Column]) -> Iterator[list[Column]]:
    """Yield the columns in as many tables as they need next to the names."""
    from rich.cells import cell_len

    from vaectl.evaluation.paper import split

    def width(column: Column) -> int:
        return max(map(cell_len, (*_title(column).split("\n"), *_texts(console, column)))) + 1

    longest = max(map(cell_len, ("candidate", *names)))
    return split(columns, width, console.width - min(longest, max(console.width // 3, 12)))


def _texts(console: Console, column: Column) -> list[str]:
    """Return the cells of a column; without colours, a star marks the best, and the others are padded."""
    from vaectl.evaluation.paper import BEST

    stars = console.color_system is None and any(rank for _, rank in column.cells)
    return [f"{text or '-'}{'*' if stars and rank == BEST else ' ' * stars}" for text, rank in column.cells]


def _print_columns(console: Console, names: Sequence[str], columns: Sequence[Column]) -> None:
    from vaectl.cli.tables import print_table
    from vaectl.evaluation.paper import BEST, SECOND

    rows = zip(*(_texts(console, column) for column in columns), strict=True)
    styles = {
        (row, place): {BEST: "bold", SECOND: "underline"}[rank]
        for place, column in enumerate(columns, 1)
        for row, (_, rank) in enumerate(column.cells)
        if rank
    }
    titles = ["candidate", *map(_title, columns)]
    print_table(console, titles, [[name, *row] for name, row in zip(names, rows, strict=True)], cell_styles=styles)


def _title(column: Column) -> str:
    from vaectl.evaluation.paper import ARROWS

    first, _, rest = column.name.partition(" ")
    return f"{first} {ARROWS[column.better]}".rstrip() + f"\n{rest} {column.unit}".rstrip().replace("\n ", "\n")


def _left_out(comparison: Comparison) -> Iterator[str]:
    """Yield how many clips were not compared, and why."""
    from vaectl.cli.spelling import spell_options
    from vaectl.evaluation.paper import incomplete

    reasons = {name: why for evaluation in comparison.evaluations for name, why in evaluation.left_out.items()}
    yield from incomplete(comparison.evaluations)
    yield from (f"  {spell_options(reason)}" for reason in list(reasons.values())[:REASONS])


def _source(evaluation: Evaluation) -> str:
    """Return the line that says where a candidate comes from."""
    protocol = evaluation.protocol
    model, made = protocol.get("model"), protocol.get("generated_video_dir")
    is_file = len(evaluation.clips) == 1 and str(evaluation.clips[0].generated) == str(made)
    parts = [f"{'file' if is_file else 'folder'} {made}"] if made else []
    if model:
        parts.append(f"{'made by ' if made else ''}{model_in_words(model)}")
    return f"{evaluation.name}: {', '.join(parts) or 'in memory'}"


def model_in_words(model: Mapping[str, Any]) -> str:
    """Return which model made the clips, and how, from its entry in the protocol."""
    kind = {"ema": " (EMA weights)", "raw": " (raw weights)"}.get(model.get("weights", ""), "")
    name = "built-in model" if model.get("path") in (None, "builtin") else f"{model['path']}{kind}"
    return f"{name} in {model.get('dtype')}, posterior {model.get('posterior')}"


def window_lines(evaluation: Evaluation) -> Iterator[str]:
    """Yield a line with the number of windows, if clips were measured in windows."""
    read = evaluation.protocol["clips"]
    if isinstance(read, dict) and read.get("all_windows"):
        clips = evaluation.clips
        windows, left_out = sum(clip.windows for clip in clips), sum(clip.frames_left_out for clip in clips)
        yield f"windows: {windows}; frames left out after the last one of a clip: {left_out}"


def exact_lines(evaluation: Evaluation) -> Iterator[str]:
    """Yield a line for each metric that is inf because of exact frames."""
    for metric in evaluation.metrics:
        values = [value for clip in evaluation.clips for value in clip.values.get(metric.name, ())]
        if exact := sum(map(math.isinf, values)):
            yield f"{metric.name}: {exact} of {len(values)} frames are exact, so it is inf"


def position_lines(evaluation: Evaluation) -> Iterator[str]:
    """Yield a line with the PSNR at each position of a latent group, if there are several and each has frames."""
    from vaectl.evaluation.position import by_position
    from vaectl.evaluation.results import format_number

    if not any(metric.name == "psnr" for metric in evaluation.metrics):
        return
    psnr = by_position(evaluation, "psnr")
    within = psnr.within_group or ()
    known = [format_number(value, "psnr") for value in within if value is not None]
    if len(known) == len(within) > 1 and psnr.first is not None:
        without = "; exact frames left out" if psnr.exact else ""
        first = format_number(psnr.first, "psnr")
        yield f"psnr by position in a group of {len(within)}: {' '.join(known)}; first frame {first}{without}"


def measured_line(evaluation: Evaluation) -> str:
    """Return the line about the time and the memory of the run."""
    device = evaluation.protocol.get("metrics", {}).get("device")
    return (
        f"measured{f' on {device}' if device else ''}: {evaluation.seconds:.1f} s, decoding"
        f" {evaluation.decode_seconds:.1f} s in parallel, peak memory {evaluation.peak_memory / 2**30:.2f} GiB"
    )


def _measured_lines(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Yield the line about the run; of several runs one for each candidate."""
    lines = [measured_line(each) for each in evaluations]
    if len(set(lines)) == 1:
        yield lines[0]
        return
    yield from (f"{each.name}: {line}" for each, line in zip(evaluations, lines, strict=True))


def written(evaluation: Evaluation) -> Iterator[str]:
    """Yield a line for each file that was written."""
    if evaluation.csv:
        yield f"numbers of all frames: {evaluation.csv}"
    for table in filter(None, (evaluation.markdown, evaluation.latex)):
        yield f"table: {table}"
    if evaluation.report:
        yield f"report: {evaluation.report} (open it in a browser)"
