"""The tables of `benchmarks/performance.py`: on the console, and in a page in Markdown, between marks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from performance_sections.chart import draw
from performance_sections.growth import exponent
from performance_sections.rows import GrowthRow, LayerRow, LeftOut, Row

Results = dict[str, Any]
"""`machine`, and `sections` by name: `date`, `rows` and `left_out`."""
COMPARED = ("encode", "decode", "training", "wan", "reading", "samples", "metrics")
GROWTH = ("growth-frames", "growth-area", "growth-clips")
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of the table -->)", re.DOTALL)


def rows_of(results: Results, *sections: str) -> list[Any]:
    kinds: dict[str, Callable[..., Any]] = {"layers": LayerRow, **dict.fromkeys(GROWTH, GrowthRow)}
    return [
        kinds.get(name, Row)(**row) for name in sections for row in results["sections"].get(name, {}).get("rows", [])
    ]


def machine(results: Results) -> list[str]:
    facts = results["machine"]
    dates = sorted({section["date"] for section in results["sections"].values()})
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "not yet"
    return [
        f"Measured: {when}, {facts['cores']} cores of an {facts['processor']}, {facts['threads']} threads, "
        f"PyTorch {facts['torch']}, Python {facts['python']}; {facts['clock']}.",
        "",
        *table(
            ["limit of this machine, float32", "rate"],
            [
                ["product of two 2048x2048 matrices, or of oneDNN if that is faster", giga(facts["product"], "FLOP/s")],
                ["3x3x3 convolution of oneDNN, 256 channels", giga(facts["convolution"], "FLOP/s")],
                ["copy of 256 MiB, bytes read and written", giga(facts["copy"], "B/s")],
            ],
        ),
    ]


def comparison(results: Results) -> list[str]:
    head = ["", "on", "vaectl", "compared with", "it takes", "ratio", "GFLOP/s", "of the limit", "difference"]
    cells = []
    for row in rows_of(results, *COMPARED):
        rate = row.work / row.seconds
        cells.append(
            [
                row.what,
                row.on,
                amount(row, row.seconds),
                row.peer,
                amount(row, row.peer_seconds) if row.peer_seconds else "",
                f"{row.peer_seconds / row.seconds:.2f}" if row.peer_seconds else "",
                f"{rate / 1e9:.0f}" if row.work else "",
                f"{rate / row.limit:.0%}".replace("%", " %") if row.work and row.limit else "",
                f"{row.difference:.0e}" if row.difference is not None else "",
            ]
        )
    return [*table(head, cells), *left_out(results, COMPARED)]


def half(results: Results) -> list[str]:
    cells = [
        [row.what, row.on, time_of(row.seconds), time_of(row.peer_seconds), f"{row.peer_seconds / row.seconds:.2f}"]
        for row in rows_of(results, "bfloat16")
    ]
    return table(["", "on", "bfloat16", "float32", "ratio"], cells)


def start(results: Results) -> list[str]:
    cells = [
        [
            row.what,
            row.on,
            time_of(row.seconds),
            row.peer,
            time_of(row.peer_seconds),
            f"{row.seconds / row.peer_seconds:.2f}",
        ]
        for row in rows_of(results, "startup")
    ]
    return table(["", "on", "seconds", "compared with", "seconds", "times as long"], cells)


def layers(results: Results) -> list[str]:
    rows: list[LayerRow] = rows_of(results, "layers")
    jobs = list(dict.fromkeys((row.job, row.clip) for row in rows))
    by_kind: dict[str, dict[tuple[str, str], LayerRow]] = defaultdict(dict)
    totals: dict[tuple[str, str], float] = defaultdict(float)
    least: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for row in rows:
        job = row.job, row.clip
        by_kind[row.kind][job] = row
        totals[job] += row.seconds
        least[job] = [a + b for a, b in zip(least[job], row.least, strict=True)]
    cells = []
    for kind, found in sorted(by_kind.items(), key=lambda each: -max(row.seconds for row in each[1].values())):
        times = [
            f"{found[job].seconds * 1000:.0f} ms, {found[job].seconds / totals[job]:.0%}" if job in found else ""
            for job in jobs
        ]
        cells.append([kind, *(each.replace("%", " %") for each in times)])
    cells.append(["**all**", *(f"{totals[job] * 1000:.0f} ms" for job in jobs)])
    for index, what in enumerate(("direct convolutions", "reachable with Winograd", "products of Winograd alone")):
        shares = [f"{1000 * least[job][index]:.0f} ms, {least[job][index] / totals[job]:.0%}" for job in jobs]
        cells.append([f"least time, {what}", *(each.replace("%", " %") for each in shares)])
    return table(["", *(f"{job}, {clip}" for job, clip in jobs)], cells)


def growth(results: Results) -> list[str]:
    cells = []
    for (over, series), rows in by_series(rows_of(results, *GROWTH)).items():
        sizes = [positions(row) for row in rows]
        times, added = [row.seconds for row in rows], [float(row.added) for row in rows]
        between = " to ".join(
            f"{row.size}x{row.size}" if over == "area" else str(row.size) for row in (rows[0], rows[-1])
        )
        cells.append(
            [
                over,
                series,
                between,
                f"{time_of(times[0])} to {time_of(times[-1])}",
                f"{exponent(sizes, times):.2f}",
                f"{mebibytes(added[0])} to {mebibytes(added[-1])}",
                f"{exponent(sizes, added):.2f}",
            ]
        )
    return table(["over", "run", "from, to", "time", "exponent", "memory", "exponent"], cells)


def by_series(rows: Sequence[GrowthRow]) -> dict[tuple[str, str], list[GrowthRow]]:
    series: dict[tuple[str, str], list[GrowthRow]] = defaultdict(list)
    for row in rows:
        series[row.over, row.series].append(row)
    return {key: found for key, found in series.items() if len(found) > 1}


def positions(row: GrowthRow) -> float:
    """Return what grows: frames, pixels of a frame, or clips."""
    return float(row.size**2 if row.over == "area" else row.size)


TABLES: dict[str, tuple[Callable[[Results], list[str]], tuple[str, ...]]] = {
    "machine": (machine, ()),
    "comparison": (comparison, COMPARED),
    "bfloat16": (half, ("bfloat16",)),
    "startup": (start, ("startup",)),
    "layers": (layers, ("layers",)),
    "growth": (growth, GROWTH),
}
"""By the name in a mark: the function, and the sections that it needs one of."""


def made(results: Results) -> dict[str, list[str]]:
    """Return the lines of each table that has something to show."""
    there = {name for name, section in results["sections"].items() if section["rows"] or section["left_out"]}
    return {name: lines(results) for name, (lines, needed) in TABLES.items() if not needed or there & {*needed}}


def brief(row: Any) -> str:
    """Return a row in one line, while the benchmark runs."""
    if isinstance(row, LeftOut):
        return f"left out: {row.what}, {row.reason}"
    if isinstance(row, LayerRow):
        return f"{row.job}, {row.clip}: {row.kind}, {time_of(row.seconds)}"
    if isinstance(row, GrowthRow):
        return f"{row.over} {row.size}, {row.series}: {time_of(row.seconds)}, {mebibytes(row.added)}"
    theirs = f"; {row.peer}: {amount(row, row.peer_seconds)}" if row.peer_seconds else ""
    return f"{row.what}, {row.on}: {amount(row, row.seconds)}{theirs}"


def print_results(results: Results) -> None:
    for lines in made(results).values():
        print("\n" + "\n".join(lines))


def write_page(results: Results, page: Path) -> None:
    """Replace the tables between the marks of a page; make one with all tables if there is none. Draw the picture."""
    tables = made(results)
    if not page.is_file():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("".join(f"<!-- table: {name} -->\n<!-- end of the table -->\n\n" for name in TABLES))
    known = MARK.findall(page.read_text())

    def replaced(found: re.Match[str]) -> str:
        lines = tables.get(found[2])
        return found[0] if lines is None else found[1] + "\n".join(lines) + "\n" + found[3]

    page.write_text(MARK.sub(replaced, page.read_text()))
    if len(known) < len(TABLES):
        print(f"{page}: has no marks for {', '.join({*TABLES} - {name for _, name, _ in known})}")
    if rows := rows_of(results, *GROWTH):
        images = page.parent / "images"
        images.mkdir(exist_ok=True)
        (images / "growth.svg").write_text(draw(by_series(rows)))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table in Markdown without the columns that are empty, except the first."""
    keep = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]
    lines = [[each[i] for i in keep] for each in (head, ["---"] * len(head), *rows)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def left_out(results: Results, sections: Sequence[str]) -> list[str]:
    found = {
        f"{each['what']} ({each['reason']})": None
        for name in sections
        for each in results["sections"].get(name, {}).get("left_out", [])
    }
    return ["", f"Left out: {'; '.join(found)}."] if found else []


def amount(row: Row, seconds: float) -> str:
    rate = row.count / seconds
    return f"{rate:{'.0f' if rate >= 100 else '.3g'}} {row.counted}/s" if row.count else time_of(seconds)


def time_of(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def giga(rate: float, unit: str) -> str:
    return f"{rate / 1e9:.3g} G{unit}"


def mebibytes(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"
