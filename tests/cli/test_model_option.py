"""`--model` names the model in every command; the names of the published scripts mean the same."""

import json
from pathlib import Path

import pytest

from tests.models.reference import load_reference, synthetic_model
from vaectl.cli.app import COMMANDS, main
from vaectl.cli.derive import resolve
from vaectl.errors import VaectlError
from vaectl.inventory import describe
from vaectl.models import load_model, save_model
from vaectl.models.checkpoint import BUILTIN, locate
from vaectl.options.train import TrainOptions
from vaectl.training.resume import recordable

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
OPTIONS = {function.__name__.replace("_", "-"): model() for function, model, _ in COMMANDS}


def model_of(options):
    """The path of the only model."""
    return options.model if not isinstance(options.model, tuple) else options.model[0].path


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
    assert model_of(typed(command, *needed, name, "folder")) == Path("folder")


@pytest.mark.parametrize("suffix", ["toml", "json"])
@pytest.mark.parametrize(("command", "name"), EVERY_NAME)
def test_a_configuration_accepts_every_name_of_the_model(tmp_path, command, name, suffix):
    file = tmp_path / f"run.{suffix}"
    file.write_text(f'{name[2:]} = "folder"' if suffix == "toml" else json.dumps({name[2:]: "folder"}))
    assert model_of(resolve(OPTIONS[command], {**REQUIRED[command], "config": str(file)})) == Path("folder")


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


@pytest.mark.parametrize("command", REQUIRED)
def test_builtin_is_a_name_and_a_folder_of_that_name_is_a_path(typed, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    needed = [word for field, value in REQUIRED[command].items() for word in (f"--{field}", value)]
    assert model_of(typed(command, *needed, "--model", "builtin")) == Path("builtin")
    for folder in ("./builtin", "builtin/", str(tmp_path / "builtin")):
        assert model_of(typed(command, *needed, "--model", folder)) == tmp_path / "builtin"


def test_a_model_is_found_by_the_name_builtin_or_by_its_path(tmp_path, monkeypatch, capsys):
    save_model(synthetic_model(load_reference("wfvae_4x8x8").config), tmp_path / "builtin")
    monkeypatch.chdir(tmp_path)
    for name in (None, "builtin", Path("builtin")):
        assert locate(name)[0] == BUILTIN
        assert describe(name).path.startswith(str(BUILTIN))
    assert locate("./builtin")[0] == Path("builtin")
    assert load_model("builtin").config == load_model().config
    assert main(["models", "builtin"]) == 0
    assert main(["models", "--model", "builtin"]) == 0
    assert main(["models", "./builtin"]) == 0
    first, second, third = (line for line in capsys.readouterr().out.splitlines() if line.startswith("weights"))
    assert first == second != third
    assert str(tmp_path / "builtin") in third


def test_a_run_with_the_builtin_model_records_its_name(tmp_path):
    options = resolve(TrainOptions, {"video_path": ["v"], "model": "builtin"})
    assert recordable(options)["model"] == "builtin"
    folder = resolve(TrainOptions, {"video_path": ["v"], "model": "./builtin"})
    assert recordable(folder)["model"] == str(Path.cwd() / "builtin")


OPEN_SORA = (
    'download it: hf download LanguageBind/Open-Sora-Plan-v1.3.0 --include "vae/*" --local-dir Open-Sora-Plan-v1.3.0;'
    " then pass --model Open-Sora-Plan-v1.3.0/vae"
)
GIVE_ONE = "give a directory with config.json and weights"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Open-Sora Plan v1.3", OPEN_SORA),
        ("Open-Sora-Plan-v1.3.0/vae", OPEN_SORA),
        ("/models/Open-Sora-Plan-v1.3.0/", OPEN_SORA),
        ("some/model.safetensors", GIVE_ONE),
        ("open-sora-plan-v1.3.0", OPEN_SORA),
        (
            "WF-VAE-L-16Chn",
            "download it: hf download chestnutlzj/WF-VAE-L-16Chn --local-dir WF-VAE-L-16Chn; then pass"
            " --model WF-VAE-L-16Chn",
        ),
        ("here/vae", "check the path; for the model of that name on Hugging Face, give --model here/vae@main"),
        ("here/some/vae", GIVE_ONE),
        ("here/model.safetensors", GIVE_ONE),
        ("model", GIVE_ONE),
    ],
)
def test_a_model_that_is_not_here_is_answered_with_the_way_to_get_it(tmp_path, monkeypatch, capsys, name, remedy):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert main(["models", name]) == 2
    assert capsys.readouterr().err == f"error: {Path(name)}: no such file or directory; {remedy}\n"


def test_a_path_with_a_dot_is_no_name_of_the_hub(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["models", "./some/vae/x"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/some/vae/x: no such file or directory; {GIVE_ONE}\n"


def test_a_folder_wins_over_the_name_of_a_published_model(tmp_path, monkeypatch, capsys):
    save_model(synthetic_model(load_reference("wfvae_4x8x8").config), tmp_path / "WF-VAE-L-16Chn")
    monkeypatch.chdir(tmp_path)
    assert main(["models", "WF-VAE-L-16Chn"]) == 0
    assert "WF-VAE-L-16Chn/diffusion_pytorch_model" in capsys.readouterr().out
