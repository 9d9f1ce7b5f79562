"""`--print-config`, and the records of runs as configurations."""

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import environment
from vaectl.cli.app import COMMANDS, main
from vaectl.cli.derive import resolve
from vaectl.cli.train import underlying
from vaectl.io.json_values import write_json
from vaectl.options import ReconstructOptions, dump, options_of
from vaectl.options.file import read_config
from vaectl.options.train import RECIPES, TrainOptions
from vaectl.training.resume import recordable

MODELS = {function.__name__.replace("_", "-"): model() for function, model, _ in COMMANDS}
LINES = {
    "train": [
        ["--video-path", "a", "--video-path", 'b "c"\\d\x7fé', "--video-weight", "2", "--video-weight", "0.5"],
        *(["--video-path", "v", "--recipe", recipe] for recipe in RECIPES),
        ["--video-path", "v", "--model", "builtin", "--lr", "3e-7", "--no-eval-lpips", "--find-unused-parameters"],
    ],
    "reconstruct": [
        ["--video-path", "in", "--rec-path", "out", "--fps", "30000/1001", "--memory-limit", "1.5GiB", "--overwrite"],
        ["--video-path", "in", "--rec-path", "out", "--ae", "WFVAE", "--tile-overlap-factor", "0.25", "--json"],
    ],
    "prepare-eval": [
        ["--real-video-dir", "a", "--generated-video-dir", "b", "--sample-fps", "29.97", "--ckpt", "./builtin"],
        ["--real-video-dir", "a", "--generated-video-dir", "b", "--protocol", "full", "--crop-size", "64"],
    ],
    "eval": [
        ["--real-video-dir", "a", "--model", "builtin", "--metric", "psnr,fvd", "--csv", "x.csv", "--mp"],
        ["--real-video-dir", "a", "--generated-video-dir", "b", "--protocol", "vidtok", "--no-all-windows"],
    ],
    "compare": [["a.json", "wan=b=c.json", "--all-pairs", "--latex", "t.tex"]],
    "models": [[], ["builtin", "--json"]],
}


@pytest.fixture
def resolved(monkeypatch):
    """The options that a command line gives to the command."""
    given = []

    def keep(*arguments):
        given.append(resolve(*arguments))
        return given[-1]

    monkeypatch.setattr("vaectl.cli.derive.resolve", keep)

    def options_of(*arguments):
        assert main(arguments) == 0
        return given[-1]

    return options_of


def lasting(options):
    """The options that a file can hold."""
    return {name: getattr(options, name) for name, option in options_of(type(options)).items() if option.in_file}


def test_every_command_is_covered():
    assert LINES.keys() == MODELS.keys()


@pytest.mark.parametrize(("command", "line"), [(command, line) for command in LINES for line in LINES[command]])
def test_printed_options_are_read_back_as_they_were(tmp_path, capsys, resolved, command, line):
    options = resolved(command, *line, "--print-config")
    printed = capsys.readouterr().out
    (tmp_path / "run.toml").write_text(printed)
    again = resolved(command, "--config", str(tmp_path / "run.toml"), "--print-config")
    assert lasting(again) == lasting(options)
    assert capsys.readouterr().out == printed
    assert max(map(len, printed.splitlines()[:5])) <= 100


def test_what_a_file_cannot_hold_is_named(tmp_path, capsys):
    (tmp_path / "run.toml").write_text("num_frames = 5\n")
    line = ["train", "--video-path", "v", "--config", str(tmp_path / "run.toml"), "--print-config"]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "# Only on the command line: --resume-from-checkpoint, --accept-changes" in out
    assert "num_frames = 5\n" in out
    assert "# Not set: crop_size, model, " in out
    assert "disc_cls" not in out
    assert "\nconfig" not in out


def test_options_of_a_resumed_checkpoint_are_printed(tmp_path, capsys, monkeypatch):
    checkpoint = tmp_path / "results" / "vae" / "checkpoint-00000001"
    checkpoint.mkdir(parents=True)
    recorded = recordable(resolve(TrainOptions, {"video_path": ["clips"], "lr": "0.125"}))
    monkeypatch.setattr("vaectl.training.resume.checkpoint_to_resume", lambda *_: checkpoint)
    monkeypatch.setattr("vaectl.training.resume.read_facts", lambda _: type("Facts", (), {"options": recorded}))
    (checkpoint / "training.json").touch()
    monkeypatch.setattr("vaectl.training.resume.FACTS", "training.json")
    assert main(["train", "--resume-from-checkpoint", str(checkpoint), "--keep", "9", "--print-config"]) == 0
    out = capsys.readouterr().out
    assert "lr = 0.125\n" in out
    assert "keep = 9\n" in out


def test_nothing_is_imported_that_only_a_run_needs():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['av'] = None\n"
        "from vaectl.cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    line = ["train", "--video-path", "v", "--recipe", "tiny", "--print-config"]
    done = subprocess.run(
        [sys.executable, "-c", code, *line], capture_output=True, text=True, env=environment(), check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 'recipe = "tiny"' in done.stdout


@pytest.mark.parametrize(
    ("command", "line"), [(command, LINES[command][0]) for command in LINES if command != "models"]
)
def test_a_record_of_a_run_is_a_configuration(tmp_path, resolved, command, line):
    (tmp_path / "first.toml").write_text("")
    options = resolved(command, *line, "--config", str(tmp_path / "first.toml"), "--debug", "--print-config")
    content = {
        "train": lambda: recordable(options),
        "reconstruct": lambda: {"vaectl": "0.1.0", "options": dump(options), "clips": []},
        "prepare-eval": lambda: {"format": 1, "options": dump(options), "clips": []},
        "eval": lambda: dump(options),
        "compare": lambda: dump(options),
    }[command]()
    write_json(tmp_path / "record.json", content)
    again = resolve(
        MODELS[command], {"config": str(tmp_path / "record.json")}, underlying if command == "train" else None
    )
    before = lasting(options)
    if command == "train":
        before["video_path"] = tuple(path.absolute() for path in before["video_path"])
        before["ckpt_dir"] = before["ckpt_dir"].absolute()
    assert lasting(again) == before
    assert again.config == tmp_path / "record.json"


def test_the_record_of_a_resumed_run_starts_a_new_one(tmp_path):
    options = resolve(TrainOptions, {"video_path": ["v"], "resume_from_checkpoint": "latest", "debug": True})
    write_json(tmp_path / "options.json", recordable(options))
    assert "resume_from_checkpoint" not in read_config(tmp_path / "options.json", TrainOptions)


def test_a_null_is_not_given(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"num_frames": None, "height": 64, "config": None}))
    assert read_config(tmp_path / "run.json", ReconstructOptions) == {"height": 64}


def test_a_name_that_no_file_can_hold_is_refused(capsys):
    assert main(["models", "a\udcff", "--print-config"]) == 2
    assert "is not UTF-8 and cannot be in a file" in capsys.readouterr().err
