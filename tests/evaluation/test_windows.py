"""`--all-windows`, `--frame-rate`, all frames and the size of the source: what is read, measured and written."""

from __future__ import annotations

import csv
import json
import re
from base64 import b64decode
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vaectl
from tests.evaluation.test_eval import Detector, compare, disturbed, pictures, run, store
from tests.jobs import Listener
from tests.video.media import encode, number_of
from vaectl import engine
from vaectl.cli.app import main
from vaectl.errors import VaectlError
from vaectl.evaluation.position import by_position
from vaectl.evaluation.prepare import prepare
from vaectl.evaluation.protocol import ClipProtocol, frame_size, read_clip, read_windows, select
from vaectl.evaluation.results import ClipScores, Evaluation
from vaectl.metrics.fvd import FVD
from vaectl.options import PrepareEvalOptions
from vaectl.video import VideoReader, read_video
from vaectl.video.transform import scale_and_crop

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = {"a": 11, "deep/b": 4, "c": 9}
"""Frames of each clip: 2 windows and 3 frames, 1 window, 2 windows and 1 frame."""


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    for seed, (name, length) in enumerate(LENGTHS.items()):
        frames = pictures(length, seed=seed)
        store(tmp_path / "real" / f"{name}.mkv", frames)
        store(tmp_path / "made" / f"{name}.mkv", disturbed(frames, seed))
    return tmp_path / "real", tmp_path / "made"


def cut_into_windows(folder: Path, target: Path, size: int = 4) -> Path:
    """Each window as a clip of its own."""
    for name, length in LENGTHS.items():
        frames = read_video(folder / f"{name}.mkv").frames
        for window in range(length // size):
            store(target / f"{name}-{window}.mkv", frames[window * size : (window + 1) * size])
    return target


def joined(evaluation: Evaluation, metric: str) -> dict[str, tuple[float, ...]]:
    """The numbers of windows that are clips of their own, by the clip that they were cut from."""
    values: dict[str, tuple[float, ...]] = dict.fromkeys(LENGTHS, ())
    for clip in evaluation.clips:
        name = clip.name.rpartition("-")[0]
        values[name] += clip.values[metric]
    return values


def values_of(evaluation: Evaluation, metric: str) -> dict[str, tuple[float, ...]]:
    return {clip.name: clip.values[metric] for clip in evaluation.clips}


def numbers_in(frames: Tensor) -> list[int]:
    return [number_of(frame) for frame in frames]


# What is read


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 numbered frames of 64x48 at 25 Hz."""
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", 20)


def windows_of(path: Path, protocol: ClipProtocol) -> list[list[int]]:
    with VideoReader(path) as reader:
        windows = list(read_windows(reader, protocol, select(reader, protocol)))
        assert all(tuple(w.frames.shape[2:]) == frame_size(reader.info, protocol)[::-1] for w in windows)
        times = [time for window in windows for time in window.timestamps]
        assert times == [Fraction(number, 25) for window in windows for number in numbers_in(window.frames)]
        return [numbers_in(window.frames) for window in windows]


@pytest.mark.parametrize(
    ("size", "step", "starts"), [(5, 1, [0, 5, 10, 15]), (7, 1, [0, 7]), (3, 3, [0, 9]), (20, 1, [0]), (1, 19, [0, 19])]
)
def test_windows_follow_each_other_and_an_incomplete_rest_is_left_out(numbered, size, step, starts):
    got = windows_of(numbered, ClipProtocol(size, step, "source", None, all_windows=True))
    assert got == [[start + step * place for place in range(size)] for start in starts]


def test_the_remedy_for_a_short_clip_names_the_rate_that_skips_frames(numbered):
    with VideoReader(numbered) as reader:
        with pytest.raises(VaectlError, match="or `sample_rate`, raise `frame_rate`, or leave"):
            select(reader, ClipProtocol(12, 1, 32, 32, frame_rate=Fraction(12)))
        with pytest.raises(VaectlError, match="or `sample_rate`, or leave"):
            select(reader, ClipProtocol(12, 2, 32, 32, frame_rate=Fraction(30)))


def test_a_clip_without_a_whole_window_is_too_short(numbered):
    with pytest.raises(VaectlError, match=r"clip\.mp4: too short: gives 20 of the 21 frames"):
        windows_of(numbered, ClipProtocol(21, 1, 48, None, all_windows=True))


@pytest.mark.parametrize(
    ("rate", "sample_rate", "step"),
    [(25, 1, 1), (30, 1, 1), (100, 1, 1), (12, 1, 2), ("25/3", 1, 3), (10, 1, 2), (7, 1, 4), (12, 2, 4), (5, 1, 5)],
)
def test_frames_are_chosen_at_about_a_rate_and_none_comes_twice(numbered, rate, sample_rate, step):
    protocol = ClipProtocol(3, sample_rate, 48, None, frame_rate=Fraction(rate))
    clip = read_clip(numbered, protocol)
    assert (numbers_in(clip.frames), clip.frame_rate) == ([0, step, 2 * step], Fraction(25, step))


def test_all_frames_at_the_size_of_the_source_are_the_file_as_it_is(numbered):
    clip, whole = read_clip(numbered, ClipProtocol("all", 1, "source", None)), read_video(numbered)
    assert torch.equal(clip.frames, whole.frames)
    assert clip.timestamps == whole.timestamps
    assert numbers_in(read_clip(numbered, ClipProtocol("all", 6, 48, None)).frames) == [0, 6, 12, 18]
    small = read_clip(numbered, ClipProtocol("all", 1, "source", 32)).frames
    assert torch.equal(small, scale_and_crop(whole.frames, None, 32))
    assert small.shape[2:] == (32, 32)


def test_a_crop_that_is_larger_than_a_source_is_named(numbered):
    with pytest.raises(VaectlError, match=r"clip\.mp4: its frames are 64x48, too small for a crop of 49 pixels"):
        read_clip(numbered, ClipProtocol(3, 1, "source", 49))


# What is measured


def test_each_window_has_the_numbers_that_it_has_as_a_clip_of_its_own(clips, tmp_path):
    torch.jit.script(Detector()).save(str(tmp_path / "detector.pt"))
    metrics = ("psnr", "ssim", "flicker", "fvd")
    chosen: dict[str, Any] = {"metric": metrics, "resolution": 40, "fvd_detector": tmp_path / "detector.pt"}
    found = run(*clips, all_windows=True, **chosen)
    alone = run(*(cut_into_windows(folder, tmp_path / f"cut-{folder.name}") for folder in clips), **chosen)
    for metric in ("psnr", "ssim", "flicker"):
        assert values_of(found, metric) == joined(alone, metric)
    assert found.set_values == pytest.approx(alone.set_values, rel=1e-9)
    shapes = [(clip.name, clip.num_frames, clip.windows, clip.frames_left_out) for clip in found.clips]
    assert shapes == [("a", 8, 2, 3), ("c", 8, 2, 1), ("deep/b", 4, 1, 0)]
    assert found.as_json()["clips"][0]["windows"] == 2
    assert found.as_json()["clips"][0]["frames_left_out"] == 3


def test_frames_left_out_are_stated_for_a_clip_of_one_window_too(clips):
    found = run(*clips, num_frames=7, all_windows=True, allow_missing=True)
    assert [(clip.name, clip.windows, clip.frames_left_out) for clip in found.clips] == [("a", 1, 4), ("c", 1, 2)]


def test_the_model_begins_anew_in_each_window(clips, tmp_path):
    chosen = {"num_frames": 5, "model": Path("builtin")}
    found = run(clips[0], all_windows=True, subset_size=2, **chosen)
    cut = tmp_path / "cut"
    for name in ("a", "c"):
        frames = read_video(clips[0] / f"{name}.mkv").frames
        for window in range(LENGTHS[name] // 5):
            store(cut / f"{name}-{window}.mkv", frames[5 * window : 5 * window + 5])
    alone = run(cut, **chosen)
    assert values_of(found, "psnr") == {
        name: values for name, values in joined(alone, "psnr").items() if name in ("a", "c")
    }
    position = by_position(found, "psnr")
    assert len(position.over_time) == 5


def test_two_steps_give_the_numbers_of_one_bit_by_bit_and_their_options_hold(clips, tmp_path):
    real, out = clips[0], tmp_path / "out"
    chosen: dict[str, Any] = {"num_frames": 4, "resolution": 32, "all_windows": True, "sample": True}
    listener = Listener()
    places: dict[str, Any] = {"real_video_dir": real, "generated_video_dir": out, "device": "cpu"}
    result = prepare(PrepareEvalOptions(output_origin=True, **places, **chosen), listener)
    assert [clip.frames for clip in result.manifest.clips] == [8, 8, 4]
    assert listener.ended[0][1] == "made, 8 frames, 32x32"
    one = run(real, model=Path("builtin"), metric=("psnr", "flicker"), **chosen)
    two = run(real, out, metric=("psnr", "flicker"), num_frames=None, resolution=None)
    origin = run(out / "origin", out, metric=("psnr", "flicker"), num_frames=None, resolution=None)
    assert [clip.windows for clip in two.clips] == [2, 2, 1]
    for metric in ("psnr", "flicker"):
        assert values_of(one, metric) == values_of(two, metric) == values_of(origin, metric)
    assert one.protocol["hash"] == two.protocol["hash"]
    first = read_video(out / "a.mkv").frames
    assert not torch.equal(first[:4], first[4:])

    for asked, said in [
        ({"all_windows": False}, "with `all_windows`; leave"),
        ({"frame_rate": Fraction(5)}, "without `frame_rate`; leave"),
        ({"num_frames": "all"}, "with `num_frames=4`, not all; leave"),
        ({"resolution": "source"}, "with `resolution=32`, not source; leave these options out"),
        ({"protocol": "full", "crop_size": 0}, "with `crop_size=32`, not 0; leave `protocol` and these options out"),
    ]:
        with pytest.raises(VaectlError, match=re.escape(f"out: its clips were prepared {said}")):
            run(real, out, **{"num_frames": None, "resolution": None, **asked})


def test_a_result_may_hold_the_windows_alone(clips, tmp_path):
    real, made = clips
    for name, length in LENGTHS.items():
        store(tmp_path / "short" / f"{name}.mkv", read_video(made / f"{name}.mkv").frames[: length // 4 * 4])
    whole, short = run(*clips, all_windows=True), run(real, tmp_path / "short", all_windows=True)
    assert values_of(whole, "psnr") == values_of(short, "psnr")


def test_a_result_with_other_windows_is_named(clips):
    real, made = clips
    store(made / "a.mkv", pictures(5))
    evaluation = run(real, made, all_windows=True)
    (reason,) = evaluation.failures
    assert reason == (
        f"{made / 'a.mkv'}: has 4 frames of 32x32, its original {real / 'a.mkv'} has 2 windows of 4 frames of 32x32;"
        " make it again from this original"
    )
    assert [clip.name for clip in evaluation.clips] == ["c", "deep/b"]


def test_a_result_of_a_lower_rate_is_compared_whole(clips, tmp_path):
    real, made = clips
    for name in LENGTHS:
        store(tmp_path / "sampled" / f"{name}.mkv", read_video(made / f"{name}.mkv").frames[::2])
    chosen: dict[str, Any] = {"num_frames": 2, "all_windows": True, "frame_rate": Fraction(12)}
    found = run(real, tmp_path / "sampled", **chosen)
    assert values_of(found, "psnr") == values_of(run(real, made, **chosen), "psnr")
    assert [clip.num_frames for clip in found.clips] == [6, 4, 2]


def test_a_window_that_fails_leaves_nothing_of_its_clip_behind(clips, tmp_path, monkeypatch):
    def fails_at_the_second_window_of_c(model, frames, source, *arguments):
        seen.append(source.stem)
        if seen.count("c") == 2 and source.stem == "c":
            raise VaectlError(f"{source}: no luck", "try again")
        return original(model, frames, source, *arguments)

    seen: list[str] = []
    torch.jit.script(Detector()).save(str(tmp_path / "detector.pt"))
    chosen: dict[str, Any] = {"metric": ("psnr", "fvd"), "fvd_detector": tmp_path / "detector.pt"}
    chosen |= {"all_windows": True, "model": Path("builtin"), "batch_size": 3}
    original = engine.reconstruct_frames
    monkeypatch.setattr(engine, "reconstruct_frames", fails_at_the_second_window_of_c)
    listener = Listener()
    found = run(clips[0], listener=listener, **chosen)
    assert found.failures == (f"{clips[0] / 'c.mkv'}: no luck; try again",)
    assert [name for name, _, failed in listener.ended if failed] == ["c"]
    monkeypatch.undo()
    (clips[0] / "c.mkv").unlink()
    without = run(clips[0], **chosen)
    assert found.clips == without.clips
    assert found.set_values == pytest.approx(without.set_values, rel=1e-9)


def test_a_clip_that_a_metric_of_sets_does_not_take_is_left_out_and_named(clips, tmp_path, monkeypatch):
    def refuse_c(metric, real, generated):
        if real.shape[1] == 9:
            raise VaectlError("fvd: no luck", "leave it out")
        add(metric, real, generated)

    torch.jit.script(Detector()).save(str(tmp_path / "detector.pt"))
    add = FVD.add
    monkeypatch.setattr(FVD, "add", refuse_c)
    chosen: dict[str, Any] = {"metric": ("psnr", "fvd"), "fvd_detector": tmp_path / "detector.pt"}
    found = run(*clips, num_frames="all", batch_size=3, **chosen)
    assert [clip.name for clip in found.clips] == ["a", "deep/b"]
    assert found.failures == (f"{clips[0] / 'c.mkv'}: fvd: no luck; leave it out",)
    assert found.set_values["fvd"] > 0


def test_the_report_shows_the_window_with_the_worst_frame(clips, tmp_path):
    made = clips[1]
    frames = read_video(made / "a.mkv").frames
    frames[6] = disturbed(disturbed(frames[6:7], 5), 6)[0]
    store(made / "a.mkv", frames)
    run(*clips, all_windows=True, metric=("psnr", "flicker"), report=tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    data = json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    places = {clip["name"]: number for number, clip in enumerate(data["clips"])}
    media = data["media"][str(places["a"])]
    assert (media["first"], media["num_frames"], media["frame"]) == (4, 4, 6)
    whole = data["media"][str(places["deep/b"])]
    assert (whole["first"], whole["num_frames"]) == (0, 4)
    psnr, flicker = (np.frombuffer(b64decode(values), "<f4") for values in data["clips"][places["a"]]["values"][0])
    assert int(psnr.argmin()) == 6
    assert np.flatnonzero(np.isnan(flicker)).tolist() == [0, 4]


def test_the_file_of_numbers_counts_frames_through_the_clip(clips, tmp_path):
    run(*clips, all_windows=True, metric=("psnr", "flicker"), csv=tmp_path / "n.csv")
    rows = [row for row in csv.DictReader((tmp_path / "n.csv").open()) if row["clip"] == "a"]
    assert [int(row["frame"]) for row in rows] == list(range(8))
    assert [number for number, row in enumerate(rows) if not row["flicker"]] == [0, 4]
    assert all(row["psnr"] for row in rows)


def test_values_belong_to_the_frames_of_their_windows():
    clip = ClipScores("a", Path("a"), None, 6, 8, 8, {"psnr": (1, 2, 3, 4, 5, 6), "flicker": (7, 8, 9, 10)}, 2)
    assert clip.in_windows("psnr") == [(1, 2, 3), (4, 5, 6)]
    assert clip.in_windows("flicker") == [(None, 7, 8), (None, 9, 10)]


# Protocols, from the command line


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["eval", "--device=cpu", "--metric=psnr", "--json", *arguments]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_whole_of_clips_of_any_size_and_length(clips, tmp_path, capsys):
    real, made = clips
    odd = pictures(7, 50, 34)
    store(real / "odd.mkv", odd)
    store(made / "odd.mkv", disturbed(odd))
    result = evaluate(
        capsys, f"--real-video-dir={real}", f"--generated-video-dir={made}", "--protocol=full", "--crop-size=0"
    )
    shapes = {clip["name"]: (clip["frames"], clip["width"], clip["height"]) for clip in result["clips"]}
    assert shapes == {"a": (11, 64, 48), "deep/b": (4, 64, 48), "c": (9, 64, 48), "odd": (7, 50, 34)}
    assert result["protocol"]["clips"]["resize"] == "size of the source"


def test_a_protocol_by_name_gives_the_numbers_of_its_options_and_is_named(tmp_path, capsys):
    frames = pictures(36)
    paths = [f"--real-video-dir={store(tmp_path / 'real.mkv', frames)}"]
    paths += [f"--generated-video-dir={store(tmp_path / 'made.mkv', disturbed(frames))}"]
    (tmp_path / "own.toml").write_text('num_frames = 33\nresolution = 256\nrgb_conversion = "swscale"\n')
    plain = evaluate(capsys, *paths, "--rgb-conversion=swscale")
    named = evaluate(capsys, *paths, "--protocol=wfvae")
    own = evaluate(capsys, *paths, f"--protocol={tmp_path / 'own.toml'}")
    assert plain["clips"] == named["clips"] == own["clips"]
    assert [each["protocol"]["hash"] for each in (plain, named, own)] == [plain["protocol"]["hash"]] * 3
    assert (plain["protocol"]["name"], named["protocol"]["name"]) == (None, "wfvae")
    assert named["protocol"]["changed"] == []
    changed = evaluate(capsys, *paths, "--protocol=wfvae", "--num-frames=9", "--resolution=48", "--crop-size=32")
    assert changed["protocol"]["changed"] == ["num_frames", "resolution", "crop_size"]
    assert changed["protocol"]["hash"] != plain["protocol"]["hash"]
    assert main(["eval", *paths, "--device=cpu", "--metric=psnr", "--protocol=vidtok", "--resolution=48"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^protocol: vidtok, changed by --resolution \([0-9a-f]{8}\)$", out, re.MULTILINE)
    words = "every window of 17, at about 30 frames/s (slower clips at their own rate)"
    assert f"frames: {words}; RGB by swscale; shorter side to 48" in out


def test_several_candidates_are_measured_in_the_same_windows(clips, tmp_path):
    real, made = clips
    far = tmp_path / "far"
    for name in LENGTHS:
        store(far / f"{name}.mkv", disturbed(read_video(made / f"{name}.mkv").frames, 7))
    comparison = compare(real, [made, far], all_windows=True)
    for each, folder in zip(comparison.evaluations, [made, far], strict=True):
        assert each.clips == run(real, folder, all_windows=True).clips


def test_python_takes_a_protocol_and_parameters_override_it(clips, tmp_path):
    (tmp_path / "own.toml").write_text('num_frames = 4\nall_windows = true\nresolution = 32\nmetric = "psnr,flicker"\n')
    real, made = (str(folder / "a.mkv") for folder in clips)
    found = vaectl.evaluate(real, made, protocol=tmp_path / "own.toml", device="cpu")
    assert (list(found.clips[0].values), found.clips[0].windows) == (["psnr", "flicker"], 2)
    changed = vaectl.evaluate(real, made, protocol=tmp_path / "own.toml", metrics="psnr", num_frames=5, device="cpu")
    assert (list(changed.clips[0].values), changed.clips[0].num_frames) == (["psnr"], 10)
    assert changed.protocol["changed"] == ["num_frames"]
    whole = vaectl.evaluate(real, made, metrics="psnr", num_frames="all", resolution="source", device="cpu")
    assert (whole.clips[0].num_frames, whole.clips[0].width) == (11, 64)
    frames = read_video(real).frames
    with pytest.raises(VaectlError, match="`protocol` is for files: clips in memory are compared as they are"):
        vaectl.evaluate(frames, frames, protocol="vidtok")
