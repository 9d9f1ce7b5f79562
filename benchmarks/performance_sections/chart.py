"""Draw how time and memory grow, as an SVG of small log-log charts. Text and colours are readable on any background."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from performance_sections.rows import GrowthRow

COLOURS = ("#1f6feb", "#d4541f", "#3a8f3a")
TITLES = {"frames": "frames", "area": "side of a frame", "clips": "clips in vaectl eval"}
WIDTH, HEIGHT, GAP, LEFT, TOP = 250, 190, 66, 62, 48
"""Of one chart, in pixels; and the space between them and around."""
Series = Mapping[tuple[str, str], Sequence[GrowthRow]]


def draw(series: Series) -> str:
    """Return the picture: a column for each quantity that grows, time above memory."""
    overs = [over for over in TITLES if any(key[0] == over for key in series)]
    parts = [
        panel(
            [(label, rows) for (over, label), rows in series.items() if over == column],
            value,
            title=f"{name} over {TITLES[column]}",
            left=LEFT + i * (WIDTH + GAP),
            top=TOP + j * (HEIGHT + GAP + 24),
        )
        for i, column in enumerate(overs)
        for j, (name, value) in enumerate(MEASURES.items())
    ]
    width, height = LEFT + len(overs) * (WIDTH + GAP), TOP + 2 * (HEIGHT + GAP + 24)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


MEASURES: dict[str, Callable[[GrowthRow], float]] = {
    "seconds": lambda row: row.seconds,
    "MiB": lambda row: row.added / 2**20,
}


def panel(
    lines: Sequence[tuple[str, Sequence[GrowthRow]]],
    value: Callable[[GrowthRow], float],
    *,
    title: str,
    left: int,
    top: int,
) -> str:
    """Draw one chart: an axis each, a line with its points for each series, and its name."""
    sizes = sorted({row.size for _, rows in lines for row in rows})
    values = [value(row) for _, rows in lines for row in rows]
    low, high = (f(math.log10(each)) for f, each in ((math.floor, min(values)), (math.ceil, max(values))))
    high = max(high, low + 1)

    def x(size: float) -> float:
        first, last = math.log(sizes[0]), math.log(sizes[-1])
        return left + WIDTH * (math.log(size) - first) / (last - first)

    def y(amount: float) -> float:
        return top + HEIGHT * (1 - (math.log10(amount) - low) / (high - low))

    parts = [text(left, top - 12, title, weight="bold")]
    for power in range(low, high + 1):
        parts += [line(left, y(10**power), left + WIDTH, y(10**power), "#d0d7de")]
        parts += [text(left - 6, y(10**power) + 4, f"{10.0**power:g}", anchor="end")]
    for size in sizes:
        parts += [line(x(size), top, x(size), top + HEIGHT, "#eaeef2")]
        parts += [text(x(size), top + HEIGHT + 16, str(size), anchor="middle")]
    for i, (label, rows) in enumerate(lines):
        places = [(x(row.size), y(value(row))) for row in rows]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        colour = COLOURS[i % len(COLOURS)]
        parts += [f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>']
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
        parts += [text(left, top + HEIGHT + 34 + 15 * i, f"\u25cf {label}", fill=colour)]
    return "\n".join(parts)


def text(
    x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal", fill: str = "#24292f"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{fill}">'
        f"{escape(words)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
