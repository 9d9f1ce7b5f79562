"""The job of `vaectl eval` on small clips: what is compared, what is refused, and that both ways give the same."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.jobs import Listener, files
from tests.models.narrow import CONFIGS, save_narrow
from tests.video.media import cut, numbered_picture
from vaectl import engine
from vaectl.cli.app import main
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation import checks, outputs, pipeline
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.cost import model_cost
from vaectl.evaluation.evaluate import evaluate
from vaectl.evaluation.outputs import Interrupted
from vaectl.evaluation.prepare import prepare
from vaectl.evaluation.results import Evaluation
from vaectl.metrics.psnr import mean_psnr, mean_squared_errors
from vaectl.models import load_model
from vaectl.options import EvalOptions, PrepareEvalOptions
from vaectl.options.candidates import NamedPath
from vaectl.video import Clip, read_video, write_video
from vaectl.video.transform import scale_and_crop

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(count: int, width: int = 64, height: int = 48, seed: int = 0) -> Tensor:
    """(count, 3, height, width) uint8."""
    frames = np.stack([numbered_picture(number, width, height, seed) for number in range(count)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def disturbed(frames: Tensor, seed: int = 0) -> Tensor:
    noise = torch.randint(-9, 10, frames.shape, generator=torch.Generator().manual_seed(seed))
    return (frames + noise).clamp(0, 255).byte()


def store(path: Path, frames: Tensor) -> Path:
    """A lossless clip."""
    times = tuple(Fraction(number, 25) for number in range(len(frames)))
    write_video(path, Clip(frames, times, Fraction(25)), lossless=True, overwrite=True)
    return path


def run(real: Path, generated: Path | None = None, listener: Listener | None = None, **options: Any) -> Evaluation:
    (evaluation,) = compare(real, [generated] if generated else [], listener, **options).evaluations
    return evaluation


def compare(real: Path, generated: Sequence[Path], listener: Listener | None = None, **options: Any) -> Comparison:
    """Several candidates; `model` is a path, or several with their names."""
    chosen: dict[str, Any] = {"metric": ("psnr",), "num_frames": 4, "resolution": 32, "device": "cpu"}
    models = options.pop("model", ())
    models = models if isinstance(models, tuple) else (NamedPath("", models),)
    paths = {
        "real_video_dir": real,
        "generated_video_dir": tuple(NamedPath("", path) for path in generated),
        "model": models,
    }
    return evaluate(EvalOptions(**{**chosen, **paths, **options}), listener or Listener())


def psnr(a: Tensor, b: Tensor) -> list[float]:
    return [mean_psnr([error]) for error in mean_squared_errors(a, b)]


@pytest.fixture
def clips(tmp_path) -> tuple[Path, Path]:
    """Three originals, and what became of them in their own size."""
    for seed, name in enumerate(("a", "b", "deep/c")):
        frames = pictures(6, seed=seed)
        store(tmp_path / "real" / f"{name}.mkv", frames)
        store(tmp_path / "made" / f"{name}.mkv", disturbed(frames, seed))
    return tmp_path / "real", tmp_path / "made"


# What is compared


def test_clips_of_their_original_s_size_are_brought_to_the_protocol_as_it_is(clips):
    evaluation = run(*clips, sample_rate=2, num_frames=3)
    assert [clip.name for clip in evaluation.clips] == ["a", "b", "deep/c"]
    for clip in evaluation.clips:
        real, made = (scale_and_crop(read_video(file).frames[::2], 32, 32) for file in (clip.real, clip.generated))
        assert clip.values["psnr"] == pytest.approx(psnr(real, made), abs=1e-9)
        assert (clip.num_frames, clip.width, clip.height) == (3, 32, 32)


def test_clips_of_the_size_of_the_protocol_are_taken_as_they_are(tmp_path):
    frames = pictures(9)
    real, made = scale_and_crop(frames[::2], 40, 32), disturbed(scale_and_crop(frames[::2], 40, 32))
    store(tmp_path / "real" / "a.mkv", frames)
    store(tmp_path / "made" / "a.mkv", made)
    (clip,) = run(tmp_path / "real", tmp_path / "made", num_frames=5, sample_rate=2, resolution=40, crop_size=32).clips
    assert clip.values["psnr"] == pytest.approx(psnr(real, made), abs=1e-9)


def test_the_whole_frame_is_compared_without_a_crop(clips):
    assert {(clip.width, clip.height) for clip in run(*clips, crop_size=0).clips} == {(43, 32)}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (pictures(6, 60, 40), r"its frames are 60x40; they have to be 32x32, or 64x48 as the original is$"),
        (pictures(3), r"too short: gives 3 of the 4 frames"),
    ],
)
def test_a_clip_that_does_not_fit_its_original_is_named(clips, made, said):
    real, results = clips
    store(results / "b.mkv", made)
    evaluation = run(real, results)
    (reason,) = evaluation.failures
    assert re.search(rf"{re.escape(str(results / 'b.mkv'))}: {said}", reason)
    assert [clip.name for clip in evaluation.clips] == ["a", "deep/c"]
    allowed = run(real, results, allow_missing=True)
    assert (allowed.left_out, allowed.failures) == ({"b": reason}, ())


def test_a_size_that_is_that_of_the_original_too_is_said_once(clips):
    real, results = clips
    store(results / "b.mkv", pictures(6, 60, 40))
    (reason,) = run(real, results, resolution="source", crop_size=0).failures
    assert reason.endswith("its frames are 60x40; they have to be 64x48")


def test_a_corrupt_clip_is_named_and_the_others_are_measured(clips):
    real, results = clips
    (results / "b.mkv").unlink()
    cut(results / "a.mkv", 0.3).rename(results / "b.mkv")
    evaluation = run(real, results)
    assert [clip.name for clip in evaluation.clips] == ["a", "deep/c"]
    assert str(results / "b.mkv") in evaluation.left_out["b"]
    assert evaluation.failures == (evaluation.left_out["b"],)


def test_a_link_that_leads_nowhere_is_a_clip_that_fails(clips, tmp_path):
    real, results = clips
    (real / "b.mkv").unlink()
    (real / "b.mkv").symlink_to("nowhere")
    evaluation = run(real, results, csv=tmp_path / "numbers.csv")
    assert [clip.name for clip in evaluation.clips] == ["a", "deep/c"]
    assert str(real / "b.mkv") in evaluation.left_out["b"]


def test_where_nothing_can_be_compared_there_is_no_result(clips):
    real, results = clips
    with pytest.raises(VaectlError, match=r"a\.mkv: too short: gives 6 of the 7 .*; also affected: b, deep/c$"):
        run(real, results, num_frames=7)


def test_each_kind_of_failure_is_named(clips):
    real, results = clips
    for name in ("a", "deep/c", *"defghijklmno"):
        store(real / f"{name}.mkv", pictures(6))
        store(results / f"{name}.mkv", pictures(2 + len(name) % 2))
    good = (results / "b.mkv").read_bytes()
    store(results / "b.mkv", pictures(6, 60, 40))
    listener = Listener()
    with pytest.raises(
        VaectlError, match=r"a\.mkv: too short: gives 3 of the 4 .*; also affected: d, deep/c, e and 10"
    ):
        run(real, results, listener)
    (warning,) = listener.warnings
    assert warning.startswith(f"{results}/b.mkv: its frames are 60x40")
    (results / "n.mkv").write_bytes(good)
    failures = run(real, results).failures
    assert len(failures) == 14
    assert ["too short" in failures[0], "60x40" in failures[1]] == [True, True]


def test_a_clip_that_is_its_own_original_is_warned_about(clips, tmp_path):
    real, results = clips
    (results / "b.mkv").unlink()
    (results / "b.mkv").symlink_to(real / "b.mkv")
    listener = Listener()
    run(real, results, listener)
    (tmp_path / "link").symlink_to(real)
    run(real, tmp_path / "link", listener)
    assert [warning.partition(": ")[2] for warning in listener.warnings] == [
        f"is the same file as its original; this holds for {count} of 3 pairs, and their numbers say nothing"
        for count in (1, 3)
    ]


def test_reasons_are_of_one_kind_whatever_the_names_and_numbers():
    reasons = {
        "a b": "in/a b.mp4: too short: gives 3 of the 4 frames",
        "c": "c.mp4: its frames are 60x40",
        "d": "in/d.mp4: too short: gives 2 of the 4 frames",
    }
    assert [list(kind) for kind in checks.by_kind(reasons)] == [["a b", "d"], ["c"]]
    assert checks.kinds_first(reasons) == [reasons["a b"], reasons["c"], reasons["d"]]
    listener = Listener()
    many = {str(number): f"{number}: {'x' * number} is broken" for number in range(1, 14)}
    assert checks.first_reason(many, listener) == "1: x is broken"
    assert (len(listener.warnings), listener.warnings[-1]) == (11, "2 more reasons like these")


def test_missing_partners_are_refused_before_anything_is_read(clips):
    real, results = clips
    (results / "b.mkv").unlink()
    with pytest.raises(UsageError, match=r"real/b\.mkv: has no partner in .*made; pass `allow_missing`"):
        run(real, results)
    evaluation = run(real, results, allow_missing=True)
    assert [clip.name for clip in evaluation.clips] == ["a", "deep/c"]
    assert list(evaluation.left_out) == ["b"]
    assert evaluation.failures == ()


def test_frames_too_small_for_a_metric_are_refused_in_one_line(clips):
    for folder in clips:
        store(folder / "a.mkv", pictures(6, 8, 8))
    found = run(*clips, metric=("psnr", "ssim"), resolution="source", crop_size=0)
    assert found.failures == (
        f"{clips[0] / 'a.mkv'}: ssim needs frames of at least 11x11 pixels, not 8x8; give larger ones",
    )


@pytest.mark.parametrize(
    ("metric", "size", "said"),
    [
        ("ssim", {"crop_size": 8}, "ssim needs frames of at least 11x11 pixels, not 8x8"),
        (
            "ms_ssim",
            {"resolution": 160, "crop_size": 0},
            "ms_ssim needs frames of at least 161x161 pixels, not 160x160",
        ),
        ("xpsnr", {}, "xpsnr needs frames of at least 2025 pixels .45x45., not 32x32"),
        ("lpips", {"resolution": 16}, "lpips needs frames of at least "),
    ],
)
def test_frames_that_the_protocol_makes_too_small_are_refused_before_anything_is_decoded(
    clips, monkeypatch, metric, size, said
):
    monkeypatch.setattr(pipeline, "read_group", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UsageError, match=f"^{said}"):
        run(*clips, metric=(metric,), **size)


# Both ways


MODEL = {"num_frames": 5, "resolution": 32, "device": "cpu"}


@pytest.mark.parametrize("options", [{}, {"sample": True, "seed": 3}, {"enable_tiling": True}], ids=str)
def test_one_step_gives_the_numbers_of_two_steps_bit_by_bit(clips, tmp_path, options):
    real, _ = clips
    prepare(
        PrepareEvalOptions(
            real_video_dir=real, generated_video_dir=tmp_path / "out", output_origin=True, **MODEL, **options
        ),
        Listener(),
    )
    two = run(real, tmp_path / "out", num_frames=None, resolution=None, metric=("psnr", "ssim"))
    one = run(real, model=Path("builtin"), metric=("psnr", "ssim"), **{**MODEL, **options})
    of_origin = run(tmp_path / "out" / "origin", tmp_path / "out", metric=("psnr", "ssim"), num_frames=5)
    assert len(one.clips) == 3
    assert {clip.name: clip.values for clip in one.clips} == {clip.name: clip.values for clip in two.clips}
    assert {clip.name: clip.values for clip in of_origin.clips} == {clip.name: clip.values for clip in two.clips}
    assert one.protocol["model"]["posterior"] == two.protocol["model"]["posterior"]
    assert (one.temporal_compression, two.temporal_compression) == (4, 4)
    assert one.as_json()["positions"] == two.as_json()["positions"]
    assert one.cost == two.cost
    assert one.cost.bits_per_pixel == 16 * 2 * (4 * 4) * 32 / (5 * 32 * 32)


@pytest.mark.parametrize(("models", "cost", "measured"), [(1, None, 0), (1, True, 1), (2, None, 2), (2, False, 0)])
def test_speed_and_memory_are_measured_if_asked_for_or_of_several_models(clips, monkeypatch, models, cost, measured):
    calls = []

    def measure_cost(model, *size):
        calls.append((model.config.class_name, *size[:3]))
        return model_cost(model, size[:3])

    monkeypatch.setattr("vaectl.evaluation.cost.measure_cost", measure_cost)
    names = tuple(NamedPath(name, Path("builtin")) for name in "ab"[:models])
    found = compare(clips[0], [clips[1]], model=names, cost=cost, subset_size=1)
    costs = sorted(found.evaluations, key=lambda evaluation: evaluation.cost is None)
    assert calls == [("WFVAEModel", 4, 32, 32)] * measured
    assert [each.cost is None for each in costs] == [False] * models + [True]
    assert costs[0].as_json()["cost"] == json.loads(json.dumps(asdict(costs[0].cost)))
    assert costs[-1].as_json()["cost"] is None


def test_the_cost_is_that_of_a_window(clips):
    (evaluation,) = compare(
        clips[0], [], model=(NamedPath("", Path("builtin")),), num_frames=3, all_windows=True
    ).evaluations
    assert evaluation.clips[0].windows == 2
    assert evaluation.cost == model_cost(load_model(), (3, 32, 32))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_of_diffusers_gives_the_same_file_of_numbers_in_one_step_and_in_two(clips, tmp_path, name):
    save_narrow(name, tmp_path / "model")
    real, model, made = f"--real-video-dir={clips[0]}", f"--ckpt={tmp_path / 'model'}", tmp_path / "out"
    protocol = ["--num-frames=6", "--resolution=40", "--crop-size=0", "--device=cpu"]
    metrics = ["--metric=psnr,ssim,lpips,flicker"]
    assert main(["eval", real, model, *protocol, *metrics, f"--csv={tmp_path / 'one.csv'}"]) == 0
    assert main(["prepare-eval", real, model, *protocol, f"--generated-video-dir={made}"]) == 0
    assert main(["eval", real, f"--generated-video-dir={made}", *metrics, f"--csv={tmp_path / 'two.csv'}"]) == 0
    one, two = ((tmp_path / f"{way}.csv").read_text() for way in ("one", "two"))
    assert one == two
    assert len(one.splitlines()) == 1 + 3 * 6


def test_a_lack_of_memory_is_told_for_every_clip(clips, monkeypatch):
    """The first attempt at the second clip is the second call."""
    calls = []

    def reconstruct_windows(*given, **how):
        calls.append(given)
        if len(calls) == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        yield from original(*given, **how)

    original = engine.reconstruct_windows
    monkeypatch.setattr(engine, "reconstruct_windows", reconstruct_windows)
    listener = Listener()
    result = run(clips[0], None, listener, model=Path("builtin"), enable_tiling=True)
    assert [warning.rpartition(";")[2][:16] for warning in listener.warnings] == [" retrying within"]
    assert len(calls) == len(result.clips) + 1


def test_options_that_contradict_the_manifest_are_an_error_unless_clips_are_measured_as_prepared(clips, tmp_path):
    real, _ = clips
    prepare(PrepareEvalOptions(real_video_dir=real, generated_video_dir=tmp_path / "out", **MODEL), Listener())
    listener, asked = Listener(), {"num_frames": 4, "resolution": 32, "crop_size": 0}
    made = "its clips were prepared with `num_frames=5`, not 4, and with `crop_size=32`, not 0"
    with pytest.raises(UsageError, match=f"out: {made}; leave these options out, pass `as_prepared`"):
        run(real, tmp_path / "out", listener, **asked)
    evaluation = run(real, tmp_path / "out", listener, **asked, as_prepared=True)
    assert listener.notes == [f"{tmp_path}/out: {made}: they are measured as prepared"]
    assert {(clip.num_frames, clip.width, clip.height) for clip in evaluation.clips} == {(5, 32, 32)}
    assert evaluation.protocol["clips"]["num_frames"] == 5


def test_a_prepared_folder_needs_no_options_and_no_originals_of_the_same_name(clips, tmp_path):
    real, _ = clips
    prepare(PrepareEvalOptions(real_video_dir=real, generated_video_dir=tmp_path / "out", **MODEL), Listener())
    listener = Listener()
    evaluation = run(real.rename(tmp_path / "moved"), tmp_path / "out", listener, num_frames=None, resolution=None)
    assert (len(evaluation.clips), listener.warnings) == (3, [])


def test_lossy_results_are_told(clips, tmp_path):
    real, _ = clips
    chosen = PrepareEvalOptions(real_video_dir=real, generated_video_dir=tmp_path / "out", format="mp4", **MODEL)
    prepare(chosen, Listener())
    listener = Listener()
    run(real, tmp_path / "out", listener, num_frames=None, resolution=None)
    assert ["`format=mp4`" in warning for warning in listener.warnings] == [True]


# How it is measured


def test_every_clip_is_decoded_once_for_all_metrics(clips, monkeypatch):
    read = []

    def counted(pair, reading):
        read.append(pair.name)
        return read_group(pair, reading)

    read_group = pipeline.read_group
    monkeypatch.setattr(pipeline, "read_group", counted)
    evaluation = run(*clips, metric=("psnr", "ssim", "flicker"))
    assert sorted(read) == ["a", "b", "deep/c"]
    assert all(list(clip.values) == ["psnr", "ssim", "flicker"] for clip in evaluation.clips)
    assert {len(clip.values["flicker"]) for clip in evaluation.clips} == {3}


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (2, 1), (8, 5)])
def test_how_many_at_once_changes_no_number(clips, batch_size, num_workers):
    expected = run(*clips, metric=("psnr", "ssim"))
    found = run(*clips, metric=("psnr", "ssim"), batch_size=batch_size, num_workers=num_workers)
    assert [clip.name for clip in found.clips] == [clip.name for clip in expected.clips]
    for clip, other in zip(found.clips, expected.clips, strict=True):
        assert clip.values["psnr"] == other.values["psnr"]
        assert clip.values["ssim"] == pytest.approx(other.values["ssim"], abs=1e-6)


def test_clips_of_several_sizes_can_be_measured_in_batches(tmp_path):
    for name, width in (("a", 64), ("b", 64), ("c", 96), ("d", 64)):
        frames = pictures(4, width)
        store(tmp_path / "real" / f"{name}.mkv", frames)
        store(tmp_path / "made" / f"{name}.mkv", disturbed(frames))
    evaluation = run(tmp_path / "real", tmp_path / "made", crop_size=0, batch_size=3)
    assert [(clip.name, clip.width) for clip in evaluation.clips] == [("a", 43), ("b", 43), ("c", 64), ("d", 43)]


def test_no_more_clips_are_held_than_are_decoded_at_once(tmp_path, monkeypatch):
    frames = pictures(4)
    for number in range(24):
        store(tmp_path / "real" / f"{number:02}.mkv", frames)
    made = store(tmp_path / "made.mkv", disturbed(frames))
    for number in range(24):
        (tmp_path / "made").mkdir(exist_ok=True)
        (tmp_path / "made" / f"{number:02}.mkv").symlink_to(made)
    lock, begun, most = threading.Lock(), [0], [0]
    read_group, compare = pipeline.read_group, pipeline.compare

    def reading(pair, how):
        with lock:
            begun[0] += 1
            most[0] = max(most[0], begun[0])
        return read_group(pair, how)

    def comparing(*arguments):
        with lock:
            begun[0] -= 1
        return compare(*arguments)

    monkeypatch.setattr(pipeline, "read_group", reading)
    monkeypatch.setattr(pipeline, "compare", comparing)
    assert len(run(tmp_path / "real", tmp_path / "made", num_workers=2).clips) == 24
    assert most[0] <= 5


def test_each_clip_is_shown_when_it_is_measured_or_fails(clips):
    (clips[1] / "b.mkv").write_text("no video")
    listener = Listener()
    evaluation = run(*clips, listener, metric=("psnr", "ssim"))
    psnr, ssim = (evaluation.clips[0].mean(metric) for metric in ("psnr", "ssim"))
    assert listener.run == (3, 0, "")
    assert sorted(name for name, _, _ in listener.ended) == ["a", "b", "deep/c"]
    assert ("a", f"psnr {psnr:.2f}, ssim {ssim:.4f}", False) in listener.ended
    assert [ended for ended in listener.ended if ended[2]] == [("b", evaluation.left_out["b"], True)]


def test_the_model_shows_the_frames_of_each_clip(clips):
    listener = Listener()
    run(clips[0], None, listener, model=Path("builtin"))
    assert [done for _, total, done in listener.clips if total == done] == [4, 4, 4]


# What is told


def test_the_interval_of_few_clips_is_that_of_student(clips):
    evaluation = run(*clips)
    means = [clip.mean("psnr") for clip in evaluation.clips]
    low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    summary = evaluation.summary("psnr")
    assert (summary.mean, summary.low, summary.high) == pytest.approx((np.mean(means), low, high))
    assert summary.worst == min(evaluation.clips, key=lambda clip: clip.mean("psnr")).name


def test_one_clip_has_no_interval_and_exact_clips_are_infinite(clips):
    real, _ = clips
    one = run(real / "a.mkv", clips[1] / "a.mkv").summary("psnr")
    assert (one.low, one.high) == (None, None)
    exact = run(real, real)
    assert exact.summary("psnr").mean == math.inf
    assert (exact.summary("psnr").low, exact.summary("psnr").high) == (None, None)
    plain = exact.as_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["summary"]["psnr"]["mean"] == "inf"
    assert plain["clips"][0]["values"]["psnr"] == ["inf"] * 4


def test_the_csv_holds_every_number(clips, tmp_path):
    evaluation = run(*clips, metric=("psnr", "flicker"), csv=tmp_path / "deep" / "numbers.csv")
    with (tmp_path / "deep" / "numbers.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["clip", "frame", "psnr", "flicker"]
    assert [row[:2] for row in rows] == [[name, str(f)] for name in ("a", "b", "deep/c") for f in range(4)]
    values = evaluation.clips[1].values
    assert [float(row[2]) for row in rows[4:8]] == list(values["psnr"])
    assert [row[3] for row in rows[4:8]] == ["", *map(str, values["flicker"])]


def test_the_report_is_written(clips, tmp_path):
    run(*clips, report=tmp_path / "report.html")
    assert "deep/c" in (tmp_path / "report.html").read_text()


def test_the_protocol_says_all_that_has_to_be_known(clips, tmp_path):
    detector = tmp_path / "detector.pt"
    torch.jit.script(Detector()).save(str(detector))
    evaluation = run(*clips, metric=("lpips", "fvd"), resolution=64, sample_rate=1, fvd_detector=detector)
    protocol = evaluation.protocol
    assert protocol["clips"]["num_frames"] == 4
    assert "64" in protocol["clips"]["resize"]
    assert protocol["clips"]["crop"] == "64x64 from the middle"
    assert protocol["metrics"]["lpips"]["net"] == "alex"
    assert "SHA-256" in protocol["metrics"]["fvd"]["detector"]
    assert protocol["versions"]["torch"] == torch.__version__
    assert math.isfinite(evaluation.set_values["fvd"])
    assert json.loads(json.dumps(protocol)) == protocol


class Detector(torch.nn.Module):
    """Takes what the published detector takes: (B, 3, T, 224, 224)."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        return x.mean(dim=(2, 3, 4))


def test_fvd_of_one_clip_is_refused_before_anything_is_read(clips, tmp_path):
    torch.jit.script(Detector()).save(str(tmp_path / "detector.pt"))
    chosen = {"metric": ("fvd",), "fvd_detector": tmp_path / "detector.pt"}
    with pytest.raises(UsageError, match="fvd needs at least 2 clips, not 1; give more"):
        run(*clips, subset_size=1, **chosen)


def test_fvd_of_clips_that_are_too_short_is_refused_before_anything_is_fetched_or_read(clips, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("vaectl.io.pip.download", pytest.fail)
    monkeypatch.setattr(pipeline, "read_group", pytest.fail)
    with pytest.raises(UsageError, match="fvd needs clips of at least 9 frames, not 4; raise `num_frames`"):
        run(*clips, metric=("psnr", "fvd"))


def test_fvd_of_one_clip_that_is_left_is_a_failure_that_keeps_the_other_numbers(clips, tmp_path):
    real, results = clips
    torch.jit.script(Detector()).save(str(tmp_path / "detector.pt"))
    for name in ("a", "b"):
        store(results / f"{name}.mkv", pictures(2))
    chosen = {"metric": ("psnr", "fvd"), "fvd_detector": tmp_path / "detector.pt"}
    evaluation = run(real, results, allow_missing=True, **chosen)
    assert ([clip.name for clip in evaluation.clips], evaluation.set_values) == (["deep/c"], {})
    assert evaluation.failures == ("fvd needs at least 2 clips, not 1; leave it out",)


# What is never lost


@pytest.mark.parametrize("option", ["csv", "report"])
def test_files_are_replaced_only_where_that_is_asked_for(clips, tmp_path, option):
    target = tmp_path / "there"
    target.write_text("precious")
    with pytest.raises(UsageError, match="exists already; pass `overwrite`"):
        run(*clips, **{option: target})
    assert target.read_text() == "precious"
    run(*clips, **{option: target}, overwrite=True)
    assert target.read_text() != "precious"


@pytest.mark.parametrize("option", ["csv", "report"])
def test_nothing_that_is_read_is_replaced(clips, option):
    real, results = clips
    before = files(real)
    with pytest.raises(UsageError, match="is an input of this run"):
        run(real, results, **{option: real / "a.mkv"}, overwrite=True)
    assert files(real) == before


def test_a_place_where_nothing_can_be_written_is_refused_before_anything_is_read(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "read_group", lambda *_: pytest.fail("was read"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write there"):
        run(*clips, csv=tmp_path / "file" / "numbers.csv")
    with pytest.raises(UsageError, match="`csv` and `report` name the same file"):
        run(*clips, csv=tmp_path / "out", report=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("report", "x.pdf", r"x\.pdf: `report` writes a web page, not \.pdf; name it x\.html"),
        ("csv", "x.html", r"x\.html: `csv` writes a CSV file, not \.html; name it x\.csv"),
        ("latex", "x.md", r"x\.md: `latex` writes a table in LaTeX, not \.md; name it x\.tex"),
        ("markdown", "x.tex", r"x\.tex: `markdown` writes a table in Markdown, not \.tex; name it x\.md"),
        ("report", "made", "made: is a folder; name a file"),
        ("csv", "made", "made: is a folder; name a file"),
        ("report", "file/x.html", "cannot write there"),
        ("report", "same", "`csv` and `report` name the same file"),
    ],
)
def test_an_output_that_is_no_place_for_it_is_refused_before_anything_is_read(
    clips, tmp_path, monkeypatch, option, name, said
):
    monkeypatch.setattr(pipeline, "read_group", lambda *_: pytest.fail("was read"))
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    both = {"csv": tmp_path / "same"} if name == "same" else {}
    with pytest.raises(UsageError, match=said):
        run(*clips, **{option: Path(name)}, **both)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["file", "made", "real"]


@pytest.mark.parametrize("option", ["csv", "report"])
def test_a_failed_start_leaves_nothing(clips, tmp_path, option):
    before = files(tmp_path)
    with pytest.raises(VaectlError, match="none"):
        run(clips[0], model=tmp_path / "none", **{option: tmp_path / "new" / "deep" / "x"})
    assert files(tmp_path) == before
    run(*clips, **{option: tmp_path / "new" / "deep" / "x"})
    assert (tmp_path / "new" / "deep" / "x").stat().st_size


def test_a_pipe_is_no_place_for_numbers(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "read_group", lambda *_: pytest.fail("was read"))
    os.mkfifo(tmp_path / "pipe")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="pipe: is a device, pipe or socket; name a file"):
            run(*clips, csv=tmp_path / "pipe", overwrite=overwrite)
    assert (tmp_path / "pipe").is_fifo()


def test_the_tables_of_papers_are_written(clips, tmp_path):
    evaluation = run(*clips, markdown=tmp_path / "t.md", latex=tmp_path / "t.tex")
    mean = f"{evaluation.mean('psnr'):.2f}"
    assert f"| {mean} |" in (tmp_path / "t.md").read_text()
    assert f" & {mean} " in (tmp_path / "t.tex").read_text()
    assert evaluation.as_json()["latex"] == str(tmp_path / "t.tex")


def test_a_file_that_cannot_be_written_costs_no_numbers(clips, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(outputs.WRITE, "csv", full)
    evaluation = run(*clips, csv=tmp_path / "numbers.csv")
    assert len(evaluation.clips) == 3
    (failure,) = evaluation.failures
    assert "numbers.csv" in failure
    assert "No space left" in failure
    assert (evaluation.csv, evaluation.as_json()["csv"]) == (None, None)


def test_ctrl_c_keeps_what_was_measured(clips, tmp_path, monkeypatch):
    class Impatient(Listener):
        def end_clip(self, name: str, result: str, *, failed: bool = False) -> None:
            super().end_clip(name, result, failed=failed)
            if len(self.ended) == 2:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        run(*clips, Impatient(), csv=tmp_path / "numbers.csv", report=tmp_path / "report.html")
    evaluation = caught.value.comparison.evaluations[0]
    assert [clip.name for clip in evaluation.clips] == ["a", "b"]
    assert evaluation.stopped_before == 1
    assert evaluation.as_json()["stopped_before"] == 1
    assert len((tmp_path / "numbers.csv").read_text().splitlines()) == 1 + 2 * 4
    assert (tmp_path / "report.html").is_file()
    assert (evaluation.csv, evaluation.report) == (tmp_path / "numbers.csv", tmp_path / "report.html")


def test_ctrl_c_before_the_first_clip_is_ctrl_c(clips, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "compare", stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(*clips, csv=tmp_path / "numbers.csv")
    assert not isinstance(caught.value, Interrupted)
    assert not (tmp_path / "numbers.csv").exists()


def test_the_csv_of_names_that_are_no_text_is_utf8(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "made").mkdir()
    for name in (os.fsdecode(b"caf\xe9"), "caf\u00e9"):
        store(tmp_path / "real" / f"{name}.mkv", pictures(4))
        store(tmp_path / "made" / f"{name}.mkv", disturbed(pictures(4)))
    run(tmp_path / "real", tmp_path / "made", csv=tmp_path / "numbers.csv")
    rows = list(csv.DictReader((tmp_path / "numbers.csv").read_bytes().decode("utf-8").splitlines()))
    assert {row["clip"] for row in rows} == {r"caf\udce9", "caf\u00e9"}
