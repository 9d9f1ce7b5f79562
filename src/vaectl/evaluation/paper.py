"""The tables of a comparison as papers print them: columns, differences, and the remarks below them.

For the command line, the report, and files (`paper_files.py`). Knows no console.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from vaectl.errors import shown
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.protocols import frames_in_words, name_in_words
from vaectl.evaluation.results import Cost, Evaluation, counted, format_number
from vaectl.evaluation.statistics import caveats
from vaectl.metrics import FACTS, OF_FFMPEG, MetricFacts

BEST, SECOND = 1, 2
ARROWS = {"higher": "↑", "lower": "↓", "": ""}
MARKS = "Best in bold, second underlined."
LPIPS_NETS = {"alex": "AlexNet", "vgg": "VGG16"}
MANY_FOR_FVD = 400
"""The features of I3D: with fewer clips, their covariance is singular."""


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
    ("params", "M", lambda cost: f"{cost.parameters / 1e6:.1f}"),
    ("compression", "", lambda cost: f"{cost.compression[0]}x{cost.compression[1]}x{cost.compression[1]}"),
    ("channels", "", lambda cost: str(cost.latent_channels)),
    ("latent", "bpp", lambda cost: f"{cost.bits_per_pixel:.3f}"),
    ("encode", "fps", lambda cost: two_digits(cost.encode_frames_per_second)),
    ("decode", "fps", lambda cost: two_digits(cost.decode_frames_per_second)),
    ("encode peak", "GiB", lambda cost: two_digits(cost.encode_peak_memory, 2**30)),
    ("decode peak", "GiB", lambda cost: two_digits(cost.decode_peak_memory, 2**30)),
)
"""Name, unit and text of each part of the cost of a model; the text is empty if it was not measured."""


def two_digits(value: float | None, unit: int = 1) -> str:
    """Format what varies between runs, in `unit`, with two significant digits; empty for None."""
    return "" if value is None else f"{Decimal(f'{value / unit:.1e}'):f}"


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
    texts = ["" if value is None else format_number(value, metric.name) for value in known]
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


def split(columns: Sequence[Column], width: Callable[[Column], float], room: float) -> Iterator[list[Column]]:
    """Yield the columns in as many tables as they need where each table has this `room` for them."""
    table: list[Column] = []
    for column in columns:
        if table and sum(map(width, (*table, column))) > room:
            yield table
            table = []
        table.append(column)
    if table:
        yield table


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
        signed = f"{{:+.{_decimals_of_differences(comparison, row.metric)}f}}".format
        interval = "" if row.low is None or row.high is None else f"{signed(row.low)} to {signed(row.high)}"
        p = "" if row.p_corrected is None else "<0.001" if row.p_corrected < 0.0005 else f"{row.p_corrected:.3f}"
        mean = "none" if row.mean is None else signed(row.mean)
        names = [f"{title(row.metric)} {arrows[row.metric]}", row.candidate, row.against]
        rows.append([*names, mean, interval, f"{100 * row.win_rate:.0f} %", p])
    if comparison.all_pairs:
        return titles, rows, 3
    return titles[:2] + titles[3:], [row[:2] + row[3:] for row in rows], 2


def difference_blocks(
    comparison: Comparison, title: Callable[[str], str] = str
) -> tuple[list[str], dict[tuple[str, str], list[list[str]]]]:
    """Return the table of differences in parts: titles without candidates, and the rows of each pair of candidates."""
    titles, rows, names = difference_table(comparison, title)
    blocks: dict[tuple[str, str], list[list[str]]] = {}
    for difference, row in zip(comparison.differences, rows, strict=True):
        blocks.setdefault((difference.candidate, difference.against), []).append([row[0], *row[names:]])
    return [titles[0], *titles[names:]], blocks


def _decimals_of_differences(comparison: Comparison, metric: str) -> int:
    """Return the decimals of all differences in a metric: its own, or more if one would have less than two digits."""
    means = [abs(row.mean) for row in comparison.differences if row.metric == metric and row.mean]
    decimals = FACTS[metric].decimals
    while decimals < 8 and min(means, default=1) < 10 ** (1 - decimals):
        decimals += 2
    return decimals


def marked(comparison: Comparison) -> bool:
    """Whether the number of any candidate is marked as the best."""
    return any(rank for column in metric_columns(comparison) for _, rank in column.cells)


def incomplete(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Yield a line if the run was stopped, and one if clips were left out."""
    if stopped := max(evaluation.stopped_before for evaluation in evaluations):
        yield f"stopped: {counted(stopped, 'more clip')} {'was' if stopped == 1 else 'were'} not compared"
    if left_out := len({name for evaluation in evaluations for name in evaluation.left_out}):
        yield f"left out: {left_out} of {counted(left_out + len(evaluations[0].clips), 'clip')}"


def remarks(comparison: Comparison) -> Iterator[str]:
    """Yield what a reader has to know about the numbers, the costs and the differences, a line each."""
    yield from metric_remarks(comparison.evaluations)
    yield from cost_remarks(comparison.evaluations)
    yield from difference_remarks(comparison)


def difference_remarks(comparison: Comparison) -> Iterator[str]:
    """Yield what the differences are, how intervals and p-values were computed, and where there are none."""
    if not comparison.differences:
        return
    most = max(sum(row.metric == metric.name for row in comparison.differences) for metric in comparison.metrics)
    against = "the one that it is against" if comparison.all_pairs else shown(comparison.evaluations[0].name)
    corrected = f", corrected after Holm for the {most} comparisons of each metric" if most > 1 else ""
    yield (
        f"difference: candidate minus {against}, mean over {counted(comparison.clips, 'clip')}, paired; wins: share of"
        f" clips in which the candidate is better; p: paired permutation test{corrected}"
    )
    yield from caveats(comparison.clips)
    for metric in comparison.metrics:
        if any(metric.name in each.set_values for each in comparison.evaluations):
            yield f"{metric.name}: one number for all clips, so no interval and no test"
        if any(row.metric == metric.name and row.p is None for row in comparison.differences) and comparison.clips > 1:
            yield f"{metric.name}: no interval and no test where a frame is exact in one candidate only"


def metric_remarks(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Yield which networks and models the metrics use, and what is known only too late to be a column."""
    for name, describe in (("lpips", _lpips), ("fvd", _fvd)):
        for each in evaluations:
            settings = each.protocol.get("metrics", {}).get(name)
            if name in each.measured and isinstance(settings, dict):
                yield f"{name}: {describe(each, {key: shown(str(value)) for key, value in settings.items()})}"
                break
    yield from codec_remarks(evaluations)


def _lpips(_: Evaluation, settings: dict[str, str]) -> str:
    net, file = settings.get("net", ""), _file(settings.get("weights", ""))
    return f"{LPIPS_NETS.get(net, net)}{f', weights {file}' if file else ''}"


def _fvd(evaluation: Evaluation, settings: dict[str, str]) -> str:
    file = _file(settings.get("detector", ""))
    clips = sum(clip.windows for clip in evaluation.clips)
    lengths = {clip.num_frames // clip.windows for clip in evaluation.clips}
    frames = f" of {counted(lengths.pop(), 'frame')}" if len(lengths) == 1 else ""
    few = ", and is too high for so few" if clips < MANY_FOR_FVD else ""
    detector = f"detector {file}" if file else "I3D"
    return f"{detector}, {counted(clips, 'clip')}{frames}; it depends on the number of clips{few}"


def _file(setting: str) -> str:
    """Return the name of the file in a setting; folders may be private. Empty if the setting is the default."""
    path, _, checksum = setting.partition(", SHA-256 ")
    return PurePath(path).name if checksum else ""


def cost_remarks(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Yield where and at which size speed and memory were measured."""
    measured: dict[str, list[str]] = {}
    for each in evaluations:
        if each.cost and each.cost.encode_frames_per_second is not None:
            measured.setdefault(measured_with(each), []).append(shown(each.name))
    for how, names in measured.items():
        of = f" of {', '.join(names)}" if len(measured) > 1 else ""
        yield f"speed and peak memory{of}: {how}"


def measured_with(evaluation: Evaluation) -> str:
    """Return on which device, in which dtype and at which size the cost was measured."""
    model, clip, cost = evaluation.protocol.get("model") or {}, evaluation.clips[0], evaluation.cost
    parts = [f"on {shown(model['device'])}"] if "device" in model else []
    parts += [shown(model["dtype"])] if "dtype" in model else []
    parts.append(f"{clip.num_frames // clip.windows} frames of {clip.width}x{clip.height}")
    parts += ["in tiles"] * bool(model.get("tiles")) + ["compiled"] * bool(model.get("compiled"))
    parts += ["without warm-up"] * bool(cost and cost.warm is False)
    return ", ".join(parts)


def codec_remarks(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Yield the harmonic means and the model of vmaf and vmaf_neg, and what FFmpeg's metrics compare."""
    facts: dict[str, dict[str, str]] = {}
    for name in OF_FFMPEG:
        having = [each for each in evaluations if any(metric.name == name for metric in each.metrics)]
        settings = having[0].protocol.get("metrics", {}).get(name) if having else None
        if not isinstance(settings, dict):
            continue
        facts[name] = known = {key: shown(value) for key, value in settings.items()}
        means = [
            f"{shown(each.name)} " * (len(evaluations) > 1) + format_number(mean, name)
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
