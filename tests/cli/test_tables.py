"""Tables on narrow terminals: names give way, figures do not."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.evaluation.results import evaluation
from vaectl.cli import comparison, eval, models, prepare_eval, reconstruct, tables
from vaectl.cli.tables import shorten
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.manifest import Manifest, ManifestClip, ManifestModel
from vaectl.evaluation.prepare import PrepareResult
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.evaluation.results import ClipScores, Cost, Evaluation
from vaectl.inventory import PUBLISHED, describe
from vaectl.metrics import MetricFacts
from vaectl.options import PrepareEvalOptions
from vaectl.reconstruction import ClipResult, RunResult

NAMES = ("a.mp4", "deep/er/a_rather_long_name_of_a_clip_of_bikes_in_the_street.mp4", "b [x].mp4")
METRICS = tuple(
    MetricFacts(name, unit, "lower", False)
    for name, unit in (("psnr", "dB"), ("ssim", ""), ("lpips", ""), ("flicker", "levels"))
)
RUN = RunResult(
    (
        *(ClipResult(Path(name), Path(name), 1234, 1920, 1080, 31.234, 44.567, 1234.5) for name in NAMES),
        ClipResult(Path("in/broken.mp4"), Path("out/broken.mp4"), error="in/broken.mp4: broken"),
    ),
    3 * 2**29,
    "cpu",
    "float32",
    12.5,
    "built-in model",
)
EVALUATION = Evaluation(
    METRICS,
    tuple(
        ClipScores(
            name, Path(name), None, 33, 256, 256,
            {"psnr": (31.25 + place,), "ssim": (0.8125,), "lpips": (0.1875,), "flicker": (2.5625,)},
        )
        for place, name in enumerate(NAMES)
    ),
    {},
    {"clips": {"num_frames": 33, "sample_rate": 1, "resize": "shorter side to 256", "crop": "256x256"},
     "model": None, "metrics": {"device": "cpu"}},
    {},
    12.5,
    3.5,
    3 * 2**29,
)  # fmt: skip
PREPARED = PrepareResult(
    Manifest(
        {},
        ManifestModel(None, "WFVAE", "ab", "cpu", "float32"),
        ClipProtocol(33, 2, 256, 256),
        {},
        "/in",
        (ManifestClip("a", "a.mp4", (1, 2), "a.mkv", status="ok", frames=33, width=256, height=256),),
    ),
    1234,
    567,
    89,
    1234.5,
    3 * 2**29,
    Path("out/manifest.json"),
)
PREPARE = PrepareEvalOptions(real_video_dir=Path("in"), generated_video_dir=Path("out"))
COMPARISON = Comparison(
    tuple(
        evaluation(
            name,
            {"fvd": 123.5},
            psnr=[31.5 + place, 30.25],
            ssim=[0.8125 + place / 100, 0.75],
            lpips=[0.1875, 0.25 + place],
        )
        for place, name in enumerate(NAMES)
    ),
    all_pairs=True,
)
TABLES = [
    (lambda: reconstruct.show(RUN), ["1234", "1920x1080", "31.23", "44.57", "1234.5", "1.000", "failed", "1.50"]),
    (
        lambda: eval.show(EVALUATION),
        ["33", "256x256", "31.25", "32.25", "33.25", "0.8125", "0.1875", "2.5625", "29.77", "34.73", "1.50"],
    ),
    (lambda: prepare_eval.show(PREPARED, PREPARE), ["1234", "567", "89", "33", "256x256", "1234.5", "1.50"]),
    (lambda: models.show_all(describe(None), PUBLISHED), ["5.5M", "317M", "1.27", "908", "4x8x8", "8x8x8", "32"]),
    (
        lambda: comparison.show(COMPARISON),
        ["30.88", "31.38", "31.88*", "0.7812", "0.2188*", "123.50", "+0.5000", "-5.8531", "+6.8531", "1.000", "75"],
    ),
    (lambda: models.show(describe(None)), ["5.5M", "10.9", "4x8x8", "16", "-0.06138", "0.02554", "2.8", "8000"]),
]

IDS = ["reconstruct", "eval", "prepare-eval", "known", "comparison", "model"]


def printed(show, width, monkeypatch) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, highlight=False)
    monkeypatch.setattr(tables, "stdout", lambda: console)
    show()
    return console.file.getvalue()


@pytest.mark.parametrize("width", [100, 80, 60, 40])
@pytest.mark.parametrize(("show", "figures"), TABLES, ids=IDS)
def test_no_figure_is_cut(show, figures, width, monkeypatch):
    shown = printed(show, width, monkeypatch)
    assert max(map(cell_len, shown.splitlines())) <= width
    assert set(figures) <= set(re.split(r"[\s,;()]+", shown))
    assert "…" not in shown


@pytest.mark.parametrize("width", [80, 60])
def test_differences_that_do_not_fit_with_whole_names_have_a_table_for_each_pair(width, monkeypatch):
    names = "an_encoder_with_a_longer_name", "another_encoder_with_long_name"
    pair = Comparison(
        tuple(evaluation(name, vmaf_neg=[90.0, 60.0 + (name == names[1])]) for name in names), all_pairs=True
    )
    lines = printed(lambda: comparison.show(pair), width, monkeypatch).splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith(f"{names[1]} against"))
    found = [line.split() for line in lines[heading:]]
    assert ["metric", "difference", "95", "%", "interval", "wins", "p"] in found
    assert ["vmaf_neg", "↑", "+0.50", "-5.85", "to", "+6.85", "75", "%", "1.000"] in found
    short = Comparison(tuple(replace(each, name=each.name[:3]) for each in pair.evaluations))
    assert " against " not in printed(lambda: comparison.show(short), width, monkeypatch)


def test_the_costs_fit_into_80_columns(monkeypatch):
    cost = Cost(5_500_000, (4, 8), 16, 24 / 11, 49.4, 1230.0, 2**27, 2**34)
    pair = Comparison(tuple(replace(evaluation(name, psnr=[30]), cost=cost) for name in ("candidate a", "b")))
    rows = [line.split() for line in printed(lambda: comparison.show(pair), 80, monkeypatch).splitlines()]
    assert ["params", "latent", "encode", "decode", "encode", "decode"] in rows
    assert ["candidate", "M", "compression", "channels", "bpp", "fps", "fps", "peak", "GiB", "peak", "GiB"] in rows
    assert ["b", "5.5", "4x8x8", "16", "2.182", "49", "1200", "0.12", "16"] in rows


@pytest.mark.parametrize("width", [100, 40])
def test_the_best_is_bold_and_the_second_underlined_on_a_terminal(width, monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system="standard", highlight=False)
    monkeypatch.setattr(tables, "stdout", lambda: console)
    comparison.show(COMPARISON)
    out = console.file.getvalue()
    assert "\x1b[1m31.88\x1b[0m" in out
    assert "\x1b[4m31.38\x1b[0m" in out
    assert re.search(r"(?<![m.])30\.88", out)
    assert "123.50\x1b" not in out  # all are equal
    assert "best in bold, second underlined" in out


def test_the_best_has_a_star_in_a_pipe(capsys):
    comparison.show(COMPARISON)
    out = capsys.readouterr().out
    assert re.findall(r"\d+\.\d+\*", out) == ["0.2188*", "31.88*", "0.7913*"]
    assert "\n* best\n" in out


@pytest.mark.parametrize(("width", "rows"), [(100, 4), (60, 4), (40, 0)])
def test_rows_become_blocks_only_where_a_table_does_not_fit(width, rows, monkeypatch):
    shown = printed(lambda: reconstruct.show(RUN), width, monkeypatch)
    assert len(re.findall(r"1920x1080 +31.23 +44.57 +1234.5 +1.000|^in/broken.mp4 +failed", shown, re.M)) == rows
    assert shown.count("PSNR 31.23 dB, codec 44.57 dB") == (3 if not rows else 0)


def test_a_pipe_gets_whole_names_on_one_line(capsys):
    reconstruct.show(RUN)
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)
    assert max(map(len, out.splitlines())) < 150


@pytest.mark.parametrize(("show", "figures"), TABLES, ids=IDS)
def test_a_pipe_gets_no_trailing_blanks(show, figures, capsys):
    show()
    lines = capsys.readouterr().out.splitlines()
    assert figures[0] in " ".join(lines)
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize(
    ("name", "width", "short"),
    [
        ("clips/bikes.mp4", 15, "clips/bikes.mp4"),
        ("clips/deep/bikes.mp4", 12, "cli…ikes.mp4"),
        ("日本語のとても長い名前.mp4", 12, "日…名前.mp4"),
        ("bikes.mp4", 1, "…"),
    ],
)
def test_a_name_is_shortened_in_the_middle(name, width, short):
    assert shorten(name, width) == short
    assert cell_len(shorten(name, width)) <= width


def test_what_a_terminal_would_obey_is_escaped(monkeypatch):
    run = RunResult((ClipResult(Path("a"), Path("a\x1b[31m\n.mp4"), 1, 2, 3),), 1, "cpu", "float32", 1.0, "m")
    assert r"a\x1b[31m\n.mp4" in printed(lambda: reconstruct.show(run), 80, monkeypatch)
