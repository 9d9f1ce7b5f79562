"""The recipes of docs/CONTRIBUTING.md, followed step by step: what they say is enough, and works."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
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
from vaectl.metrics import FACTS, METRICS, MetricFacts, MetricSettings, build
from vaectl.metrics.metric import FrameMetric
from vaectl.options.common import MODEL, Config
from vaectl.options.option import Option

PAGE = (ROOT / "docs" / "CONTRIBUTING.md").read_text()


def code_of(heading: str) -> list[str]:
    """The Python blocks below a heading, without their indentation."""
    (section,) = (part for part in PAGE.split("\n## ") if part.startswith(f"{heading}\n"))
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", section, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in blocks]


TINY_FAMILY = """
import sys, torch
from vaectl.models import build_model, load_model, save_model
from vaectl.models.families.tinyvae import TinyVAEConfig
from vaectl.training.network import trained_parameters
from test_tinyvae import test_tiles_give_the_result_of_whole_frames

test_tiles_give_the_result_of_whole_frames()
model = build_model(TinyVAEConfig(norm_type="groupnorm"))
save_model(model, "model")
assert load_model("model", device="cpu").config == model.config
assert 0 < len(trained_parameters(model, freeze_encoder=True)) < len([*model.parameters()])
"""


def test_the_family_of_the_recipe_runs_in_tiles_and_loads(tmp_path):
    """In a copy of the sources, where the steps are followed literally."""
    code, table, test = code_of("Add a family")
    package = tmp_path / "src" / "vaectl"
    shutil.copytree(ROOT / "src" / "vaectl", package, ignore=shutil.ignore_patterns("__pycache__"))
    family = package / "models" / "families" / "tinyvae.py"
    family.write_text(code)
    build = package / "models" / "build.py"
    next_import = "from vaectl.models.families.wan import"
    before, after = build.read_text().split(next_import)
    after, replaced = re.subn(r"^FAMILIES: .*?^}\n", table, after, flags=re.MULTILINE | re.DOTALL)
    assert replaced == 1
    build.write_text(f"{before}from vaectl.models.families.tinyvae import TinyVAE\n{next_import}{after}")
    (tmp_path / "test_tinyvae.py").write_text(test)
    path = f"{tmp_path / 'src'}:{tmp_path}"
    done = subprocess.run(
        [sys.executable, "-c", TINY_FAMILY], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert done.returncode == 0
    for check in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *check, "--config", str(ROOT / "pyproject.toml"), str(family), str(build)]
        assert subprocess.run(ruff, check=False).returncode == 0


@pytest.fixture
def mae(tmp_path, monkeypatch):
    """The metric of the recipe, as if its file were in the package and its lines in the tables."""
    code, line, facts = code_of("Add a metric")
    ((name, target),) = json.loads("{" + line.strip().rstrip(",") + "}").items()
    monkeypatch.setitem(FACTS, name, eval(facts.strip().rstrip(","), {"MetricFacts": MetricFacts}))
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
    result = tmp_path / "result.json"
    result.write_text(capsys.readouterr().out)
    summary = json.loads(result.read_text())["summary"][mae]
    assert (summary["unit"], summary["better"]) == ("levels", "lower")
    assert main(["compare", f"a={result}", f"b={result}"]) == 0
    assert "mae ↓" in capsys.readouterr().out
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

    add_command(app, toy, options_of_the_recipe, "")
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
