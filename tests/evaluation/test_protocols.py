"""Protocols by name and from files: the options that they set, what overrides them, their hash, and refusals."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from vaectl.cli import eval as eval_command
from vaectl.cli import prepare_eval
from vaectl.cli.app import main
from vaectl.cli.derive import resolve
from vaectl.errors import UsageError
from vaectl.evaluation.protocol import ClipProtocol, protocol_of
from vaectl.evaluation.protocols import FOLDER, frames_in_words, name_in_words, read_protocol
from vaectl.options import EvalOptions, PrepareEvalOptions
from vaectl.options.protocol import PROTOCOLS

PATHS = {"real_video_dir": "in", "generated_video_dir": "out"}


def eval_options(**given: Any) -> EvalOptions:
    return resolve(EvalOptions, PATHS | given, eval_command.underlying)


def prepare_options(**given: Any) -> PrepareEvalOptions:
    return resolve(PrepareEvalOptions, PATHS | given, prepare_eval.underlying)


def test_the_names_are_those_of_the_files():
    assert sorted(PROTOCOLS) == sorted(file.stem for file in FOLDER.glob("*.toml"))


@pytest.mark.parametrize(
    ("name", "protocol", "tiled"),
    [
        ("wfvae", ClipProtocol(33, 1, 256, 256, "swscale"), False),
        ("vidtok", ClipProtocol(17, 1, 256, 256, "swscale", frame_rate=Fraction(30), all_windows=True), False),
        ("published-script", ClipProtocol(100, 1, 336, None, "swscale"), False),
        ("full", ClipProtocol("all", 1, "source", None), True),
    ],
)
def test_eval_and_prepare_eval_give_a_protocol_the_same_meaning(name, protocol, tiled):
    for options in eval_options(protocol=name), prepare_options(protocol=name):
        assert protocol_of(options) == protocol
        assert options.enable_tiling is tiled
        assert options.protocol == name


def test_without_options_the_protocol_is_that_of_wfvae_with_accurate_colours():
    wfvae = protocol_of(eval_options(protocol="wfvae", rgb_conversion="accurate"))
    assert protocol_of(eval_options()) == wfvae == protocol_of(prepare_options())


def test_flags_and_config_override_a_protocol_and_a_protocol_the_defaults(tmp_path):
    own = 'num_frames = 9\nresolution = 64\nmetric = ["ssim", "psnr"]\nrgb_conversion = "swscale"\n'
    (tmp_path / "own.toml").write_text(own)
    (tmp_path / "run.toml").write_text("resolution = 48\n")
    options = eval_options(protocol=str(tmp_path / "own.toml"), config=str(tmp_path / "run.toml"), crop_size="32")
    assert protocol_of(options) == ClipProtocol(9, 1, 48, 32, "swscale")
    assert options.metric == ("ssim", "psnr")
    assert eval_options(protocol=str(tmp_path / "own.toml"), metric=["lpips"]).metric == ("lpips",)
    assert protocol_of(eval_options(protocol="vidtok", all_windows=False)).all_windows is False
    assert prepare_options(protocol="full", crop_size_width="64", crop_size_height="64").crop_size == 64


def test_a_config_file_may_name_the_protocol(tmp_path):
    (tmp_path / "run.toml").write_text('protocol = "vidtok"\n')
    assert protocol_of(eval_options(config=str(tmp_path / "run.toml"))).num_frames == 17


def test_the_hash_is_of_what_is_compared_however_it_was_asked_for(tmp_path):
    file = tmp_path / "vidtok-copy.toml"
    file.write_text(
        'num_frames = 17\nframe_rate = "30"\nall_windows = true\ncrop_size = 256\nmetric = "psnr"\n'
        'rgb_conversion = "swscale"\n'
    )
    ways = [
        eval_options(protocol="vidtok"),
        eval_options(protocol=str(file)),
        eval_options(num_frames="17", frame_rate="30.0", all_windows=True, rgb_conversion="swscale"),
        prepare_options(protocol="vidtok"),
    ]
    assert len({protocol_of(options).hash for options in ways}) == 1
    others = [
        ClipProtocol(17, 1, 256, 256, frame_rate=Fraction(30)),
        ClipProtocol(17, 1, 256, None, frame_rate=Fraction(30), all_windows=True),
    ]
    assert len({protocol.hash for protocol in [protocol_of(ways[0]), *others]}) == 3


def test_the_hash_of_a_protocol_never_changes():
    assert ClipProtocol(33, 1, 256, 256).hash.startswith("f9a2fddf")
    assert ClipProtocol(17, 1, 256, 256, frame_rate=Fraction(30), all_windows=True).hash.startswith("2468d81c")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wfave", "no protocol is called 'wfave'; did you mean wfvae?"),
        ("VidTok", "no protocol is called 'VidTok'; did you mean vidtok?"),
        ("x", "no protocol is called 'x'; choose from wfvae, vidtok, published-script, full, or give a .toml file"),
        ("gone.toml", "gone.toml: cannot read the configuration: No such file or directory"),
    ],
)
def test_an_unknown_name_is_refused_in_one_line(capsys, name, said):
    for command in "eval", "prepare-eval":
        line = [command, "--real-video-dir", "in", "--generated-video-dir", "out", "--protocol", name]
        assert main(line) == 2
        assert capsys.readouterr().err == f"error: {said}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("num_frame = 17", "{file}: unknown option num_frame; did you mean num_frames?"),
        ("seed = 3", "{file}: unknown option seed; it may set num_frames, sample_rate, "),
        ("real_video_dir = 'x'", "{file}: unknown option real_video_dir; it may set "),
        ("num_frames = 'some'", "{file}: num_frames: must be a valid integer"),
        ("num_frames = 0", "{file}: num_frames: must be at least 1, not 0"),
        ("resolution = 'sauce'", "{file}: resolution: must be a valid integer"),
        ("resolution = 8", "{file}: resolution: must be at least 16, not 8"),
        ("frame_rate = 0", "{file}: frame_rate: must be between 1/1000 and 1000"),
        ("all_windows = 3", "{file}: all_windows: must be a valid boolean"),
        ("metric = 'psnrr'", "{file}: metric: there is no metric 'psnrr'; did you mean psnr?"),
        ("crop_size = 300", "{file}: --crop-size 300 does not fit into a --resolution of 256; make it smaller"),
        ("num_frames = 'all'\nall_windows = true", "{file}: --all-windows cuts a clip into windows, and --num-frames"),
        ("num_frames = ", "{file}: not a valid TOML file: "),
    ],
)
def test_a_fault_in_a_file_is_one_line_that_names_the_file_and_the_option(tmp_path, capsys, content, said):
    file = tmp_path / "own.toml"
    file.write_text(content)
    assert main(["eval", "--real-video-dir", "in", "--generated-video-dir", "out", "--protocol", str(file)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {said.format(file=file)}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_frames": "some"}, "--num-frames: must be a valid integer or 'all', not 'some'"),
        ({"num_frames": "all", "all_windows": True}, "`all_windows` cuts a clip into windows"),
        ({"resolution": "big"}, "--resolution: must be a valid integer or 'source', not 'big'"),
        ({"protocol": ""}, "--protocol: give a TOML file, or one of wfvae, vidtok, published-script, full"),
    ],
)
def test_wrong_values_of_options_are_named(given, said):
    for options in eval_options, prepare_options:
        with pytest.raises(UsageError) as caught:
            options(**given)
        assert str(caught.value).startswith(said)


def test_the_statement_names_the_protocol_and_the_options_that_changed_it():
    known = {"name": "wfvae", "changed": [], "hash": "0123456789abcdef"}
    assert name_in_words(known) == "wfvae (01234567)"
    assert name_in_words({**known, "changed": ["num_frames"]}) == "wfvae, changed by `num_frames` (01234567)"
    assert name_in_words({**known, "name": None}) == name_in_words({}) == ""


@pytest.mark.parametrize(
    ("clips", "words"),
    [
        ({"num_frames": 33, "sample_rate": 1}, "33"),
        ({"num_frames": 5, "sample_rate": 2, "frame_rate": None, "all_windows": False}, "5 (one in 2)"),
        (
            {"num_frames": 17, "sample_rate": 1, "frame_rate": "30000/1001", "all_windows": True},
            "every window of 17, at about 29.97 frames/s (slower clips at their own rate)",
        ),
        ({"num_frames": "all", "sample_rate": 1}, "all"),
    ],
)
def test_the_frames_are_described_in_words(clips, words):
    assert frames_in_words(clips) == words


def test_the_file_of_a_protocol_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.toml").write_text("num_frames = 5\n")
    assert read_protocol("~/own.toml") == {"num_frames": 5}
    assert Path(eval_options(protocol="~/own.toml").protocol or "") == tmp_path / "own.toml"
