"""The tables of a comparison as papers print them: their columns and texts, and files in Markdown and LaTeX.

The command line shows the same columns. Knows no console.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import vaectl
from vaectl.errors import shown
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.protocols import frames_in_words, name_in_words
from vaectl.evaluation.results import Cost, Evaluation, MetricFacts, format_number
from vaectl.evaluation.statistics import caveats
from vaectl.io.atomic_write import atomic_write
from vaectl.metrics import OF_FFMPEG

BEST, SECOND = 1, 2
ARROWS = {"higher": "↑", "lower": "↓", "": ""}
MARKS = "Best in bold, second underlined."


@dataclass(frozen=True)
class Column:
    """A column of a table with a row for each candidate."""

    name: str
    unit: str
    better: str
    """higher, lower, or empty."""
    cells: tuple[tuple[str, int], ...]
    """Text and rank for each candidate: `BEST`, `SECOND` or 0. The text is empty if it has no number."""


COSTS: tuple[tuple[str, str, Callable[[Cost], str]], ...] = (
    ("parameters", "M", lambda cost: f"{cost.parameters / 1e6:.1f}"),
    ("compression", "", lambda cost: f"{cost.compression[0]}x{cost.compression[1]}x{cost.compression[1]}"),
    ("channels", "", lambda cost: str(cost.latent_channels)),
    ("latent", "bits/pixel", lambda cost: f"{cost.bits_per_pixel:.3f}"),
    ("encode", "frames/s", lambda cost: _measured(cost.encode_frames_per_second, 1)),
    ("decode", "frames/s", lambda cost: _measured(cost.decode_frames_per_second, 1)),
    ("encode", "GiB", lambda cost: _measured(cost.encode_peak_memory, 2, 2**30)),
    ("decode", "GiB", lambda cost: _measured(cost.decode_peak_memory, 2, 2**30)),
)
"""Name, unit and text of each part of the cost of a model; the text is empty if it was not measured."""


def _measured(value: float | None, decimals: int, unit: int = 1) -> str:
    return "" if value is None else f"{value / unit:.{decimals}f}"


def metric_columns(comparison: Comparison) -> list[Column]:
    """Return a column for each metric."""
    return [
        Column(metric.name, metric.unit, metric.better, tuple(_ranked(metric, comparison.evaluations)))
        for metric in comparison.metrics
    ]


def _ranked(metric: MetricFacts, evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, int]]:
    """Yield the number of each candidate and its rank.

    All have as many decimals. Equal texts have equal ranks, and there are none if all are equal.
    """
    known = [each.mean(metric.name) if metric.name in each.measured else None for each in evaluations]
    decimals = 2 if any(value is not None and abs(value) >= 10 for value in known) else 4
    texts = ["" if value is None else f"{value:.{decimals}f}" for value in known]
    order = sorted({float(text) for text in texts if text}, reverse=metric.better == "higher")
    ranks = {value: rank for rank, value in enumerate(order[:2], BEST)} if len(order) > 1 else {}
    for text in texts:
        yield text, ranks.get(float(text), 0) if text else 0


def cost_columns(comparison: Comparison) -> list[Column]:
    """Return a column for each part of the cost that is known of a candidate."""
    costs = [evaluation.cost for evaluation in comparison.evaluations]
    columns = [
        Column(name, unit, "", tuple((text(cost) if cost else "", 0) for cost in costs)) for name, unit, text in COSTS
    ]
    return [column for column in columns if any(text for text, _ in column.cells)]


def difference_table(
    comparison: Comparison, title: Callable[[str], str] = str
) -> tuple[list[str], list[list[str]], int]:
    """Return titles and a row for each difference, and how many columns hold names; `title` titles a metric.

    The column of the other candidate is left out if all are compared with the first.
    """
    arrows = {metric.name: ARROWS[metric.better] for metric in comparison.metrics}
    titles = ["metric", "candidate", "against", "difference", "95 % interval", "wins", "p"]
    rows = []
    for row in comparison.differences:
        numbers = [abs(number) for number in (row.mean, row.low, row.high) if number is not None]
        largest = max(numbers, default=0.0)
        signed = f"{{:+.{2 if largest >= 10 else 4 if largest >= 0.001 or not largest else 6}f}}".format
        interval = "" if row.low is None or row.high is None else f"{signed(row.low)} to {signed(row.high)}"
        p = "" if row.p_corrected is None else "<0.001" if row.p_corrected < 0.0005 else f"{row.p_corrected:.3f}"
        mean = "none" if row.mean is None else signed(row.mean)
        names = [f"{title(row.metric)} {arrows[row.metric]}", row.candidate, row.against]
        rows.append([*names, mean, interval, f"{100 * row.win_rate:.0f} %", p])
    if comparison.all_pairs:
        return titles, rows, 3
    return titles[:2] + titles[3:], [row[:2] + row[3:] for row in rows], 2


def remarks(comparison: Comparison) -> Iterator[str]:
    """Yield what a reader has to know about the numbers and their differences, a line each."""
    yield from codec_remarks(comparison.evaluations)
    if not comparison.differences:
        return
    most = max(sum(row.metric == metric.name for row in comparison.differences) for metric in comparison.metrics)
    against = "against" if comparison.all_pairs else shown(comparison.evaluations[0].name)
    corrected = f", corrected after Holm for the {most} comparisons of each metric" if most > 1 else ""
    yield (
        f"difference: candidate minus {against}, mean over {comparison.clips} clips, paired; wins: share of clips in"
        f" which the candidate is better; p: paired permutation test{corrected}"
    )
    yield from caveats(comparison.clips)
    for metric in comparison.metrics:
        if metric.of_set:
            yield f"{metric.name}: one number for all clips, so no interval and no test"
        if any(row.metric == metric.name and row.p is None for row in comparison.differences) and comparison.clips > 1:
            yield f"{metric.name}: no interval and no test where a frame is exact in one candidate only"


def codec_remarks(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Yield the harmonic means and the model of vmaf and vmaf_neg, and what FFmpeg's metrics compare."""
    facts: dict[str, dict[str, str]] = {}
    for name in OF_FFMPEG:
        having = [each for each in evaluations if any(metric.name == name for metric in each.metrics)]
        if not having or name not in having[0].protocol["metrics"]:
            continue
        facts[name] = known = {key: shown(value) for key, value in having[0].protocol["metrics"][name].items()}
        means = [
            f"{shown(each.name)} {format_number(mean)}" if len(evaluations) > 1 else format_number(mean)
            for each in having
            if (mean := each.summary(name).harmonic_mean) is not None
        ]
        if means:
            library = f"libvmaf {known['libvmaf']} of {known['ffmpeg_of']}"
            yield f"{name}: harmonic mean {', '.join(means)}, model {known['model']}, {library}"
    if facts:
        yield f"{', '.join(facts)}: of frames in {next(iter(facts.values()))['frames']}"


def protocol_text(protocol: dict[str, Any]) -> str:
    """Return in a line which frames were compared, at what size."""
    clips = protocol["clips"]
    if not isinstance(clips, dict):
        return f"clips {shown(clips)}"
    name = f"{shown(name_in_words(protocol))}: " if protocol.get("name") else ""
    rgb = ", RGB by swscale" if clips.get("rgb_conversion") == "swscale" else ""
    return f"{name}{frames_in_words(clips, ' frames')}{rgb}, {shown(clips['resize'])}, crop {shown(clips['crop'])}"


# Files

Cell: TypeAlias = tuple[str, int]


def write_markdown(path: Path, comparison: Comparison) -> None:
    """Write the table in the Markdown of GitHub, of several candidates also their differences. Replaces `path`."""
    lines = [*_markdown_table(*_table(comparison, _markdown)), "", _markdown(_caption(comparison)), ""]
    if comparison.differences:
        lines += _markdown_table(*_difference_table(comparison, _markdown))
        lines += ["", *(f"- {_markdown(line)}" for line in remarks(comparison)), ""]
    lines.append(f"<!-- {_statement(comparison).replace('>', chr(92) + 'u003e')} -->")
    _write(path, lines)


def write_latex(path: Path, comparison: Comparison) -> None:
    """Write the table in LaTeX, for booktabs, of several candidates also their differences. Replaces `path`."""
    lines = [f"% {_statement(comparison)}", r"% Needs \usepackage{booktabs}.", ""]
    lines += _latex_table(*_table(comparison, _latex), _latex(_caption(comparison)))
    if comparison.differences:
        caption = ". ".join(line[0].upper() + line[1:] for line in remarks(comparison)) + "."
        lines += ["", *_latex_table(*_difference_table(comparison, _latex), _latex(caption))]
    _write(path, lines)


def _table(comparison: Comparison, escape: Callable[[str], str]) -> tuple[list[str], list[list[Cell]], int]:
    """Return the titles and the rows of the table of candidates, and how many columns hold names."""
    columns = [*metric_columns(comparison), *cost_columns(comparison)]
    titles = [escape(_title(column)) for column in columns]
    names = [escape(shown(evaluation.name)) for evaluation in comparison.evaluations]
    rows = [
        [(name, 0), *((escape(text) or "-", rank) for text, rank in cells)]
        for name, *cells in zip(names, *(column.cells for column in columns), strict=True)
    ]
    return ["Model", *titles], rows, 1


def _difference_table(comparison: Comparison, escape: Callable[[str], str]) -> tuple[list[str], list[list[Cell]], int]:
    titles, rows, names = difference_table(comparison, paper_name)
    return [*map(escape, titles)], [[(escape(shown(cell)), 0) for cell in row] for row in rows], names


def paper_name(metric: str) -> str:
    """Return the name of a metric as papers print it: SSIM, but Flicker."""
    return "Flicker" if metric == "flicker" else metric.replace("_", "-").upper()


def _title(column: Column) -> str:
    """Return the name of a column, with its unit and an arrow."""
    name = paper_name(column.name) if column.better else column.name.capitalize()
    return " ".join(filter(None, (name, f"({column.unit})" if column.unit else "", ARROWS[column.better])))


def _caption(comparison: Comparison) -> str:
    clips = f"{comparison.clips} clip{'s' * (comparison.clips != 1)}"
    marks = f" {MARKS}" if len(comparison.evaluations) > 1 else ""
    return f"{clips}: {protocol_text(comparison.evaluations[0].protocol)}.{marks}"


def _statement(comparison: Comparison) -> str:
    """Return the protocol as one line of JSON, without paths, which may be private."""
    paths = ("real_video_dir", "generated_video_dir", "model")
    protocol = {key: value for key, value in comparison.evaluations[0].protocol.items() if key not in paths}
    return f"vaectl {vaectl.__version__}, protocol: {json.dumps(protocol)}"


def _markdown_table(titles: Sequence[str], rows: Sequence[Sequence[Cell]], names: int) -> list[str]:
    marks = {0: "{}", BEST: "**{}**", SECOND: "<ins>{}</ins>"}
    cells = [list(titles), [":--"] * names + ["--:"] * (len(titles) - names)]
    cells += [[marks[rank].format(text) for text, rank in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in cells]


def _latex_table(titles: Sequence[str], rows: Sequence[Sequence[Cell]], names: int, caption: str) -> list[str]:
    marks = {0: "%s", BEST: r"\textbf{%s}", SECOND: r"\underline{%s}"}
    body = [" & ".join(marks[rank] % text for text, rank in row) + r" \\" for row in rows]
    return [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(titles) - names)}}}",
        r"\toprule",
        " & ".join(titles) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


MARKDOWN = {ord(letter): f"\\{letter}" for letter in "\\`*_{}[]<>#|~$"}
LATEX = {ord(letter): f"\\{letter}" for letter in "{}$&#_%"} | {
    ord("\\"): r"\textbackslash{}",
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
    ord("<"): r"\textless{}",
    ord(">"): r"\textgreater{}",
    ord("|"): r"\textbar{}",
    ord("["): "{[}",  # after the end of a row, [ and * would be read as its arguments
    ord("*"): "{*}",
    ord("↑"): r"$\uparrow$",
    ord("↓"): r"$\downarrow$",
}


def _markdown(text: str) -> str:
    return text.translate(MARKDOWN)


FIGURE = re.compile(r"[-+]?(inf|\d[\d.x]*)( to [-+]?(inf|[\d.]+))?")


def _latex(text: str) -> str:
    """Escape text; figures get signs of mathematics."""
    if FIGURE.fullmatch(text):
        return text.replace("-", "$-$").replace("x", r"$\times$").replace("inf", r"$\infty$")
    return text.translate(LATEX).replace("--", "-{}-")


def _write(path: Path, lines: Sequence[str]) -> None:
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
