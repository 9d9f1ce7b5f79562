"""Build the page: the HTML that shows before any script runs, the numbers, the style and the scripts.

The page loads nothing else. Its content security policy allows only the scripts and the style written here, so a clip
name that contains HTML does no harm.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

import vaectl
from vaectl.evaluation.report.media import Media, color_scale, image
from vaectl.evaluation.results import Evaluation, MetricFacts
from vaectl.memory import format_size

SCRIPTS = ("tools.js", "plots.js", "player.js", "table.js", "main.js")
BARS = 48
"""Bars per histogram. With few clips, each clip has its own bar."""


def document(evaluation: Evaluation, media: Sequence[Media], ranking: MetricFacts | None) -> bytes:
    """Return the page as UTF-8. `media` are the pictures of the worst clips by `ranking`, worst first."""
    parts = files("vaectl.evaluation.report") / "page"
    style = (parts / "style.css").read_text("utf-8")
    script = "\n".join((parts / name).read_text("utf-8") for name in SCRIPTS)
    data = numbers(evaluation, media, ranking)
    page = Template((parts / "page.html").read_text("utf-8")).substitute(
        policy=f"default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        title=escape(_title(evaluation)),
        facts=escape(_facts(evaluation)),
        summary="".join(_card(evaluation, metric) for metric in _known(evaluation)),
        protocol="".join(_rows(evaluation.protocol)),
        missing=_missing(evaluation),
        version=escape(vaectl.__version__),
        style=style,
        data=json.dumps(data).replace("<", "\\u003c"),
        script=script,
    )
    # File names may contain bytes that are not UTF-8.
    return page.encode("utf-8", "replace")


def numbers(evaluation: Evaluation, media: Sequence[Media], ranking: MetricFacts | None) -> dict[str, Any]:
    """Return the data of the scripts as JSON values; arrays are base64, because JSON has no inf and nan."""
    metrics = [metric for metric in evaluation.metrics if not metric.of_set]
    places = {clip.name: number for number, clip in enumerate(evaluation.clips)}
    return {
        "metrics": [
            {**asdict(metric), "digits": digits(clip.mean(metric.name) for clip in evaluation.clips)}
            for metric in metrics
        ],
        "ranking": ranking.name if ranking else None,
        "clips": [
            {
                "name": clip.name,
                "real": str(clip.real),
                "generated": str(clip.generated or ""),
                "frames": clip.num_frames,
                "width": clip.width,
                "height": clip.height,
                "means": _packed("d", (clip.mean(metric.name) for metric in metrics)),
                "values": [_packed("f", clip.values[metric.name]) for metric in metrics],
            }
            for clip in evaluation.clips
        ],
        "media": {places[one.name]: asdict(one) for one in media if one.name in places},
        "scale": image(color_scale().T[:, None, :]) if media else "",
    }


def digits(values: Iterable[float]) -> int:
    """Return the number of decimals for values of this size, as in the table of `vaectl eval`."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 2 if largest >= 10 else 4


def written(value: float, decimals: int) -> str:
    """Format a number as the scripts do."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    return f"{value:.{decimals}f}"


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _packed(kind: str, values: Iterable[float]) -> str:
    return b64encode(np.fromiter(values, f"<{kind}").tobytes()).decode()


def _known(evaluation: Evaluation) -> list[MetricFacts]:
    """Return the metrics that have a number: all, unless the run was stopped."""
    return [m for m in evaluation.metrics if (m.name in evaluation.set_values if m.of_set else evaluation.clips)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _title(evaluation: Evaluation) -> str:
    return f"Evaluation of {_count(len(evaluation.clips), 'clip')}"


def _facts(evaluation: Evaluation) -> str:
    clips = evaluation.clips
    shapes = {(clip.num_frames, clip.width, clip.height) for clip in clips}
    facts = [_count(sum(clip.num_frames for clip in clips), "frame") + " in all"]
    if len(shapes) == 1:
        num_frames, width, height = shapes.pop()
        facts = [_count(num_frames, "frame") + (" each" if len(clips) > 1 else ""), f"{width}x{height}"]
    facts.append(f"{evaluation.seconds:.1f} s")
    facts.append(f"peak memory {format_size(evaluation.peak_memory)}")
    return " · ".join(facts)


def _card(evaluation: Evaluation, metric: MetricFacts) -> str:
    summary = evaluation.summary(metric.name)
    means = [] if metric.of_set else [clip.mean(metric.name) for clip in evaluation.clips]
    decimals = digits(means or [summary.mean])
    unit = f' <span class="unit">{escape(metric.unit)}</span>' if metric.unit else ""
    if metric.of_set:
        interval = f"one number for {_count(len(evaluation.clips), 'clip')}"
    elif summary.low is None or summary.high is None:
        interval = "no interval: one clip" if len(means) == 1 else "no interval: not all numbers are finite"
    else:
        interval = f"95 % interval {written(summary.low, decimals)} to {written(summary.high, decimals)}"
    worst = ""
    if summary.worst is not None and len(means) > 1:
        number = next(n for n, clip in enumerate(evaluation.clips) if clip.name == summary.worst)
        worst = (
            f'<p class="worst"><span>Worst</span> <a href="#clip={number}">{escape(summary.worst)}</a>'
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
    aside = f"<span>{_count(others, 'clip')} not finite</span>" if others else ""
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    counts = [0] * BARS
    for value in finite:
        counts[min(BARS - 1, int((value - low) / (high - low) * BARS)) if high > low else BARS // 2] += 1
    unit = f" {unit}" if unit else ""
    bars = "".join(
        f'<rect x="{place + 0.1:.1f}" y="{1 - count / max(counts):.3f}" width=".8" height="{count / max(counts):.3f}">'
        f"<title>{_count(count, 'clip')} around {written(low + (place + 0.5) / BARS * (high - low), decimals)}"
        f"{escape(unit)}</title></rect>"
        for place, count in enumerate(counts)
        if count
    )
    ends = [written(low, decimals), written(high, decimals)]
    label = f"Distribution over {_count(len(finite), 'clip')}, from {ends[0]} to {ends[1]}{escape(unit)}"
    return (
        f'<svg class="histogram" role="img" aria-label="{label}" viewBox="0 0 {BARS} 1" preserveAspectRatio="none">'
        f'{bars}</svg><p class="ends"><span>{ends[0]}</span>{aside}<span>{ends[1]}</span></p>'
    )


def _rows(values: dict[str, Any], above: str = "") -> Iterable[str]:
    """Yield plain JSON values as rows of a table; nested values are named by their path."""
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from _rows(value, f"{name} · ")
        else:
            text = (
                value if isinstance(value, str) else "none" if value is None else json.dumps(value, ensure_ascii=False)
            )
            yield f'<tr><th scope="row">{escape(name.replace("_", " "))}</th><td>{escape(text)}</td></tr>'


def _message(text: str) -> str:
    """Return a message as HTML, with the parameters that it names in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _missing(evaluation: Evaluation) -> str:
    """Return what is missing from the numbers, and why; empty if nothing is."""
    parts = []
    if evaluation.stopped_before:
        parts.append(
            f'<p class="warning">Stopped early: {_count(evaluation.stopped_before, "pair")} of clips not compared.</p>'
        )
    reasons = set(evaluation.left_out.values())
    parts += [f'<p class="warning">{_message(line)}</p>' for line in evaluation.failures if line not in reasons]
    if evaluation.left_out:
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{_message(reason)}</td></tr>'
            for name, reason in evaluation.left_out.items()
        )
        parts.append(
            f"<details open><summary>{_count(len(evaluation.left_out), 'clip')} left out</summary>"
            f'<div class="scroll"><table class="facts">{rows}</table></div></details>'
        )
    return "".join(parts)
