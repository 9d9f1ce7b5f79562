"""Numbers in text have a format and a bound: none takes long to parse, and no long one is printed in full."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.video.media import encode
from vaectl.cli.app import main
from vaectl.memory import parse_size
from vaectl.numbers import read_fraction
from vaectl.video.timestamps import FRAME_TIMES_TAG, true_times
from vaectl.video.write import write_video

ENDLESS = ["1e999999999", "1e99999999", "1e-999999999", "1" * 5000, f"1/{'1' * 5000}", "1e1000", "0." + "1" * 5000]


@pytest.mark.parametrize("text", [*ENDLESS, "", "x", "1/0", "1//2", "inf", "nan", "1_000", "0x10", "\u0663", "1 / 2"])
def test_other_texts_are_refused_at_once(text):
    begun = time.monotonic()
    with pytest.raises(ValueError):  # noqa: PT011  # what it says is the caller's
        read_fraction(text)
    assert time.monotonic() - begun < 1


@given(st.fractions(min_value=0, max_denominator=10**9).filter(lambda value: value < 10**10))
def test_fractions_are_exact(value):
    assert read_fraction(str(value)) == value
    assert read_fraction(f" {float(value)!r} ") == Fraction(repr(float(value)))


@pytest.mark.parametrize("text", ENDLESS)
def test_a_rate_option_is_refused_in_one_short_line(capsys, text):
    begun = time.monotonic()
    assert main(["reconstruct", "--video-path", "a.mp4", "--rec-path", "b.mp4", "--fps", text]) == 2
    err = capsys.readouterr().err
    assert time.monotonic() - begun < 5
    assert err.startswith("error: --fps: ")
    assert err.count("\n") == 1
    assert len(err) < 300


@pytest.mark.parametrize("text", ["1e999999999", "1" * 5000, '"1e999999999"', "inf", "nan"])
@pytest.mark.parametrize("option", ["fps", "num_frames", "memory_limit", "tile_overlap_factor"])
def test_a_number_in_toml_is_refused_in_one_short_line(tmp_path, capsys, option, text):
    (tmp_path / "run.toml").write_text(f"{option} = {text}\n")
    arguments = ["reconstruct", "--video-path", "a.mp4", "--rec-path", "b.mp4", "--config", str(tmp_path / "run.toml")]
    begun = time.monotonic()
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert time.monotonic() - begun < 5
    assert "this is a bug" not in err
    assert err.count("\n") == 1
    assert len(err) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--lr", "nan"), ("--lr", "inf"), ("--video-weight", "nan"), ("--max-steps", "9" * 30), ("--seed", "9" * 30)],
)
def test_a_number_that_no_run_can_use_is_refused(capsys, option, value):
    assert main(["train", "--video-path", "v", option, value]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {option}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", "[" * 100_000), ("a.toml", "a = " + "[" * 100_000), ("a.json", f'{{"num_frames": {"1" * 5000}}}')],
)
def test_a_configuration_that_is_nested_without_end_is_one_line(tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    assert main(["reconstruct", "--config", str(tmp_path / name)]) == 2
    assert main(["reconstruct", "--config", "/dev/zero.toml"]) == 2
    (tmp_path / "device.toml").symlink_to("/dev/zero")
    assert main(["reconstruct", "--config", str(tmp_path / "device.toml")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 3
    assert "this is a bug" not in err
    assert len(err) < 1500


def test_an_amount_of_memory_has_a_bound():
    for text in ("9" * 400, "1" + "0" * 5000 + "GiB"):
        with pytest.raises(ValueError, match="give an amount of memory") as error:
            parse_size(text)
        assert len(str(error.value)) < 250


@pytest.mark.parametrize("tick", ["1e999999999", "1e-99999999", "1" * 5000, "-1", "1/0"])
def test_a_tag_whose_number_never_ends_is_passed_over(tick):
    stored = [Fraction(n, 25) for n in range(10)]
    begun = time.monotonic()
    assert true_times(stored, f"{tick}: 1x9") == stored
    assert true_times(stored, f"1/25: {'9' * 4000}x1 1x8") == stored
    assert true_times(stored, f"1/25: 1x{'9' * 30}") == stored
    assert time.monotonic() - begun < 1


def test_a_file_with_that_tag_is_read_by_its_own_times(tmp_path):
    import vaectl

    encode(tmp_path / "plain.mkv", 10)
    clip = vaectl.read_video(tmp_path / "plain.mkv")
    from vaectl.video import write

    original = write.format_frame_times
    write.format_frame_times = lambda _times: "1e999999999: 1x9"
    try:
        write_video(tmp_path / "tagged.mkv", clip)
    finally:
        write.format_frame_times = original
    assert FRAME_TIMES_TAG.encode() in (tmp_path / "tagged.mkv").read_bytes()
    begun = time.monotonic()
    assert len(vaectl.read_video(tmp_path / "tagged.mkv")) == 10
    assert time.monotonic() - begun < 5
