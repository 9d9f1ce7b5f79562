"""The tables of a comparison in Markdown and LaTeX: of the metrics, of the costs, and of the differences."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import vaectl
from vaectl.errors import shown
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.paper import (
    ARROWS,
    BEST,
    MARKS,
    SECOND,
    Column,
    cost_columns,
    cost_remarks,
    difference_blocks,
    difference_remarks,
    difference_table,
    incomplete,
    marked,
    metric_columns,
    metric_remarks,
    protocol_text,
    split,
)
from vaectl.evaluation.protocols import frames_in_words
from vaectl.evaluation.results import counted
from vaectl.io.atomic_write import atomic_write
from vaectl.metrics import METRICS

COST_TITLES = {"compression": "Compr.", "channels": "Ch."}
"""Short titles for LaTeX; its caption spells them out."""
LATENT = (
    "Compr.: frames \N{MULTIPLICATION SIGN} height \N{MULTIPLICATION SIGN} width for each position of the latent."
    " Ch.: its channels. Bpp: its bits per pixel"
)
PAGE, LETTER, GAP = 345.0, 5.0, 8.0
"""Width in points of the text of a LaTeX article, of a letter in its size small, and of what separates columns."""


def write_markdown(path: Path, comparison: Comparison) -> None:
    """Write the tables in the Markdown of GitHub. Replaces `path`."""
    lines = _markdown_table(comparison, metric_columns(comparison))
    lines += ["", *_markdown_list([_caption(comparison), *_below_caption(comparison)])]
    if costs := cost_columns(comparison):
        lines += ["", *_markdown_table(comparison, costs), ""]
        lines += _markdown_list(list(cost_remarks(comparison.evaluations)))
    if comparison.differences:
        titles, rows, names = difference_table(comparison, paper_name)
        cells = [[_markdown(_capital(cell)) for cell in titles], [":--"] * names + ["--:"] * (len(titles) - names)]
        lines += ["", *_markdown_rows([*cells, *([_markdown(shown(cell)) for cell in row] for row in rows)]), ""]
        lines += _markdown_list(list(difference_remarks(comparison)))
    lines += ["", f"<!-- {_statement(comparison).replace('>', chr(92) + 'u003e')} -->"]
    _write(path, lines)


def write_latex(path: Path, comparison: Comparison) -> None:
    """Write the tables in LaTeX, for booktabs; columns that are too wide for a page go below. Replaces `path`."""
    label = f"tab:{re.sub('[^A-Za-z0-9]+', '-', path.stem)}"
    captions = [_caption(comparison, short=True), *_below_caption(comparison)]
    lines = [f"% {_statement(comparison)}", r"% Needs \usepackage{booktabs}.", ""]
    lines += _float(_tabulars(comparison, metric_columns(comparison)), captions, label)
    if costs := cost_columns(comparison):
        measured = list(cost_remarks(comparison.evaluations))
        captions = ["Cost", *measured, LATENT, *["Fps: frames per second"] * bool(measured)]
        lines += ["", *_float(_tabulars(comparison, costs), captions, f"{label}-cost")]
    if comparison.differences:
        captions = list(difference_remarks(comparison))
        lines += ["", *_float([_differences(comparison)], captions, f"{label}-differences")]
    _write(path, lines)


def paper_name(metric: str) -> str:
    """Return the name of a metric as papers print it: SSIM, but Flicker."""
    return "Flicker" if metric == "flicker" else metric.replace("_", "-").upper()


def _capital(text: str) -> str:
    return text if text == "p" else text[:1].upper() + text[1:]


def _sentence(remark: str) -> str:
    """Return a remark with a capital, or with the names that papers use for the metrics that it is about."""
    about, colon, rest = remark.partition(":")
    names = about.split(", ")
    return ", ".join(map(paper_name, names)) + colon + rest if set(names) <= METRICS.keys() else _capital(remark)


def _name(column: Column) -> str:
    return paper_name(column.name) if column.better else _capital(column.name)


def _caption(comparison: Comparison, *, short: bool = False) -> str:
    """Return how many clips were compared and how; `short`: their size instead of the way to it."""
    count, protocol = comparison.clips, _public(comparison)
    sizes = {(clip.width, clip.height) for clip in comparison.evaluations[0].clips}
    read, text = protocol["clips"], protocol_text(protocol)
    if short and len(sizes) == 1 and isinstance(read, dict):
        width, height = sizes.pop()
        rgb = ", RGB by swscale" if read.get("rgb_conversion") == "swscale" else ""
        name = f"protocol {shown(protocol['name'])}, " if protocol.get("name") else ""
        text = f"{name}{frames_in_words(read, ' frames')} of {width}x{height}{rgb}"
    return f"{counted(count, 'clip')}: {text}"


def _below_caption(comparison: Comparison) -> list[str]:
    marks = [MARKS] if marked(comparison) else []
    return [*incomplete(comparison.evaluations), *metric_remarks(comparison.evaluations), *marks]


def _unit(column: Column) -> str:
    return f"({column.unit})" if column.unit else ""


def _join(*words: str) -> str:
    return " ".join(filter(None, words))


def _statement(comparison: Comparison) -> str:
    """Return the protocol as one line of JSON."""
    return f"vaectl {vaectl.__version__}, protocol: {json.dumps(_public(comparison))}"


def _public(comparison: Comparison) -> dict[str, Any]:
    """Return the protocol without folders, which may be private: weights and a protocol of the user by file name."""
    paths = ("real_video_dir", "generated_video_dir", "model")
    given = comparison.evaluations[0].protocol
    protocol = {key: _without_folders(value) for key, value in given.items() if key not in paths}
    name = protocol.get("name")
    return protocol | ({"name": PurePath(name).name} if name else {})


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    path, comma, checksum = value.partition(", SHA-256 ") if isinstance(value, str) else ("", "", "")
    return PurePath(path).name + comma + checksum if comma else value


def _rows(
    comparison: Comparison,
    columns: Sequence[Column],
    escape: Callable[[str], str],
    figure: Callable[[str], str],
    marks: dict[int, str],
) -> Iterator[list[str]]:
    """Yield a row of finished cells for each candidate: `escape` finishes its name, `figure` a number."""
    for number, evaluation in enumerate(comparison.evaluations):
        cells = [column.cells[number] for column in columns]
        yield [escape(shown(evaluation.name)), *(marks[rank] % (figure(text) or "-") for text, rank in cells)]


# Markdown

MARKDOWN_MARKS = {0: "%s", BEST: "**%s**", SECOND: "<ins>%s</ins>"}
MARKDOWN = {ord(letter): f"\\{letter}" for letter in "\\`*_{}[]<>#|~$"}


def _markdown(text: str) -> str:
    return text.translate(MARKDOWN)


def _markdown_table(comparison: Comparison, columns: Sequence[Column]) -> list[str]:
    titles = [_markdown(_join(_name(column), _unit(column), ARROWS[column.better])) for column in columns]
    rows = _rows(comparison, columns, _markdown, _markdown, MARKDOWN_MARKS)
    return _markdown_rows([["Candidate", *titles], [":--", *["--:"] * len(columns)], *rows])


def _markdown_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in rows]


def _markdown_list(lines: Sequence[str]) -> list[str]:
    return [f"- {_markdown(_sentence(line))}" for line in lines]


# LaTeX

LATEX_MARKS = {0: "%s", BEST: r"\textbf{%s}", SECOND: r"\underline{%s}"}
LATEX = {ord(letter): f"\\{letter}" for letter in "{}$&#_%"} | {
    ord("\\"): r"\textbackslash{}",
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
    ord("<"): r"\textless{}",
    ord(">"): r"\textgreater{}",
    ord("|"): r"\textbar{}",
    ord("["): "{[}",  # after the end of a row, [ and * would be read as its arguments
    ord("*"): "{*}",
    ord("`"): r"\textasciigrave{}",
    ord("\N{MULTIPLICATION SIGN}"): r"$\times$",
    ord("↑"): r"$\uparrow$",
    ord("↓"): r"$\downarrow$",
}
FIGURE = re.compile(r"[-+]?(inf|\d[\d.x]*)( to [-+]?(inf|[\d.]+))?")


def _latex(text: str) -> str:
    """Escape text."""
    return text.translate(LATEX).replace("--", "-{}-")


def _latex_figure(text: str) -> str:
    """Give a figure the signs of mathematics; escape other text."""
    if FIGURE.fullmatch(text):
        return text.replace("-", "$-$").replace("x", r"$\times$").replace("inf", r"$\infty$")
    return _latex(text)


def _tabulars(comparison: Comparison, columns: Sequence[Column]) -> Iterator[list[str]]:
    """Yield the tables of these columns, as many as the width of a page needs."""
    names = LETTER * max(len("Candidate"), *(len(shown(each.name)) for each in comparison.evaluations))
    for table in split(columns, _width, PAGE - names):
        heads = [["Candidate"], *map(_head, table)]
        depth = max(map(len, heads))
        titles = zip(*([""] * (depth - len(head)) + [_latex(line) for line in head] for head in heads), strict=True)
        yield _tabular(
            list(titles), [_latex_row(row) for row in _rows(comparison, table, _latex, _latex_figure, LATEX_MARKS)]
        )


def _head(column: Column) -> list[str]:
    """Return the lines of a title: words, the last one with an arrow, and the unit."""
    words = COST_TITLES.get(column.name, _name(column)).split()
    return [*words[:-1], _join(words[-1], ARROWS[column.better]), *filter(None, [_unit(column)])]


def _width(column: Column) -> float:
    return LETTER * max(map(len, (*_head(column), *(text for text, _ in column.cells)))) + GAP


def _differences(comparison: Comparison) -> list[str]:
    """Return the table of differences, with a heading for each pair."""
    titles, blocks = difference_blocks(comparison, paper_name)
    body: list[str] = []
    for (candidate, against), rows in blocks.items():
        pair = _latex(f"{shown(candidate)} against {shown(against)}")
        heading = rf"\multicolumn{{{len(titles)}}}{{l}}{{{pair}}} \\"
        body += [*([r"\midrule"] if body else []), heading]
        body += [_latex_row([_latex_figure(shown(cell)) for cell in row]) for row in rows]
    return _tabular([[_latex(_capital(title)) for title in titles]], body)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tabular(titles: Sequence[Sequence[str]], body: Sequence[str]) -> list[str]:
    return [
        rf"\begin{{tabular}}{{l{'r' * (len(titles[0]) - 1)}}}",
        r"\toprule",
        *map(_latex_row, titles),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _float(tabulars: Iterable[list[str]], captions: Sequence[str], label: str) -> list[str]:
    """Return a table with its caption, one sentence for each of `captions`."""
    caption = _latex(" ".join(f"{_sentence(line).rstrip('.')}." for line in captions))
    caption = re.sub(r"( of | crop )(\d+)x(\d+)", r"\1$\2\\times\3$", caption)
    body = [line for tabular in tabulars for line in (*tabular, r"\par\medskip")][:-1]
    return [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        *body,
        r"\end{table}",
    ]


def _write(path: Path, lines: Sequence[str]) -> None:
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
