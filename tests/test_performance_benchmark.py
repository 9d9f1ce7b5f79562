"""benchmarks/performance.py on tiny shapes: both sides are measured, failures are lines, a page gets its tables."""

import json
import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from tests.conftest import ROOT

PROGRAM = ROOT / "benchmarks" / "performance.py"
CLONE = "causalvideovae/model/vae/modeling_wfvae.py"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAM.parent))


def options(**more):
    from performance_sections.rows import Options

    return Options(tiny=True, turns=1, **more)


def clone(folder: Path) -> Path:
    """Make a stand-in for the published code: the plain formulation behind the published interface."""
    file = folder / CLONE
    file.parent.mkdir(parents=True)
    file.write_text("""
from types import SimpleNamespace
from tests import straightforward
from vaectl.models.config import WFVAEConfig

class WFVAEModel:
    def __init__(self, **config):
        self.config = WFVAEConfig(**config)
    def load_state_dict(self, weights):
        self.weights = {name: weight.contiguous() for name, weight in weights.items()}
    def eval(self):
        return self
    def encode(self, x):
        print("a shape")
        moments = straightforward.encode(self.weights, self.config, x)[0]
        return SimpleNamespace(latent_dist=SimpleNamespace(parameters=moments))
    def decode(self, z):
        return SimpleNamespace(sample=straightforward.decode(self.weights, self.config, z)[0])
""")
    return folder


@pytest.mark.parametrize("job", ["encode", "decode"])
def test_a_network_is_compared_with_the_published_code(tmp_path, monkeypatch, capsys, job):
    from common import published
    from performance import run_section

    monkeypatch.setattr(published, "diffusers_class", lambda _name: None)  # the stand-in does not need diffusers
    for name in map(".".join, accumulated(CLONE)):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (row,) = run_section(job, options(published=clone(tmp_path)))["rows"]
    assert (row["what"], row["peer"]) == (job, "published")
    assert min(row["seconds"], row["peer_seconds"], row["limit"]) > 0
    assert 0 < row["difference"] < 1e-4
    assert row["work"] > 1e7
    assert "a shape" not in capsys.readouterr().out


def accumulated(file: str) -> list[list[str]]:
    parts = file.removesuffix(".py").split("/")
    return [parts[: i + 1] for i in range(len(parts))]


def test_without_a_clone_vaectl_is_measured_alone_and_the_reason_is_given():
    from performance import run_section

    made = run_section("encode", options())
    assert [row["peer"] for row in made["rows"]] == [""]
    assert made["left_out"] == [
        {"what": "the published code", "reason": "give a clone of PKU-YuanGroup/WF-VAE with --published"}
    ]


def test_a_section_that_fails_keeps_what_it_has_measured(monkeypatch):
    from performance import run_section
    from performance_sections import networks
    from performance_sections.rows import Row

    def breaks(_options):
        yield Row("encode", "a model", 1.0)
        raise RuntimeError("too bad\nmore")

    monkeypatch.setattr(networks, "bfloat16", breaks)
    made = run_section("bfloat16", options())
    assert [row["what"] for row in made["rows"]] == ["encode"]
    assert made["left_out"] == [{"what": "the rest of bfloat16", "reason": "RuntimeError: too bad"}]


def test_reading_is_measured_for_both_conversions_in_order_and_at_random():
    from performance import run_section

    rows = run_section("reading", options())["rows"]
    jobs = [f"read {how}, {kind}" for kind in ("swscale", "accurate") for how in ("in order", "at random")]
    assert [row["what"] for row in rows] == jobs
    assert [row["count"] for row in rows] == [24, 51, 24, 51]


def test_the_time_of_layers_adds_up_to_that_of_the_network():
    import layers
    from common import input_of, run_of
    from common.rates import measure_rates
    from formulation import make_model

    with torch.no_grad():
        model = make_model("built-in", torch.device("cpu"), torch.float32)
        rates = measure_rates(small=True)
        for job in ("encode", "decode"):
            x = input_of(model, job, (5, 32, 32))
            run = run_of(model, job, plain=False)
            rows, seconds = layers.add_up(lambda run=run, x=x: run(x), rates, layers.time.perf_counter, 1)
            assert sum(row.seconds for row in rows.values()) == pytest.approx(seconds)
            assert min(row.seconds for row in rows.values()) >= 0
            # A convolution in a new function would be missing here. The products of Haar transforms count nothing.
            seen = sum(row.work for row in rows.values())
            assert seen == pytest.approx(layers.needed_operations(model, job, x), rel=0.01)
            assert all(row.least[0] >= row.least[1] >= row.least[2] for row in rows.values())


def test_a_point_of_the_growth_is_measured_in_a_process_of_its_own():
    from performance_sections.growth import point

    row = point("frames", "built-in", 5, ("built-in", 5, 32), options())
    assert (row.over, row.size) == ("frames", 5)
    assert 0 < row.seconds < 60
    assert 2**20 < row.added < 2**28  # without Python and PyTorch


def test_the_exponent_is_the_slope_of_the_logarithms():
    from performance_sections.growth import exponent

    assert exponent([1, 2, 4, 8], [3, 6, 12, 24]) == pytest.approx(1)
    assert exponent([9, 17, 33], [5, 5, 5]) == pytest.approx(0)
    assert exponent([1, 10], [1, math.sqrt(10)]) == pytest.approx(0.5)


def test_a_page_gets_the_tables_that_were_measured_and_keeps_the_rest(tmp_path):
    from performance_sections.page import TABLES, write_page

    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- table: comparison -->\nold\n<!-- end of the table -->\nbetween\n"
        "<!-- table: bfloat16 -->\nkept\n<!-- end of the table -->\nafter\n"
    )
    row = {"what": "encode", "on": "a clip", "seconds": 2.0, "peer": "published", "peer_seconds": 3.0}
    more = {"work": int(4e9), "limit": 8e9, "count": 0, "counted": "frames", "difference": 2e-6}
    clips = [
        {"over": over, "series": "a model", "size": size, "seconds": size / 8, "added": size * 2**20}
        for over in ("frames", "area", "clips")
        for size in (8, 16)
    ]
    made = {"date": "2026-11-27", "left_out": [{"what": "torchcodec", "reason": "is not installed"}]}
    machine = {"processor": "CPU", "cores": 2, "threads": 2, "python": "3.11", "torch": "2.13", "clock": "a clock"}
    rates = {"product": 1e9, "convolution": 8e9, "copy": 1e9}
    sections = {"encode": made | {"rows": [row | more]}, "growth-frames": made | {"rows": clips}}
    write_page({"machine": machine | rates, "sections": sections}, page)
    text = page.read_text()
    assert "| encode | a clip | 2 s | published | 3 s | 1.50 | 2 | 25 % | 2e-06 |" in text
    assert "Left out: torchcodec (is not installed)." in text
    assert "old" not in text
    assert [part for part in ("before\n", "\nbetween\n", "\nkept\n", "\nafter\n") if part not in text] == []

    picture = ElementTree.parse(tmp_path / "images" / "growth.svg")
    assert len(picture.findall(".//{*}polyline")) == 6  # time and memory, over three quantities
    assert len(picture.findall(".//{*}circle")) == 12

    write_page({"machine": machine | rates, "sections": sections}, tmp_path / "new.md")
    assert all(f"<!-- table: {name} -->" in (tmp_path / "new.md").read_text() for name in TABLES)


def test_the_page_of_the_documentation_has_a_place_for_every_table():
    from performance_sections.page import MARK, TABLES

    assert [name for _, name, _ in MARK.findall((ROOT / "docs" / "performance.md").read_text())] == [
        *("machine", "comparison", "layers", "bfloat16", "startup", "growth")
    ]
    assert len(TABLES) == 6


def test_a_folder_that_is_no_clone_is_named(tmp_path):
    line = [sys.executable, PROGRAM, "--published", tmp_path, "--only", "encode"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{tmp_path}: holds no folder causalvideovae" in done.stderr


def test_results_are_added_to_those_of_the_file(tmp_path, monkeypatch):
    import performance

    file = tmp_path / "results.json"
    file.write_text(json.dumps({"sections": {"decode": {"date": "2026-01-01", "rows": [], "left_out": []}}}))
    made = {"date": "2026-11-27", "rows": [], "left_out": []}
    monkeypatch.setattr(performance, "in_own_process", lambda _name: made)
    monkeypatch.setattr(sys, "argv", ["performance.py", "--only", "encode", "--tiny", "--json", str(file)])
    assert performance.main() == 0
    assert [*json.loads(file.read_text())["sections"]] == ["decode", "encode"]
