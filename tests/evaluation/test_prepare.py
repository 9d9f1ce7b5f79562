"""What `vaectl prepare-eval` makes of a folder of clips, and what it leaves alone."""

import json
import math
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from tests.jobs import Listener, files
from tests.models.reference import load_reference, synthetic_model
from tests.video.media import animation, cut, encode
from vaectl import engine
from vaectl.engine import HostOverhead, reconstruct_frames
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation import prepare as job
from vaectl.evaluation.evaluate import evaluate
from vaectl.evaluation.manifest import read_manifest
from vaectl.evaluation.pairs import find_pairs
from vaectl.evaluation.plan import fingerprint
from vaectl.evaluation.prepare import PrepareResult, prepare
from vaectl.evaluation.protocol import ClipProtocol, protocol_of, read_clip
from vaectl.memory import Limits
from vaectl.models import load_model, save_model
from vaectl.options import EvalOptions, PrepareEvalOptions, parse
from vaectl.progress import Silent
from vaectl.rng import generator_for
from vaectl.tiling.executor import Executor
from vaectl.video import read_video
from vaectl.video.clip import to_frames, to_video

pytestmark = pytest.mark.usefixtures("one_thread")

BESIDE = HostOverhead.of(stored=64 * 48, frame=24 * 24, shown=24 * 24)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Three clips of 9 frames, two of them with one stem, and things that are no clips."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "deep" / "er").mkdir(parents=True)
    encode(folder / "a.mp4", 9)
    encode(folder / "a.avi", 9, codec="mpeg4", options={"qscale": "2"})
    encode(folder / "deep" / "er" / "b c.mov", 9, size=(48, 64))
    (folder / "notes.txt").write_text("no clip")
    return folder


@pytest.fixture
def here(clips, tmp_path, monkeypatch) -> Path:
    """The current folder, with a copy of the clips in `in`."""
    shutil.copytree(clips, tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(**given) -> PrepareEvalOptions:
    small = {"num_frames": 5, "resolution": 24, "device": "cpu", "num_workers": 2}
    paths = {"real_video_dir": Path("in"), "generated_video_dir": Path("out")}
    return PrepareEvalOptions(**{**paths, **small, **given})


def run(listener: Listener | None = None, **given) -> PrepareResult:
    return prepare(options(**given), listener or Listener())


def counts(result: PrepareResult) -> tuple[int, int, int]:
    return result.made, result.kept, result.failed


def frames_of(name: str) -> torch.Tensor:
    return read_video(Path(name)).frames


# What is written


def test_the_tree_is_mirrored_without_collisions(here):
    listener = Listener()
    result = run(listener, output_origin=True)
    assert counts(result) == (3, 0, 0)
    expected = ["a.avi.mkv", "a.mp4.mkv", "deep/er/b c.mkv"]
    got = [name for name in files(Path("out")) if name.endswith(".mkv")]
    assert sorted(got) == sorted([*expected, *(f"origin/{name}" for name in expected)])
    assert [clip.name for clip in result.manifest.clips] == ["a.avi", "a.mp4", "deep/er/b c"]
    assert [clip.generated for clip in result.manifest.clips] == expected
    assert listener.clips == [(f"in/{clip}", 5, 5) for clip in ("a.avi", "a.mp4", "deep/er/b c.mov")]
    assert [name for name, _, _ in listener.ended] == ["a.avi", "a.mp4", "deep/er/b c"]
    assert listener.warnings == listener.notes == []


def test_what_is_written_is_exactly_what_went_in_and_came_out(here):
    run(output_origin=True, sample_rate=2)
    model = load_model(device="cpu", dtype="float32")
    for source, name in (("a.mp4", "a.mp4"), ("deep/er/b c.mov", "deep/er/b c")):
        clip = read_clip(Path("in", source), ClipProtocol(5, 2, 24, 24))
        assert torch.equal(frames_of(f"out/origin/{name}.mkv"), clip.frames)
        got = frames_of(f"out/{name}.mkv")
        assert torch.equal(got, to_frames(model.reconstruct(to_video(clip.frames))))
        beside = reconstruct_frames(model, clip.frames[None], Path(source), Limits(), BESIDE, Silent())
        assert torch.equal(got, beside[0])


def test_the_manifest_tells_how_it_was_made(here):
    run(output_origin=True, crop_size=16, seed=7)
    manifest = json.loads(Path("out/manifest.json").read_text())
    given = {"num_frames": 5, "sample_rate": 1, "resolution": 24, "crop_size": 16}
    assert manifest["protocol"] == {**given, "rgb_conversion": "accurate", "frame_rate": None, "all_windows": False}
    assert (manifest["model"]["path"], manifest["model"]["family"]) == (None, "WFVAEModel")
    assert (manifest["model"]["device"], manifest["model"]["dtype"]) == ("cpu", "float32")
    latent = ("temporal_compression", "spatial_compression", "latent_channels", "parameters")
    assert [manifest["model"][name] for name in latent] == [4, 8, 16, 5_451_204]
    assert (manifest["options"]["real_video_dir"], manifest["options"]["seed"]) == ("in", 7)
    assert manifest["real_video_dir"] == str(here / "in")
    assert set(manifest["versions"]) == {"vaectl", "torch", "av"}
    clip = manifest["clips"][2]
    assert (clip["source"], clip["generated"]) == ("deep/er/b c.mov", "deep/er/b c.mkv")
    assert (clip["frames"], clip["width"], clip["height"], clip["status"]) == (5, 16, 16, "ok")
    for key in ("generated", "origin"):
        assert clip[f"{key}_bytes"] == Path("out", clip[key]).stat().st_size


def test_the_frame_rate_is_the_sources_over_the_interval_or_the_one_asked_for_over_it(here):
    run(sample_rate=2)
    got = read_video(Path("out/a.mp4.mkv"))
    assert (got.frame_rate, got.timestamps[1]) == (Fraction(25, 2), Fraction(2, 25))
    run(sample_rate=2, sample_fps=Fraction(30000, 1001), overwrite=True)
    got = read_video(Path("out/a.mp4.mkv"))
    assert (got.frame_rate, got.timestamps[4]) == (Fraction(15000, 1001), Fraction(4 * 1001, 15000))


def test_whole_frames_are_kept_on_request(here):
    result = run(crop_size=0)
    assert [(clip.width, clip.height) for clip in result.manifest.clips] == [(32, 24), (32, 24), (24, 32)]


def test_mp4_is_written_with_a_warning(here):
    listener = Listener()
    run(listener, format="mp4", output_origin=True)
    assert Path("out/deep/er/b c.mp4").is_file()
    assert Path("out/origin/a.avi.mp4").is_file()
    (warning,) = listener.warnings
    assert "lossy" in warning


def test_the_first_clips_by_name_are_a_subset_that_can_grow(here):
    assert [clip.name for clip in run(subset_size=2).manifest.clips] == ["a.avi", "a.mp4"]
    before = files(Path("out"))
    result = run()
    assert counts(result) == (1, 2, 0)
    after = files(Path("out"))
    assert {name: after[name] for name in before if name.endswith("mkv")}.items() <= before.items()
    assert counts(run(subset_size=1)) == (0, 3, 0)  # the others are still there, and still listed


def test_images_are_clips_of_one_frame(here):
    encode(Path("in/z.png"), 1, codec="png", pix_fmt="rgb24")
    listener = Listener()
    assert counts(run(listener)) == (3, 0, 0)
    assert listener.notes == ["images skipped: 1; `num_frames=1` takes them"]
    result = run(num_frames=1, overwrite=True)
    assert [clip.name for clip in result.manifest.clips] == ["a.avi", "a.mp4", "deep/er/b c", "z"]
    assert frames_of("out/z.mkv").shape == (1, 3, 24, 24)


def evaluated(real: str, generated: str = "out", **given) -> list[tuple[str, float]]:
    paths = {"real_video_dir": real, "generated_video_dir": generated}
    (evaluation,) = evaluate(
        parse(EvalOptions, {**paths, "metric": "psnr", "device": "cpu", **given}), Listener()
    ).evaluations
    return [(clip.name, clip.mean("psnr")) for clip in evaluation.clips]


def test_a_file_is_prepared_resumed_and_measured(here):
    result = run(real_video_dir=Path("in/a.mp4"), output_origin=True)
    assert counts(result) == (1, 0, 0)
    assert [name for name in files(Path("out")) if name.endswith(".mkv")] == ["a.mkv", "origin/a.mkv"]
    (clip,) = result.manifest.clips
    assert (clip.name, clip.source, result.manifest.real_video_dir) == ("a", "a.mp4", str(here / "in"))
    assert counts(run(real_video_dir=Path("in/a.mp4"))) == (0, 1, 0)
    measured = evaluated("in/a.mp4")
    assert [name for name, _ in measured] == ["a"]
    assert evaluated("in/a.mp4", "out/a.mkv") == evaluated("out/origin/a.mkv", "out/a.mkv") == measured
    assert evaluated("out/origin/a.mkv") == evaluated("out/origin") == measured


def test_files_of_a_folder_are_prepared_one_after_the_other(here):
    shutil.copy("in/a.mp4", "in/c.mp4")
    run(real_video_dir=Path("in/a.mp4"))
    assert counts(run(real_video_dir=Path("in/c.mp4"))) == (1, 1, 0)
    assert [name for name, _ in evaluated("in/c.mp4")] == ["c"]
    with pytest.raises(UsageError, match=r"out/a\.mkv: is the result of in/a\.mp4; give another `generated_video_dir`"):
        run(real_video_dir=Path("in/a.avi"))
    Path("in/a.mp4").unlink()
    result = run(real_video_dir=Path("in/a.avi"))
    assert [(clip.source, clip.status) for clip in result.manifest.clips] == [("a.avi", "ok"), ("c.mp4", "ok")]


def test_an_original_of_a_prepared_folder_is_measured_alone(here):
    run(subset_size=3)
    assert [name for name, _ in evaluated("in/deep/er/b c.mov")] == ["b c"]
    assert [name for name, _ in evaluated("in/a.avi")] == ["a"]


def test_an_image_is_prepared_and_measured(here):
    encode(Path("in/z.png"), 1, codec="png", pix_fmt="rgb24")
    result = run(real_video_dir=Path("in/z.png"), num_frames=1)
    assert [(clip.generated, clip.frames) for clip in result.manifest.clips] == [("z.mkv", 1)]
    assert [name for name, _ in evaluated("in/z.png")] == ["z"]
    failed = run(real_video_dir=Path("in/z.png"), generated_video_dir=Path("other")).manifest.clips[0].reason
    assert failed
    assert failed.startswith("in/z.png: too short: gives 1 of the 5 frames")


def test_animations_are_videos_whatever_their_extension(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    animation(Path("in/a.webp"), 9)
    animation(Path("in/b.png"), 9)
    animation(Path("in/c.png"), 1)
    animation(Path("in/d.gif"), 1)
    listener = Listener()
    assert counts(run(listener)) == (2, 0, 0)
    assert listener.notes == ["images skipped: 2; `num_frames=1` takes them"]
    assert [pair.name for pair in find_pairs(Path("in"), None, None).pairs] == ["a", "b"]


def test_a_folder_of_numbered_images_alone_is_answered_with_their_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for number in range(10):
        encode(Path(f"in/{number}.png"), 1, codec="png", pix_fmt="rgb24")
    with pytest.raises(UsageError, match=r"or give `real_video_dir=in/%01d\.png` for one video of them"):
        run(real_video_dir=Path("in"))


def test_batches_differ_by_rounding_at_most(here):
    run(crop_size=0)
    run(generated_video_dir=Path("batched"), crop_size=0, batch_size=3)
    names = ("a.avi.mkv", "a.mp4.mkv", "deep/er/b c.mkv")
    for name in names:
        difference = (frames_of(f"out/{name}").int() - frames_of(f"batched/{name}").int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-3


def test_tiles_differ_by_rounding_at_most(here):
    run()
    listener = Listener()
    run(listener, generated_video_dir=Path("tiled"), enable_tiling=True, batch_size=4, tile_overlap_factor=0.25)
    difference = (frames_of("out/a.mp4.mkv").int() - frames_of("tiled/a.mp4.mkv").int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3
    assert listener.notes[0] == "`tile_overlap_factor` has no effect: tiles give exactly the result of whole frames"
    assert len([note for note in listener.notes if "estimated peak" in note]) == 3


def test_a_sample_depends_on_seed_and_name_alone(here):
    run(sample=True, seed=3)
    run(generated_video_dir=Path("again"), sample=True, seed=3, batch_size=3)
    run(generated_video_dir=Path("other"), sample=True, seed=4)
    drawn = frames_of("out/a.mp4.mkv")
    assert torch.equal(drawn, frames_of("again/a.mp4.mkv"))
    assert not torch.equal(drawn, frames_of("other/a.mp4.mkv"))
    first, second = (torch.rand(4, generator=generator_for(3, name)) for name in ("a.avi", "a.mp4"))
    assert not torch.equal(first, second)


# Clips that fail


def test_a_clip_that_fails_is_told_listed_and_left_out(here):
    cut(Path("in/a.mp4"), 0.5)
    encode(Path("in/short.mp4"), 4)
    Path("in/text.mp4").write_text("no video")
    Path("in/link.mp4").symlink_to("nowhere")
    listener = Listener()
    result = run(listener, output_origin=True)
    assert counts(result) == (3, 0, 4)
    failed = {clip.name: clip.reason for clip in result.manifest.clips if clip.status == "failed"}
    assert sorted(failed) == ["cut0.5_a", "link", "short", "text"]
    assert failed["short"].startswith("in/short.mp4: too short: gives 4 of the 5 frames of the protocol")
    assert {name: reason for name, reason, failed in listener.ended if failed} == failed
    assert ("a.mp4", "made, 5 frames, 24x24", False) in listener.ended
    assert (listener.run, len(listener.ended), listener.warnings) == ((7, 0, ""), 7, [])
    assert not [name for name in files(Path("out")) if "short" in name or "text" in name]
    assert len(listener.clips) == 3
    encode(Path("in/short.mp4"), 5)
    assert counts(run(output_origin=True)) == (1, 3, 3)


def test_one_bad_clip_takes_no_other_of_its_batch_along(here, monkeypatch):
    encode(Path("in/b.mp4"), 9, size=(48, 64))
    original = engine.reconstruct_windows

    def spoil(model, windows, plan, *, finish, **how):
        held = list(windows)

        def spoiled(video):
            video[held[0].flatten(1).float().mean(1) == bad_mean] = math.nan
            return finish(video)

        yield from original(model, iter(held), plan, finish=spoiled, **how)

    bad_mean = read_clip(Path("in/a.mp4"), protocol_of(options())).frames.transpose(0, 1).flatten().float().mean()
    monkeypatch.setattr(engine, "reconstruct_windows", spoil)
    result = run(batch_size=4)
    assert counts(result) == (3, 0, 1)
    (failed,) = (clip for clip in result.manifest.clips if clip.status == "failed")
    assert failed.reason.startswith("in/a.mp4: the model's output has NaN or infinity; use `dtype=float32`")


def test_a_lack_of_memory_with_tiles_is_tried_once_more(here, monkeypatch):
    calls = []

    def run_once_without_memory(self, clip):
        calls.append(clip)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return original(self, clip)

    original = Executor.run
    monkeypatch.setattr(Executor, "run", run_once_without_memory)
    listener = Listener()
    assert counts(run(listener, memory_limit=4 * 2**30)) == (3, 0, 0)
    assert listener.warnings[0].endswith("retrying within 2.00 GiB")


# Going on


def test_finished_clips_are_not_made_again(here):
    run(output_origin=True)
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.mkv")}
    listener = Listener()
    assert counts(run(listener, output_origin=True)) == (0, 3, 0)
    assert (listener.run, listener.ended) == ((3, 3, ""), [])
    assert listener.notes == ["3 of 3 clips are kept from an earlier run"]
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.mkv")} == before


@pytest.mark.parametrize("file", ["out/a.mp4.mkv", "out/origin/a.mp4.mkv"])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_result_that_is_not_as_it_was_left_is_made_again(here, file, how):
    run(output_origin=True)
    whole = Path(file).read_bytes()
    if how == "gone":
        Path(file).unlink()
    else:
        os.truncate(file, len(whole) // 2)
    assert counts(run(output_origin=True)) == (1, 2, 0)
    assert torch.equal(frames_of(file), frames_of(file))
    assert Path(file).stat().st_size == len(whole)


@pytest.mark.parametrize("spoilt", [{"frames": "many"}, {"status": 3}, {"source_stamp": []}, {"generated_bytes": None}])
def test_a_clip_whose_entry_is_damaged_is_made_again(here, spoilt):
    assert counts(run()) == (3, 0, 0)
    before, names = frames_of("out/a.mp4.mkv"), set(files(Path("out")))
    values = json.loads(Path("out/manifest.json").read_text())
    values["clips"][1] |= spoilt
    Path("out/manifest.json").write_text(json.dumps(values))
    assert counts(run()) == (1, 2, 0)
    assert torch.equal(frames_of("out/a.mp4.mkv"), before)
    assert set(files(Path("out"))) == names


def test_a_source_that_changed_is_made_again(here):
    run()
    before = frames_of("out/a.mp4.mkv")
    shutil.copy("in/deep/er/b c.mov", "in/a.mp4")
    assert counts(run()) == (1, 2, 0)
    assert not torch.equal(frames_of("out/a.mp4.mkv"), before)


def test_originals_that_are_wanted_later_are_made_then(here):
    run()
    assert counts(run(output_origin=True)) == (3, 0, 0)
    assert counts(run()) == (0, 3, 0)


def test_a_run_that_was_stopped_keeps_what_is_finished(here, monkeypatch):
    written = []

    def stop(file, *arguments, **how):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file)
        return original(file, *arguments, **how)

    original = job.VideoWriter
    monkeypatch.setattr(job, "VideoWriter", stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert [clip.status for clip in read_manifest(Path("out")).clips] == ["ok", "ok", "waiting"]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert counts(run()) == (1, 2, 0)
    assert not list(Path("out").glob(".manifest*"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_frames": 4}, "`num_frames` 5 (now 4)"),
        ({"crop_size": 0}, "`crop_size` 24 (now 0)"),
        ({"sample": True, "seed": 2}, "`sample` off (now with `seed=2`)"),
        ({"sample_rate": 2, "resolution": 32}, "`sample_rate` 1 (now 2), `resolution` 24 (now 32)"),
        ({"dtype": "bfloat16"}, "was prepared with `model` and `dtype` built-in in float32 with"),
        ({"format": "mp4"}, "`format` mkv (now mp4)"),
        ({"sample_fps": Fraction(30)}, "`sample_fps` of the source (now 30)"),
        ({"real_video_dir": Path("in/deep")}, "`real_video_dir`"),
    ],
)
def test_other_options_are_refused_and_named(here, given, said):
    run()
    kept = files(Path("out"))
    with pytest.raises(UsageError, match="was prepared with") as error:
        run(**given)
    assert said in str(error.value)
    assert str(error.value).endswith("pass `overwrite` to start again, or change `generated_video_dir`")
    assert files(Path("out")) == kept
    assert run(**given, overwrite=True).made > 0


def test_what_changes_nothing_may_change(here):
    run(crop_size=24)
    assert counts(run(batch_size=3, num_workers=1, seed=9, crop_size=None)) == (0, 3, 0)


def test_another_model_is_refused(here):
    run()
    model = load_model(device="cpu", dtype="float32")
    save_model(model, "copy")
    with pytest.raises(UsageError, match=r"built-in in float32 with SHA-256 (\w{8})… \(now copy in .* \1…\)"):
        run(model=Path("copy"))
    next(model.parameters())[0] += 1
    save_model(model, "copy", overwrite=True)
    assert fingerprint(load_model("copy", device="cpu")) != read_manifest(Path("out")).model.fingerprint


def test_overwrite_makes_everything_anew(here):
    run()
    assert counts(run(overwrite=True)) == (3, 0, 0)


@pytest.mark.parametrize("part", [{"real_video_dir": Path("in/a.mp4")}, {"subset_size": 1}], ids=str)
def test_overwriting_one_clip_keeps_the_others_listed(here, part):
    Path("in/a.avi").unlink()
    run(output_origin=True)
    listener = Listener()
    again = run(listener, output_origin=True, overwrite=True, **part)
    assert (counts(again), listener.warnings) == ((1, 1, 0), [])
    assert [(clip.name, clip.status) for clip in again.manifest.clips] == [("a", "ok"), ("deep/er/b c", "ok")]
    assert [name for name, _ in evaluated("in")] == ["a", "deep/er/b c"]
    assert counts(run(output_origin=True)) == (0, 2, 0)


def test_overwriting_with_other_options_warns_of_the_clips_that_are_no_longer_listed(here):
    run()
    listener = Listener()
    again = run(listener, num_frames=4, subset_size=1, overwrite=True)
    assert [clip.name for clip in again.manifest.clips] == ["a.avi"]
    assert listener.warnings == [
        "out: earlier clips that manifest.json no longer lists: 2; they were prepared with `num_frames` 5 (now 4);"
        " remove their files, or prepare them again with `overwrite`"
    ]
    assert counts(run(listener, num_frames=4, overwrite=True)) == (3, 0, 0)
    assert len(listener.warnings) == 1


def test_an_old_result_of_a_clip_that_failed_stays_listed(here):
    Path("in/a.avi").rename("in/c.avi")
    run()
    whole = Path("in/a.mp4").read_bytes()
    Path("in/a.mp4").write_bytes(whole[:500])
    assert counts(run()) == (0, 2, 1)
    assert counts(run(real_video_dir=Path("in/c.avi"))) == (0, 2, 0)
    with pytest.raises(UsageError, match=r"in/a\.mp4: could not be prepared: in/a\.mp4 is not a video"):
        evaluated("in")
    Path("in/a.mp4").write_bytes(whole)
    assert counts(run()) == (1, 2, 0)


# What is left alone


def test_a_file_that_no_manifest_lists_is_somebody_elses(here):
    Path("out").mkdir()
    Path("out/a.mp4.mkv").write_text("precious")
    kept = files(Path("out"))
    with pytest.raises(
        UsageError, match=r"out/a\.mp4\.mkv: exists already, and no manifest lists it; pass `overwrite`"
    ):
        run()
    assert {name: content for name, content in files(Path("out")).items() if name != ".lock"} == kept
    run(subset_size=1)
    assert Path("out/a.mp4.mkv").read_text() == "precious"
    assert counts(run(overwrite=True)) == (3, 0, 0)


def test_originals_are_never_written_over(here):
    run(output_origin=True)
    kept = files(Path("out"))
    with pytest.raises(UsageError, match="is an input of this run; give another `generated_video_dir`"):
        run(real_video_dir=Path("out/origin"), output_origin=True, overwrite=True)
    os.link("in/a.mp4", "out/link.mkv")
    shutil.copy("in/a.avi", "in/link.avi")
    with pytest.raises(UsageError, match=r"out/link\.mkv: is an input of this run"):
        run(overwrite=True)
    assert {name: content for name, content in files(Path("out")).items() if name != "link.mkv"} == kept


def test_the_results_are_no_originals(here):
    run(generated_video_dir=Path("in/out"), output_origin=True)
    assert counts(run(generated_video_dir=Path("in/out"), output_origin=True)) == (0, 3, 0)
    with pytest.raises(UsageError, match="in: holds all the videos of in; name another folder"):
        run(generated_video_dir=Path("in"))


def test_only_listed_results_are_left_out_silently(here):
    listener, nested = Listener(), {"generated_video_dir": Path("in/out"), "output_origin": True}
    run(listener, **nested)
    run(listener, **nested, overwrite=True)
    assert listener.notes == []
    shutil.copy("in/a.mp4", "in/out/other.mp4")
    assert counts(run(listener, **nested)) == (0, 3, 0)
    assert listener.notes[0] == (
        "in/out: videos and images left out, because they are in the folder of results and are not results: 1"
    )


@pytest.mark.parametrize("name", ["a.mp4.mkv", "origin/a.mp4.mkv"])
def test_an_original_in_the_folder_of_results_is_never_replaced(here, name):
    Path("in/out", name).parent.mkdir(parents=True)
    shutil.copy("in/a.mp4", Path("in/out", name))
    kept = files(here)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=f"^in/out/{name}: is an input of this run; give another `generated_"):
            run(generated_video_dir=Path("in/out"), output_origin=True, overwrite=overwrite)
    assert files(here) == kept


@pytest.mark.parametrize("name", ["a.mp4.mkv", "manifest.json"])
def test_only_a_file_is_replaced(here, name):
    Path("out").mkdir()
    os.mkfifo(Path("out", name))
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=f"^out/{name}: is a device, pipe or socket; give another `generated_"):
            run(overwrite=overwrite)
    assert Path("out", name).is_fifo()


def test_a_file_in_the_place_of_a_folder_is_found_before_the_work(here):
    Path("out").mkdir()
    Path("out/deep").touch()
    with pytest.raises(
        UsageError, match=r"^out/deep/er/b c\.mkv: cannot write there \(Not a directory\); give another"
    ):
        run(overwrite=True)
    assert [path.name for path in Path("out").iterdir()] == ["deep"]


def test_no_result_is_a_folder_of_others(here):
    Path("in/a.mp4.mkv").mkdir()
    shutil.copy("in/a.avi", "in/a.mp4.mkv/x.avi")
    with pytest.raises(UsageError, match=r"^a\.mp4: its result would have the name of the folder a\.mp4\.mkv; rename"):
        run()
    Path("in/a.avi").unlink()
    assert counts(run()) == (3, 0, 0)
    Path("in/manifest.json").mkdir()
    shutil.copy("in/a.mp4", "in/manifest.json/a.mp4")
    with pytest.raises(UsageError, match=r"the results have a file manifest\.json of their own"):
        run(overwrite=True)


def test_results_can_be_originals_of_another_run_without_what_they_came_from(here):
    run(output_origin=True)
    listener = Listener()
    again = run(listener, real_video_dir=Path("out"), generated_video_dir=Path("twice"))
    assert listener.warnings == [
        "out: has reconstructions (manifest.json); its clips pass through a model a second time"
    ]
    assert [clip.source for clip in again.manifest.clips] == ["a.avi.mkv", "a.mp4.mkv", "deep/er/b c.mkv"]


def test_swapped_folders_are_refused_with_the_right_order(here):
    run(subset_size=1)
    with pytest.raises(
        UsageError, match=r"in: has originals, not reconstructions \(manifest\.json of out says so\)"
    ) as error:
        run(real_video_dir=Path("out"), generated_video_dir=Path("in"))
    assert error.value.remedy == "give `real_video_dir=in` and `generated_video_dir=out`"


def test_a_manifest_of_another_tool_among_the_originals_is_left_alone(here):
    Path("in/manifest.json").write_text("[]")
    listener = Listener()
    assert counts(run(listener)) == (3, 0, 0)
    assert listener.warnings == []


@pytest.mark.parametrize("source", ["in", "in/a.mp4"])
def test_links_to_the_originals_in_the_folder_of_results_are_never_written_through(here, source):
    Path("out").mkdir()
    Path("in/a.mkv").symlink_to("a.mp4")
    for name in ("a.mp4", "a.avi", "a.mp4.mkv", "a.avi.mkv", "a.mkv"):
        Path("out", name).symlink_to(f"../in/{name.removesuffix('.mkv')}")
    kept = files(Path("in"))
    with pytest.raises(UsageError, match=r"a(\.\w+)*\.mkv: (is an input of this run|exists already)"):
        run(real_video_dir=Path(source))
    with pytest.raises(UsageError, match=r"a\.avi\.mkv: is an input of this run") if source == "in" else nullcontext():
        run(real_video_dir=Path(source), overwrite=True)
    assert files(Path("in")) == kept


def test_a_folder_named_origin_cannot_be_mirrored(here):
    Path("in/deep").rename("in/origin")
    with pytest.raises(UsageError, match=r"in/origin/er/b c\.mov: the results have a folder origin of their own"):
        run()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"real_video_dir": Path("missing")}, "missing: no such file or folder"),
        ({"real_video_dir": Path("empty")}, "empty: no videos or images in this folder"),
        ({"generated_video_dir": Path("out.mp4")}, r"out\.mp4: is the name of a file; name a folder"),
        (
            {"real_video_dir": Path("in/a.mp4"), "generated_video_dir": Path("in/notes.txt")},
            r"in/notes\.txt: is the name of a file; name a folder",
        ),
        (
            {"real_video_dir": Path("in/a.mp4"), "generated_video_dir": Path("in")},
            "in: holds all the videos of in; name another folder",
        ),
        ({"real_video_dir": Path("pictures")}, "pictures: holds no videos of more than one frame; pass `num_frames=1`"),
        ({"generated_video_dir": Path("in/notes.txt")}, r"in/notes\.txt: is a file, but in is a folder"),
        ({"generated_video_dir": Path("in/notes.txt/out")}, r"in/notes\.txt/out: cannot write there"),
        ({"model": Path("nowhere")}, "nowhere: no such file or directory"),
        (
            {"model_name": "CausalVAE"},
            "`model_name=CausalVAE`: the built-in model is a WFVAEModel; leave the name out",
        ),
        ({"memory_limit": 2**20}, "`memory_limit=1 MiB` is too small"),
        ({"device": "cuda:77"}, "device cuda:77"),
    ],
)
def test_requests_that_cannot_work_are_one_line(here, given, said):
    Path("empty").mkdir()
    encode(Path("in/z.png"), 1, codec="png", pix_fmt="rgb24")
    shutil.copytree("in", "pictures", ignore=shutil.ignore_patterns("*.mp4", "*.avi", "deep"))
    with pytest.raises(UsageError, match=said) as error:
        run(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["WFVAE", "wf-vae", "WFVAEModel", "WFVAEModel_D8_4x8x8"])
def test_the_published_name_of_the_family_is_checked(here, name):
    assert run(model_name=name, subset_size=1).made == 1


def test_a_model_that_looks_at_the_whole_clip_gives_what_it_gives_in_one_go(here):
    model = synthetic_model(load_reference("causalvae_class_defaults_narrow").config)
    save_model(model, "model")
    run(model=Path("model"), model_name="CausalVAE", subset_size=2)
    clip = read_clip(Path("in/a.mp4"), protocol_of(options()))
    assert torch.equal(frames_of("out/a.mp4.mkv"), to_frames(model.reconstruct(clip.video())))
    run(
        model=Path("model"),
        model_name="CausalVAE",
        subset_size=2,
        enable_tiling=True,
        generated_video_dir=Path("staged"),
    )
    apart = (frames_of("staged/a.mp4.mkv").int() - frames_of("out/a.mp4.mkv").int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 2e-3


def test_two_runs_do_not_share_a_folder(here, monkeypatch):
    def while_it_runs(*arguments):
        with pytest.raises(UsageError, match="out: another process is at work there; wait for it, or give another"):
            run()
        return original(*arguments)

    original = job.write
    monkeypatch.setattr(job, "write", while_it_runs)
    assert counts(run(subset_size=1)) == (1, 0, 0)


def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(here, monkeypatch):
    def full(file, **how):
        if "b c" in file.name:
            raise VaectlError(f"{file}: writing failed (No space left on device); free space or choose another place")
        return original(file, **how)

    original = job.VideoWriter
    monkeypatch.setattr(job, "VideoWriter", full)
    with pytest.raises(VaectlError, match="No space left"):
        run()
    assert [clip.status for clip in read_manifest(Path("out")).clips] == ["ok", "ok", "waiting"]


@pytest.mark.parametrize("place", ["out/a.mp4.mkv", "out/origin/a.mp4.mkv"])
def test_a_finished_clip_whose_content_changed_is_made_again(here, place):
    run(output_origin=True)
    assert counts(run(output_origin=True)) == (0, 3, 0)
    whole = Path(place).read_bytes()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 0xFF
    Path(place).write_bytes(changed)
    assert counts(run(output_origin=True)) == (1, 2, 0)
    assert Path(place).read_bytes() == whole


def test_a_manifest_without_checksums_goes_by_sizes(here):
    run()
    manifest = json.loads(Path("out/manifest.json").read_text())
    for clip in manifest["clips"]:
        del clip["generated_sha256"], clip["origin_sha256"]
    Path("out/manifest.json").write_text(json.dumps(manifest))
    assert counts(run()) == (0, 3, 0)


def test_the_result_is_plain_json(here):
    result = run()
    assert json.loads(json.dumps(result.as_json(), allow_nan=False))["made"] == 3
    assert replace(result, made=4).as_json()["made"] == 4
