"""The recipes of docs/CONTRIBUTING.md, followed step by step: what they say is enough, and works."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import torch
import typer
from typer.testing import CliRunner

import vaectl.metrics
from tests.conftest import ROOT
from vaectl.cli.app import main
from vaectl.cli.derive import add_command, resolve
from vaectl.cli.reference import command
from vaectl.errors import UsageError
from vaectl.metrics import METRICS, MetricSettings, build
from vaectl.metrics.metric import FrameMetric
from vaectl.models import build_model, families, load_model, save_model
from vaectl.models.checkpoint import NETWORKS
from vaectl.models.config import FAMILIES
from vaectl.options.common import MODEL, Config
from vaectl.options.option import Option
from vaectl.tiling.plan import uniform_plan
from vaectl.tiling.stream import reconstruct_windows

PAGE = (ROOT / "docs" / "CONTRIBUTING.md").read_text()


def code_of(heading: str) -> list[str]:
    """The Python blocks below a heading, without their indentation."""
    (section,) = (part for part in PAGE.split("\n## ") if part.startswith(f"{heading}\n"))
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", section, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in blocks]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The family of the recipe, as if its file were in the package and its lines in the tables."""
    code, line = code_of("Add a family")
    (tmp_path / "tinyvae.py").write_text(code)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    made = importlib.import_module("vaectl.models.families.tinyvae")
    config, network = (getattr(made, name.strip()) for name in line.strip().rstrip(",").split(":"))
    monkeypatch.setitem(FAMILIES, config.class_name, config)
    monkeypatch.setitem(NETWORKS, config, network)
    yield config
    sys.modules.pop(made.__name__)


@pytest.mark.parametrize("norm", ["layernorm", "groupnorm"])
def test_the_family_of_the_recipe_loads_and_runs_in_tiles(tiny, norm, tmp_path):
    torch.manual_seed(0)
    save_model(build_model(tiny(norm_type=norm)), tmp_path / "model")
    model = load_model(tmp_path / "model", device="cpu")
    clip = torch.rand(1, 3, 6, 21, 26) * 2 - 1
    plan = uniform_plan(model, *clip.shape[2:], tile=4, window=2, place="disk")
    tiled = torch.cat(list(reconstruct_windows(model, clip.split(2, dim=2), plan)), dim=2)
    torch.testing.assert_close(tiled, model.reconstruct(clip), rtol=0, atol=1e-4)


@pytest.fixture
def mae(tmp_path, monkeypatch):
    """The metric of the recipe, as if its file were in the package and its line in the table."""
    code, line = code_of("Add a metric")
    ((name, target),) = json.loads("{" + line.strip().rstrip(",") + "}").items()
    module = target.partition(":")[0]
    (tmp_path / f"{module.rpartition('.')[2]}.py").write_text(code)
    monkeypatch.setattr(vaectl.metrics, "__path__", [*vaectl.metrics.__path__, str(tmp_path)])
    monkeypatch.setitem(METRICS, name, target)
    importlib.invalidate_caches()
    yield name
    sys.modules.pop(module, None)
    vars(vaectl.metrics).pop(module.rpartition(".")[2], None)


def test_the_metric_of_the_recipe_measures(mae):
    real = torch.randint(256, (2, 3, 3, 16, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    generated = torch.randint(256, real.shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    metric = build([mae], MetricSettings(), torch.device("cpu"))[mae]
    assert isinstance(metric, FrameMetric)
    numbers = metric.measure(real, generated)
    assert numbers.dtype == torch.float64
    torch.testing.assert_close(
        numbers, (real.double() - generated.double()).abs().mean(dim=(2, 3, 4)), rtol=1e-6, atol=0
    )


def test_the_metric_of_the_recipe_runs_in_eval(mae, samples, tmp_path, capsys):
    table = tmp_path / "numbers.csv"
    arguments = ["--metric", f"psnr,{mae}", "--num-frames", "2", "--resolution", "64", "--json", "--csv", str(table)]
    pair = [str(samples / f"carphone_{name}.mp4") for name in ("pristine", "distorted")]
    assert main(["eval", "--real-video-dir", pair[0], "--generated-video-dir", pair[1], *arguments]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"][mae]
    assert (summary["unit"], summary["better"]) == ("levels", "lower")
    assert 0 < summary["mean"] < 100
    assert table.read_text().splitlines()[0] == f"clip,frame,psnr,{mae}"


def test_the_metric_of_the_recipe_keeps_the_style(tmp_path):
    file = tmp_path / "mae.py"
    file.write_text(code_of("Add a metric")[0])
    for check in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *check, "--config", str(ROOT / "pyproject.toml"), str(file)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def options_of_the_recipe() -> type[Any]:
    """An options class with the field of the recipe."""
    (field,) = code_of("Add an option")
    fields = textwrap.indent(field + "config: Config = None", "    ")
    source = f"@dataclass(frozen=True, kw_only=True)\nclass Toy:\n{fields}"
    names = {"Annotated": Annotated, "Literal": Literal, "Option": Option, "MODEL": MODEL, "Config": Config}
    names["dataclass"] = dataclass
    exec(compile(source, "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    return names["Toy"]


@pytest.fixture
def toy():
    """A command with the option of the recipe; gives a function that runs it."""
    app = typer.Typer()

    def toy(options: Any) -> None:
        """Print the family."""
        print(options.family)

    add_command(app, toy, options_of_the_recipe(), "")
    return lambda *arguments: CliRunner().invoke(app, [*arguments])


def test_the_option_of_the_recipe_is_a_typed_value_with_a_default(toy, tmp_path):
    assert toy().output.split() == ["None"]
    assert toy("--family", "WFVAE").output.split() == ["WFVAE"]
    file = tmp_path / "toy.toml"
    file.write_text('family = "CausalVAE"\n')
    assert toy("--config", str(file)).output.split() == ["CausalVAE"]
    assert toy("--config", str(file), "--family", "WFVAE").output.split() == ["WFVAE"]
    with pytest.raises(UsageError, match="--family: must be 'WFVAE' or 'CausalVAE', not 'Wan'"):
        resolve(options_of_the_recipe(), {"family": "Wan"})


def test_the_option_of_the_recipe_is_in_the_help_and_on_the_page(toy):
    assert "List only the models of this family." in " ".join(toy("--help").output.split())

    def toy_page(options: Any) -> None:
        """Print the family."""

    row = "| `--family` NAME | List only the models of this family. | all |"
    assert row in list(command(toy_page, options_of_the_recipe(), ""))
