"""Options from raw values and from configuration files: what is accepted, and how a refusal reads."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaectl.cli.app import main
from vaectl.cli.derive import resolve
from vaectl.cli.spelling import spell_options
from vaectl.errors import UsageError
from vaectl.options import EvalOptions, PrepareEvalOptions, ReconstructOptions, dump, options_of, parse
from vaectl.options.common import read_path
from vaectl.options.train import TrainOptions
from vaectl.training.resume import checkpoint_to_resume

PATHS = {"video_path": "in.mp4", "rec_path": "out.mp4"}


def parsed(**values: Any) -> ReconstructOptions:
    return parse(ReconstructOptions, PATHS | values)


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        parse(ReconstructOptions, values)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return spell_options(str(caught.value))


def test_defaults_reconstruct_the_whole_clip_as_it_is():
    options = parsed()
    assert (options.num_frames, options.sample_rate, options.start, options.height, options.fps) == (
        None,
        1,
        0,
        None,
        None,
    )
    assert (options.device, options.dtype, options.model, options.sample) == ("auto", "auto", None, False)


def test_every_option_has_a_help_text_and_values_have_a_metavar():
    for field, option in options_of(ReconstructOptions).items():
        assert option.help.endswith((".", ")")), field
        is_flag = getattr(parsed(), field) is False
        assert bool(option.metavar) != is_flag, field


@pytest.mark.parametrize(
    ("typed", "rate"),
    [
        ("30", Fraction(30)),
        ("29.97", Fraction(2997, 100)),
        ("30000/1001", Fraction(30000, 1001)),
        (29.97, Fraction(2997, 100)),
    ],
)
def test_a_frame_rate_is_an_exact_fraction(typed, rate):
    assert parsed(fps=typed).fps == rate


@given(st.fractions(min_value=Fraction(1, 1000), max_value=1000, max_denominator=100_000))
def test_any_frame_rate_survives_being_written_and_read(rate):
    assert parsed(fps=str(rate)).fps == rate


@pytest.mark.parametrize(
    ("typed", "meant"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16"), ("auto", "auto")]
)
def test_every_precision_option_accepts_the_published_spelling(typed, meant):
    evaluate = {"real_video_dir": "in", "generated_video_dir": "out", "dtype": typed}
    assert parsed(dtype=typed).dtype == meant
    assert parse(PrepareEvalOptions, evaluate).dtype == meant
    assert parse(EvalOptions, evaluate).dtype == meant
    training = parse(TrainOptions, {"video_path": "in", "mix_precision": typed})
    assert training.mix_precision == meant
    assert dump(training)["mix_precision"] == meant


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_devices_are_known_by_name(device):
    assert parsed(device=device).device == device


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("height", "5", "--height: must be at least 16, not 5"),
        ("width", "100000", "--width: must be at most 16384, not 100000"),
        ("num_frames", "0", "--num-frames: must be at least 1, not 0"),
        ("num_frames", "ten", "--num-frames: must be a valid integer, not 'ten'"),
        ("num_frames", True, "--num-frames: takes a value, not true or false"),
        ("sample_rate", "-1", "--sample-rate: must be at least 1, not -1"),
        ("start", "-1", "--start: must be at least 0, not -1"),
        ("fps", "0", "--fps: must be between"),
        ("fps", "1/0", "--fps: give frames per second as 30, 29.97 or 30000/1001, not '1/0'"),
        ("fps", "nan", "--fps: give frames per second"),
        ("device", "gpu", "--device: must be auto, cpu, cuda, cuda:N or mps, not 'gpu'"),
        ("dtype", "int8", "--dtype: must be 'auto', 'float32', 'bfloat16' or 'float16', not 'int8'"),
        ("rec_path", "", "--rec-path: the path is empty"),
        ("video_path", 3, "--video-path: "),
        ("frames", 3, "`frames`: "),
    ],
)
def test_a_refusal_names_the_option_and_what_it_may_be(field, value, said):
    assert refusal(PATHS | {field: value}).startswith(said)


def test_all_faults_are_told_at_once():
    said = refusal({"height": "5"}).split("; ")
    assert sorted(said) == ["--height: must be at least 16, not 5", "--rec-path is missing", "--video-path is missing"]


def test_short_size_excludes_height_and_width():
    assert "--short-size excludes" in refusal(PATHS | {"short_size": 64, "width": 64})


def test_resolved_options_can_be_written_as_json_and_read_back():
    options = parsed(fps="30000/1001", height=64, dtype="bf16", sample=True)
    assert parse(ReconstructOptions, json.loads(json.dumps(dump(options)))) == options


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "latin-1")
    return path


def configured(path: Path, **typed: Any) -> ReconstructOptions:
    return resolve(ReconstructOptions, PATHS | typed | {"config": str(path)})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'num_frames = 9\nside-by-side = true\nfps = 29.97\nimage_path = "clips"\n'),
        ("a.json", '{"num-frames": 9, "side_by_side": true, "fps": 29.97, "image-path": "clips"}'),
    ],
)
def test_a_configuration_sets_options_in_either_spelling(tmp_path, name, text):
    options = resolve(ReconstructOptions, {"rec_path": "out", "config": str(written(tmp_path, name, text))})
    assert (options.num_frames, options.side_by_side, options.fps) == (9, True, Fraction(2997, 100))
    assert options.video_path == (Path("clips"),)


def test_the_command_line_wins_over_the_configuration(tmp_path):
    path = written(tmp_path, "a.toml", "num_frames = 9\noverwrite = true\nstrict = true")
    options = configured(path, num_frames="5", overwrite=False)
    assert (options.num_frames, options.overwrite, options.strict) == (5, False, True)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "num_frame = 3", "unknown option num_frame; did you mean num_frames?"),
        ("a.toml", "zzz = 3", "unknown option zzz; it may set video_path, "),
        ("a.toml", "debug = true", "`debug` cannot be set in a file; give it on the command line"),
        ("a.toml", 'config = "b.toml"', "`config` cannot be set in a file; give it on the command line"),
        ("a.toml", "confi = 3", "unknown option confi; it may set video_path, "),
        ("a.toml", "num_frames = 1\nnum-frames = 2", "sets num_frames twice"),
        ("a.toml", "num_frames = ", "not a valid TOML file"),
        ("a.json", "{", "not a valid JSON file"),
        ("a.json", '{"num_frames": 1, "num_frames": 2}', "not a valid JSON file: it sets num_frames twice"),
        ("a.json", '{"options": {"fps": 1, "fps": 2}}', "not a valid JSON file: it sets fps twice"),
        ("a.json", "[1]", "must hold one table of options"),
        ("a.json", "\xff", "not a valid JSON file"),
        ("a.yaml", "a: 1", "a configuration is a .toml or .json file"),
        ("a.mp4", "\xff", "a configuration is a .toml or .json file"),
    ],
)
def test_a_bad_configuration_is_named_with_its_fault(tmp_path, name, text, said):
    path = written(tmp_path, name, text)
    with pytest.raises(UsageError) as caught:
        configured(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_bad_value_is_traced_to_the_file_it_stands_in(tmp_path):
    path = written(tmp_path, "a.toml", "height = 5")
    with pytest.raises(UsageError, match="must be at least 16") as caught:
        configured(path)
    assert str(caught.value) == f"height in {path}: must be at least 16, not 5"


def test_a_missing_configuration_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="cannot read the configuration: No such file"):
        configured(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "line", ["ckpt_dir = [1]", "ckpt_dir = true", "exp_name = 3.5", "recipe = []", "recipe = {a = 1}"]
)
def test_a_training_option_of_another_type_in_a_file_is_one_line(tmp_path, capsys, line):
    (tmp_path / "run.toml").write_text(f"{line}\n")
    assert main(["train", "--video-path", "v", "--config", str(tmp_path / "run.toml")]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {line.split()[0]} in ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("path", ["a\0b", "n" * 5000])
def test_what_can_be_no_path_is_refused(tmp_path, capsys, path):
    (tmp_path / "run.json").write_text(json.dumps({"video_path": path, "rec_path": "b.mp4"}))
    assert main(["reconstruct", "--config", str(tmp_path / "run.json")]) == 2
    err = capsys.readouterr().err
    assert "video_path in " in err
    assert len(err) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("path", "expected"),
    [("~/a.mp4", "{home}/a.mp4"), ("~no such user/a", "~no such user/a"), ("./~/a.mp4", "~/a.mp4")],
)
def test_a_tilde_is_the_home_folder_only_where_the_shell_would_say_so(monkeypatch, tmp_path, path, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(read_path(path)) == expected.format(home=tmp_path)
    with pytest.raises(UsageError, match="~no such user: no such checkpoint"):
        checkpoint_to_resume("~no such user", tmp_path, "vae")
