"""`--model` names the model in every command; the names of the published scripts mean the same."""

import json
from pathlib import Path

import pytest

from tests.models.reference import load_reference, synthetic_model
from vaectl.cli.app import COMMANDS, main
from vaectl.cli.derive import resolve
from vaectl.errors import VaectlError
from vaectl.models import save_model

NAMES = {
    "train": ["--model", "--pretrained-model-name-or-path", "--pretrained_model_name_or_path"],
    "reconstruct": ["--model", "--ae-path", "--ae_path", "--from_pretrained"],
    "prepare-eval": ["--model", "--ckpt", "--from_pretrained"],
    "eval": ["--model", "--ckpt", "--from_pretrained"],
}
REQUIRED = {
    "train": {"video_path": "clips"},
    "reconstruct": {"video_path": "in.mp4", "rec_path": "out.mp4"},
    "prepare-eval": {"real_video_dir": "in", "generated_video_dir": "out"},
    "eval": {"real_video_dir": "in"},
}
OPTIONS = {function.__name__.replace("_", "-"): model for function, model, _ in COMMANDS}
EVERY_NAME = [(command, name) for command, names in NAMES.items() for name in names]


@pytest.fixture
def typed(monkeypatch):
    """The options that a command line resolves to; no job runs."""

    def options_of(*arguments):
        resolved = []

        def keep(*given):
            resolved.append(resolve(*given))
            raise VaectlError("that is all")

        monkeypatch.setattr("vaectl.cli.derive.resolve", keep)
        assert main(arguments) == 1
        return resolved[0]

    return options_of


@pytest.mark.parametrize(("command", "name"), EVERY_NAME)
def test_every_command_accepts_every_name_of_its_model(typed, command, name):
    needed = [word for field, value in REQUIRED[command].items() for word in (f"--{field}", value)]
    assert typed(command, *needed, name, "folder").model == Path("folder")


@pytest.mark.parametrize("suffix", ["toml", "json"])
@pytest.mark.parametrize(("command", "name"), EVERY_NAME)
def test_a_configuration_accepts_every_name_of_the_model(tmp_path, command, name, suffix):
    file = tmp_path / f"run.{suffix}"
    file.write_text(f'{name[2:]} = "folder"' if suffix == "toml" else json.dumps({name[2:]: "folder"}))
    assert resolve(OPTIONS[command], {**REQUIRED[command], "config": str(file)}).model == Path("folder")


def test_a_configuration_names_the_model_once(tmp_path, capsys):
    (tmp_path / "run.toml").write_text('model = "a"\nae_path = "b"\n')
    assert main(["reconstruct", "--config", str(tmp_path / "run.toml")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/run.toml: sets model twice; keep one\n"


@pytest.mark.parametrize("command", [*NAMES, "models"])
def test_help_shows_model_and_no_other_name_of_it(vaectl, command):
    page = vaectl(command, "--help").stdout
    assert "--model PATH" in page
    assert [name for names in NAMES.values() for name in names if name != "--model" and f"{name} " in page] == []


def test_models_takes_a_path_or_the_option(capsys, tmp_path):
    save_model(synthetic_model(load_reference("wfvae_4x8x8").config), tmp_path / "model")
    printed = []
    for arguments in ([str(tmp_path / "model")], ["--model", str(tmp_path / "model")]):
        assert main(["models", *arguments]) == 0
        printed.append(capsys.readouterr().out)
    assert "family" in printed[0]
    assert printed[0] == printed[1]
    assert main(["models", "a", "--model", "b"]) == 2
    assert capsys.readouterr().err == "error: --model excludes PATH; give one or the other\n"
