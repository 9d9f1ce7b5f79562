"""Build the page: the HTML that shows before any script runs, the numbers, the style and the scripts.

The page loads nothing else. Its content security policy allows only the scripts and the style written here, so a clip
name that contains HTML does no harm.
"""

from __future__ import annotations

import json
import math
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
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.position import by_position
from vaectl.evaluation.report import markup
from vaectl.evaluation.report.media import Media, color_scale, image
from vaectl.evaluation.results import ClipScores, Evaluation
from vaectl.memory import format_size
from vaectl.metrics import FACTS, MetricFacts

SCRIPTS = ("tools.js", "tabs.js", "plots.js", "charts.js", "player.js", "table.js", "main.js")


def document(
    comparison: Comparison, names: Sequence[str], media: Sequence[Media], ranking: MetricFacts | None
) -> bytes:
    """Return the page as UTF-8. `media` are the pictures of the worst clips by `ranking`, worst first."""
    evaluations = comparison.evaluations
    names = [name or f"candidate {number}" for number, name in enumerate(names, start=1)]
    parts = files("vaectl.evaluation.report") / "page"
    style = (parts / "style.css").read_text("utf-8")
    script = "\n".join((parts / name).read_text("utf-8") for name in SCRIPTS)
    page = Template((parts / "page.html").read_text("utf-8")).substitute(
        policy=f"default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        title=escape(_title(evaluations)),
        facts=escape(_facts(evaluations)),
        overview=_overview(comparison, names),
        missing=markup.missing(evaluations),
        protocol=markup.protocol(evaluations, names),
        candidates=_candidates(evaluations, names),
        version=escape(vaectl.__version__),
        style=style,
        data=json.dumps(numbers(evaluations, names, media, ranking)).replace("<", "\\u003c"),
        script=script,
    )
    # File names may contain bytes that are not UTF-8.
    return page.encode("utf-8", "replace")


def numbers(
    evaluations: Sequence[Evaluation], names: Sequence[str], media: Sequence[Media], ranking: MetricFacts | None
) -> dict[str, Any]:
    """Return the data of the scripts as JSON values; arrays are base64, because JSON has no inf and nan."""
    metrics = [metric for metric in evaluations[0].metrics if not metric.of_set]
    clips = list(zip(*(one.clips for one in evaluations), strict=True))
    places = {same[0].name: number for number, same in enumerate(clips)}
    return {
        "candidates": list(names),
        "styles": markup.STYLES,
        "metrics": [_described(metric) for metric in metrics],
        "ranking": ranking.name if ranking else None,
        "clips": [
            {
                "name": same[0].name,
                "files": [str(path) for path in (same[0].real, *(clip.generated for clip in same)) if path],
                "frames": same[0].num_frames,
                "width": same[0].width,
                "height": same[0].height,
                "means": [_packed("d", (clip.mean(metric.name) for metric in metrics)) for clip in same],
                "values": [[_packed("f", _series(clip, metric.name)) for metric in metrics] for clip in same],
            }
            for same in clips
        ],
        "media": {places[one.name]: asdict(one) for one in media if one.name in places},
        "scale": image(color_scale().T[:, None, :], 256, 1) if media else "",
        "positions": [[_positions(one, metric.name) for one in evaluations] for metric in metrics] if clips else [],
        "rates": _rates(evaluations) if len(evaluations) > 1 else None,
    }


def _described(metric: MetricFacts) -> dict[str, Any]:
    return {"name": metric.name, "unit": metric.unit, "better": metric.better, "digits": FACTS[metric.name].decimals}


def _series(clip: ClipScores, metric: str) -> Sequence[float]:
    """Return the values of a clip; of several windows one for each frame, nan for those without a value."""
    if clip.windows == 1:
        return clip.values[metric]
    return [math.nan if value is None else value for window in clip.in_windows(metric) for value in window]


def _positions(evaluation: Evaluation, metric: str) -> dict[str, Any]:
    found = by_position(evaluation, metric)
    within = None if found.within_group is None else _finite(found.within_group)
    return {"first": _finite([found.first])[0], "within": within, "over": _finite(found.over_time)}


def _rates(evaluations: Sequence[Evaluation]) -> dict[str, Any] | None:
    """Return the bits of each candidate and its value of each metric; None if no cost is known."""
    if not any(one.cost for one in evaluations):
        return None
    means = [one.means for one in evaluations]
    metrics = [metric for metric in evaluations[0].metrics if all(metric.name in known for known in means)]
    return {
        "bits": [one.cost and one.cost.bits_per_pixel for one in evaluations],
        "metrics": [_described(metric) for metric in metrics],
        "values": [_finite(known[metric.name] for known in means) for metric in metrics],
    }


def _finite(values: Iterable[float | None]) -> list[float | None]:
    return [value if value is not None and math.isfinite(value) else None for value in values]


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _packed(kind: str, values: Iterable[float]) -> str:
    return b64encode(np.fromiter(values, f"<{kind}").tobytes()).decode()


def _title(evaluations: Sequence[Evaluation]) -> str:
    clips = markup.count(len(evaluations[0].clips), "clip")
    return f"Evaluation of {clips}" if len(evaluations) == 1 else f"{len(evaluations)} candidates on {clips}"


def _facts(evaluations: Sequence[Evaluation]) -> str:
    clips = evaluations[0].clips
    shapes = {(clip.num_frames, clip.width, clip.height) for clip in clips}
    facts = [markup.count(sum(clip.num_frames for clip in clips), "frame") + " in all"]
    if len(shapes) == 1:
        num_frames, width, height = shapes.pop()
        facts = [markup.count(num_frames, "frame") + (" each" if len(clips) > 1 else ""), f"{width}x{height}"]
    facts.append(f"{max(one.seconds for one in evaluations):.1f} s")
    facts.append(f"peak memory {format_size(max(one.peak_memory for one in evaluations))}")
    return " · ".join(facts)


def _overview(comparison: Comparison, names: Sequence[str]) -> str:
    """Return what the page begins with: the cards and the cost of the only candidate, or the tables of several."""
    if len(names) == 1:
        cards = f'<section aria-label="Summary" class="cards">{markup.cards(comparison.evaluations[0])}</section>'
        return f'{cards}<section aria-label="Cost" class="overview">{markup.costs_table(comparison, names)}</section>'
    tables = [markup.candidates_table(comparison, names), markup.costs_table(comparison, names)]
    tables.append(markup.differences_table(comparison))
    return f'<section aria-label="Candidates" class="overview">{"".join(tables)}</section>'


def _candidates(evaluations: Sequence[Evaluation], names: Sequence[str]) -> str:
    """Return the cards of each of several candidates. The scripts show one at a time, in tabs."""
    if len(evaluations) == 1:
        return ""
    sections = (
        f'<section class="candidate" aria-label="Summary"><h2><i class="swatch {markup.style(number)}"></i>'
        f'{escape(name)}</h2><div class="cards">{markup.cards(one, f"candidate={number}&amp;")}</div></section>'
        for number, (name, one) in enumerate(zip(names, evaluations, strict=True))
    )
    return "".join(sections)
