"""Show the results of several candidates on stdout: a row for each, then their differences. For eval and compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from vaectl.evaluation.comparison import Comparison
    from vaectl.evaluation.paper import Column
    from vaectl.evaluation.results import Evaluation

REASONS = 10
"""Maximum number of reasons shown; --json has all."""


def show(comparison: Comparison) -> None:
    """Print the table of metrics, that of costs if any is known, the differences, and how they were measured."""
    from vaectl.cli.tables import print_line, print_table, stdout
    from vaectl.evaluation.paper import cost_columns, difference_table, metric_columns, protocol_text, remarks

    console = stdout()
    names = [evaluation.name for evaluation in comparison.evaluations]
    for columns in metric_columns(comparison), cost_columns(comparison):
        for fitting in _chunks(console, names, columns):
            _print_columns(console, names, fitting)
    if comparison.differences:
        titles, rows, count = difference_table(comparison)
        print_table(console, titles, rows, names=range(count))
    print_line(console, "* best" if console.color_system is None else "best in bold, second underlined")
    for line in (*remarks(comparison), f"frames: {protocol_text(comparison.evaluations[0].protocol)}"):
        print_line(console, line)
    for line in (*_left_out(comparison), *map(_source, comparison.evaluations)):
        print_line(console, line)


def _chunks(console: Console, names: Sequence[str], columns: Sequence[Column]) -> Iterator[list[Column]]:
    """Yield the columns in as many tables as they need next to the names."""
    from rich.cells import cell_len

    longest = max(map(cell_len, ("candidate", *names)))
    free = room = console.width - min(longest, max(console.width // 3, 12)) - 2
    chunk: list[Column] = []
    for column in columns:
        width = max(map(cell_len, (*_title(column).split("\n"), *(f"{text} " for text, _ in column.cells)))) + 2
        if chunk and width > free:
            yield chunk
            chunk, free = [], room
        chunk.append(column)
        free -= width
    if chunk:
        yield chunk


def _print_columns(console: Console, names: Sequence[str], columns: Sequence[Column]) -> None:
    from vaectl.cli.tables import print_table
    from vaectl.evaluation.paper import BEST, SECOND

    plain = console.color_system is None
    ends = {BEST: "*", SECOND: " ", 0: " "} if plain else dict.fromkeys((BEST, SECOND, 0), "")
    rows = [
        [f"{text or '-'}{ends[rank]}" for text, rank in cells]
        for cells in zip(*(c.cells for c in columns), strict=True)
    ]
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

    return f"{column.name} {ARROWS[column.better]}".rstrip() + (f"\n{column.unit}" if column.unit else "")


def _left_out(comparison: Comparison) -> Iterator[str]:
    """Yield how many clips were not compared, and why."""
    from vaectl.cli.spelling import spell_options

    reasons = {name: why for evaluation in comparison.evaluations for name, why in evaluation.left_out.items()}
    if stopped := max(evaluation.stopped_before for evaluation in comparison.evaluations):
        yield f"stopped: {stopped} more clips were not compared"
    if reasons:
        yield f"left out: {len(reasons)} of {len(reasons) + comparison.clips} clips"
        yield from (f"  {spell_options(reason)}" for reason in list(reasons.values())[:REASONS])


def _source(evaluation: Evaluation) -> str:
    """Return the line that says where a candidate comes from."""
    protocol = evaluation.protocol
    model, made = protocol.get("model"), protocol.get("generated_video_dir")
    parts = [f"{made}" if made else ""]
    if model:
        kind = {"ema": " (EMA weights)", "raw": " (raw weights)"}.get(model.get("weights"), "")
        path = "built-in model" if model.get("path") in (None, "builtin") else f"{model['path']}{kind}"
        parts.append(f"{path} in {model.get('dtype')}, posterior {model.get('posterior')}")
    return f"{evaluation.name}: {'; '.join(filter(None, parts)) or 'in memory'}"
