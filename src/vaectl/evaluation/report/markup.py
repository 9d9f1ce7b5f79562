"""The parts of the page that need no script: a card for each metric of a candidate, the table of candidates, the facts.

Everything here returns HTML; names are escaped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.paper import (
    ARROWS,
    BEST,
    MARKS,
    SECOND,
    Column,
    cost_columns,
    cost_remarks,
    difference_remarks,
    difference_table,
    metric_columns,
    metric_remarks,
)
from vaectl.evaluation.results import Evaluation
from vaectl.metrics import FACTS, MetricFacts

BARS = 48
"""Bars per histogram. With few clips, each clip has its own bar."""
STYLES = 10
"""Number of different lines; style.css has their colours and dashes."""


def cards(evaluation: Evaluation, link: str = "") -> str:
    """Return a card for each metric with a number; `link` begins the fragment of a link to a clip."""
    return "".join(_card(evaluation, metric, link) for metric in _known(evaluation))


def _card(evaluation: Evaluation, metric: MetricFacts, link: str) -> str:
    summary = evaluation.summary(metric.name)
    means = [] if metric.of_set else [clip.mean(metric.name) for clip in evaluation.clips]
    decimals = FACTS[metric.name].decimals
    unit = f' <span class="unit">{escape(metric.unit)}</span>' if metric.unit else ""
    if metric.of_set:
        interval = f"one number for {count(len(evaluation.clips), 'clip')}"
    elif summary.low is None or summary.high is None:
        interval = "no interval: one clip" if len(means) == 1 else "no interval: not all numbers are finite"
    else:
        interval = f"95 % interval {written(summary.low, decimals)} to {written(summary.high, decimals)}"
    worst = ""
    if summary.worst is not None and len(means) > 1:
        number = next(n for n, clip in enumerate(evaluation.clips) if clip.name == summary.worst)
        worst = (
            f'<p class="worst"><span>Worst</span> <a href="#{link}clip={number}">{escape(summary.worst)}</a>'
            f" <b>{written(means[number], decimals)}</b></p>"
        )
    return (
        f'<article class="card" data-metric="{escape(metric.name)}"><h3>{escape(metric.name)}'
        f"<small>{metric.better} is better</small></h3>"
        f'<p class="mean">{written(summary.mean, decimals)}{unit}</p><p class="interval">{interval}</p>'
        f"{_histogram(means, decimals, metric.unit) if len(means) > 1 else ''}{worst}</article>"
    )


def _histogram(values: Sequence[float], decimals: int, unit: str) -> str:
    """Draw the distribution of the means of the clips; clips that are not finite are counted below it."""
    finite = [value for value in values if math.isfinite(value)]
    others = len(values) - len(finite)
    aside = f"<span>{count(others, 'clip')} not finite</span>" if others else ""
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    heights = [0] * BARS
    for value in finite:
        heights[min(BARS - 1, int((value - low) / (high - low) * BARS)) if high > low else BARS // 2] += 1
    unit = f" {unit}" if unit else ""
    most = max(heights)
    bars = "".join(
        f'<rect x="{place + 0.1:.1f}" y="{1 - height / most:.3f}" width=".8" height="{height / most:.3f}">'
        f"<title>{count(height, 'clip')} around {written(low + (place + 0.5) / BARS * (high - low), decimals)}"
        f"{escape(unit)}</title></rect>"
        for place, height in enumerate(heights)
        if height
    )
    ends = [written(low, decimals), written(high, decimals)]
    label = f"Distribution over {count(len(finite), 'clip')}, from {ends[0]} to {ends[1]}{escape(unit)}"
    return (
        f'<svg class="histogram" role="img" aria-label="{label}" viewBox="0 0 {BARS} 1" preserveAspectRatio="none">'
        f'{bars}</svg><p class="ends"><span>{ends[0]}</span>{aside}<span>{ends[1]}</span></p>'
    )


def _known(evaluation: Evaluation) -> list[MetricFacts]:
    """Return the metrics that have a number: all, unless the run was stopped."""
    return [m for m in evaluation.metrics if (m.name in evaluation.set_values if m.of_set else evaluation.clips)]


def candidates_table(comparison: Comparison, names: Sequence[str]) -> str:
    """Return a table with a row for each candidate and a column for each metric."""
    columns = metric_columns(comparison)
    rows = [
        [_linked(number, name), *(_cell(*column.cells[number], _interval(one, column)) for column in columns)]
        for number, (name, one) in enumerate(zip(names, comparison.evaluations, strict=True))
    ]
    intervals = f"{MARKS} Below each mean over the clips: its 95 % interval."
    return _table("Table of candidates", [["candidate", *map(_head, columns)], *rows], 1) + _lines(
        (intervals, *metric_remarks(comparison.evaluations))
    )


def costs_table(comparison: Comparison, names: Sequence[str]) -> str:
    """Return a table with a row for each candidate whose cost is known; empty if there is none."""
    columns = cost_columns(comparison)
    rows = [
        [
            _linked(number, name) if len(names) > 1 else escape(name),
            *(escape(column.cells[number][0]) for column in columns),
        ]
        for number, (name, one) in enumerate(zip(names, comparison.evaluations, strict=True))
        if one.cost
    ]
    titles = ["candidate" if len(names) > 1 else "model", *map(_head, columns)]
    if not rows:
        return ""
    return _table("Cost of candidates", [titles, *rows], 1) + _lines(cost_remarks(comparison.evaluations))


def _linked(number: int, name: str) -> str:
    """Return the name of a candidate with its line, as a link to its tab."""
    return f'<span><i class="swatch {style(number)}"></i><a href="#candidate={number}">{escape(name)}</a></span>'


def differences_table(comparison: Comparison) -> str:
    """Return the differences between candidates with their intervals and p-values; empty if there are none."""
    titles, rows, names = difference_table(comparison)
    if not rows:
        return ""
    cells = [list(map(escape, row)) for row in (titles, *rows)]
    return (
        f'<details id="significance"><summary>Significance: which differences are more than chance</summary>'
        f"{_table('Differences between candidates', cells, names)}{_lines(difference_remarks(comparison))}</details>"
    )


def _lines(lines: Iterable[str]) -> str:
    """Return what a reader has to know about a table, a line each."""
    return "".join(f'<p class="muted">{escape(line)}</p>' for line in lines)


def _table(label: str, rows: Sequence[Sequence[str]], names: int) -> str:
    """Return a table that scrolls: titles first; the first `names` columns are names."""
    titles, *others = rows
    head = "".join(f'<th scope="col" class="text">{title}</th>' for title in titles[:names])
    head += "".join(f'<th scope="col">{title}</th>' for title in titles[names:])
    body = ""
    for row in others:
        heads = "".join(f'<th scope="row">{cell}</th>' for cell in row[:names])
        body += f"<tr>{heads}{''.join(f'<td>{cell}</td>' for cell in row[names:])}</tr>"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="candidates">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head(column: Column) -> str:
    unit = column.unit and f"({escape(column.unit)})"
    return " ".join(filter(None, (escape(column.name), unit, ARROWS[column.better])))


def _cell(text: str, rank: int, interval: str) -> str:
    text, mark = "∞" if text == "inf" else text, {BEST: "b", SECOND: "u"}.get(rank)
    return (f"<{mark}>{text}</{mark}>" if mark else text) + (f"<small>{interval}</small>" if interval else "")


def _interval(evaluation: Evaluation, column: Column) -> str:
    """Return the interval of a metric, with as many decimals as its mean; empty if there is none."""
    summary = evaluation.summary(column.name)
    decimals = FACTS[column.name].decimals
    if summary.low is None or summary.high is None:
        return ""
    return f"{written(summary.low, decimals)} to {written(summary.high, decimals)}"


def style(candidate: int) -> str:
    """Return the class with the colour and the dashes of a candidate."""
    return f"c{candidate % STYLES}"


def protocol(evaluations: Sequence[Evaluation], names: Sequence[str]) -> str:
    """Return the rows of the table of the protocol. A value that differs between candidates has a cell for each."""
    flat = [dict(_flat(one.protocol)) for one in evaluations]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = []
    if len(flat) > 1:
        heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
        rows.append(f"<tr><td></td>{heads}</tr>")
    for key in keys:
        values = [one.get(key, "") for one in flat]
        same = len(set(values)) == 1
        span = f' colspan="{len(values)}"' if same and len(values) > 1 else ""
        cells = "".join(f"<td{span}>{escape(value)}</td>" for value in (values[:1] if same else values))
        rows.append(f'<tr><th scope="row">{escape(key.replace("_", " "))}</th>{cells}</tr>')
    return "".join(rows)


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield plain JSON values as text; nested values are named by their path."""
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name} · ")
        else:
            yield (
                name,
                value if isinstance(value, str) else "none" if value is None else json.dumps(value, ensure_ascii=False),
            )


def _message(text: str) -> str:
    """Return a message as HTML, with the parameters that it names in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def missing(evaluations: Sequence[Evaluation]) -> str:
    """Return what is missing from the numbers, and why; empty if nothing is."""
    parts = []
    if stopped_before := max(one.stopped_before for one in evaluations):
        parts.append(f'<p class="warning">Stopped early: {count(stopped_before, "pair")} of clips not compared.</p>')
    left_out = {name: reason for one in evaluations for name, reason in one.left_out.items()}
    failures = dict.fromkeys(line for one in evaluations for line in one.failures)
    reasons = {reason for one in evaluations for reason in one.left_out.values()}
    parts += [f'<p class="warning">{_message(line)}</p>' for line in failures if line not in reasons]
    if left_out:
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{_message(reason)}</td></tr>'
            for name, reason in left_out.items()
        )
        parts.append(
            f"<details open><summary>{count(len(left_out), 'clip')} left out</summary>"
            f'<div class="scroll"><table class="facts">{rows}</table></div></details>'
        )
    return "".join(parts)


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if needed."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def written(value: float, decimals: int) -> str:
    """Format a number as the scripts do."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    return f"{value:.{decimals}f}"
