"""Several candidates in one run of `vaectl eval`: each has the numbers that it has alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.evaluation.test_eval import Detector, clips, compare, disturbed, run, store  # noqa: F401  # a fixture
from tests.jobs import Listener
from vaectl import engine
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation import cost, frames, outputs, pipeline
from vaectl.evaluation import evaluate as job
from vaectl.evaluation.outputs import Interrupted
from vaectl.evaluation.prepare import prepare
from vaectl.options import EvalOptions, PrepareEvalOptions, dump, parse
from vaectl.options.candidates import Candidate, NamedPath
from vaectl.video import read_video

pytestmark = pytest.mark.usefixtures("one_thread")


def videos(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.mkv"))


def test_every_candidate_has_the_numbers_that_it_has_alone(clips, tmp_path):  # noqa: F811
    """Folders and models, all metrics; the originals are read once."""
    real, near = clips
    detector = tmp_path / "detector.pt"
    torch.jit.script(Detector()).save(str(detector))
    far = tmp_path / "far"
    for file in videos(near):
        store(far / file, disturbed(read_video(near / file).frames, seed=5))
    chosen = {"metric": ("psnr", "ssim", "lpips", "flicker", "fvd"), "resolution": 64, "fvd_detector": detector}
    comparison = compare(real, [near, far], model=Path("builtin"), **chosen)
    assert [each.name for each in comparison.evaluations] == [near.name, "far", "builtin"]
    alone = [run(real, near, **chosen), run(real, far, **chosen), run(real, model=Path("builtin"), **chosen)]
    for together, single in zip(comparison.evaluations, alone, strict=True):
        assert together.clips == single.clips
        assert together.set_values == pytest.approx(single.set_values, rel=1e-9)
        assert together.protocol == single.protocol
    assert [each.temporal_compression for each in comparison.evaluations] == [None, None, 4]


def test_originals_are_read_once_for_all_candidates(clips, monkeypatch):  # noqa: F811
    real, results = clips
    read = []
    reader = frames.VideoReader
    monkeypatch.setattr(frames, "VideoReader", lambda path, **how: (read.append(path), reader(path, **how))[1])
    copies = tuple(NamedPath(name, results) for name in "abc")
    compare(real, [], generated_video_dir=copies)
    originals = [path for path in read if path.is_relative_to(real)]
    assert sorted(originals) == sorted(real / name for name in videos(real))


def test_a_clip_that_fails_for_one_candidate_leaves_all_and_is_named(clips, tmp_path):  # noqa: F811
    real, whole = clips
    torn = shutil.copytree(whole, tmp_path / "torn")
    broken = torn / videos(torn)[0]
    broken.write_bytes(broken.read_bytes()[:100])
    both = compare(real, [whole, torn]).evaluations
    assert [clip.name for clip in both[0].clips] == [clip.name for clip in both[1].clips]
    assert len(both[0].clips) == len(videos(real)) - 1
    for each in both:
        (reason,) = each.left_out.values()
        assert reason.startswith(f"{broken} is not a video that can be read")
        assert each.failures == (reason,)
    broken.unlink()
    with pytest.raises(UsageError, match=f"has no partner in {torn}"):
        compare(real, [whole, torn])
    assert len(compare(real, [whole, torn], allow_missing=True).evaluations[1].clips) == len(videos(real)) - 1


def test_a_model_that_fails_is_named(clips, monkeypatch):  # noqa: F811
    """Both models fail on one clip; the message says which was first."""

    def fail(model, frames, source, *rest):
        if source.stem == "a":
            raise VaectlError(f"{source}: the model's output has NaN or infinity", "use `dtype=float32`")
        return frames

    monkeypatch.setattr(engine, "reconstruct_frames", fail)
    models = (NamedPath("one", Path("builtin")), NamedPath("two", Path("builtin")))
    both = compare(clips[0], [], model=models).evaluations
    assert [reason.partition(": ")[2] for reason in both[1].left_out.values()] == [
        "the model's output has NaN or infinity (candidate one); use `dtype=float32`"
    ]


def test_the_memory_of_a_model_is_what_the_others_leave(clips, monkeypatch):  # noqa: F811
    """A plan counts the weights of the other models, and the frames that they made."""
    seen = []

    def note(model, frames, source, limits, overhead, *rest):
        seen.append((overhead, frames.numel(), sum(p.nbytes for p in model.parameters())))
        return frames

    monkeypatch.setattr(engine, "reconstruct_frames", note)
    one, two = (NamedPath(name, Path("builtin")) for name in ("one", "two"))
    compare(clips[0], [], model=one.path, subset_size=1)
    compare(clips[0], [], model=(one, two), subset_size=1)
    (alone, size, weights), *both = seen
    for overhead, _, _ in both:
        assert overhead.fixed == alone.fixed + weights + size
        assert (alone.on_device, overhead.on_device) == (0, weights)


def test_candidates_prepared_with_other_frames_are_refused_with_what_differs(clips, tmp_path):  # noqa: F811
    real = clips[0]
    for name, num_frames in (("two", 2), ("three", 3)):
        small = {"num_frames": num_frames, "resolution": 32, "device": "cpu"}
        prepare(PrepareEvalOptions(real_video_dir=real, generated_video_dir=tmp_path / name, **small), Listener())
    with pytest.raises(UsageError, match=r"two and .*three: were prepared with different frames: `num_frames=2` and 3"):
        compare(real, [tmp_path / "two", tmp_path / "three"], num_frames=None, resolution=None)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ({"generated_video_dir": "runs/out"}, [("out", "runs/out", False)]),
        ({"generated_video_dir": ["a/out", "b/out"]}, [("a/out", "a/out", False), ("b/out", "b/out", False)]),
        ({"model": "ours=runs/a/final"}, [("ours", "runs/a/final@main", True)]),
        ({"model": "builtin", "generated_video_dir": "x= y"}, [("x", " y", False), ("builtin", "builtin", True)]),
        ({"generated_video_dir": "lr=1"}, [("lr=1", "lr=1", False)]),
        ({"generated_video_dir": "./lr=2"}, [("lr=2", "lr=2", False)]),
        ({"model": "owner/name@main"}, [("name", "owner/name@main", True)]),
    ],
)
def test_a_candidate_has_a_name(tmp_path, monkeypatch, typed, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()  # a path that exists is a path
    options = parse(EvalOptions, {"real_video_dir": "in", **typed})
    assert options.candidates == tuple(Candidate(name, Path(path), is_model) for name, path, is_model in expected)
    again = parse(EvalOptions, {name: value for name, value in dump(options).items() if value is not None})
    assert again == options


@pytest.mark.parametrize("typed", [["a=x", "a=y"], ["x", "x"], ["x=y", "x"]])
def test_two_candidates_of_one_name_are_refused(typed):
    with pytest.raises(UsageError, match="two candidates are called"):
        parse(EvalOptions, {"real_video_dir": "in", "model": typed})


def interrupt(*_):
    raise KeyboardInterrupt


def test_ctrl_c_while_the_cost_is_measured_loses_no_number(clips, monkeypatch):  # noqa: F811
    monkeypatch.setattr("vaectl.evaluation.cost.measure_costs", interrupt)
    with pytest.raises(Interrupted) as caught:
        compare(clips[0], [clips[1]], model=Path("builtin"), cost=True)
    made, builtin = caught.value.comparison.evaluations
    assert len(made.clips) == len(builtin.clips) == 3
    assert builtin.cost
    assert builtin.cost.encode_frames_per_second is None
    assert made.stopped_before == 0


def test_ctrl_c_while_the_metrics_of_sets_are_computed_loses_no_number(clips, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(job, "values_of_sets", interrupt)
    with pytest.raises(Interrupted) as caught:
        compare(clips[0], [clips[1]], csv=tmp_path / "a.csv")
    (made,) = caught.value.comparison.evaluations
    assert (len(made.clips), made.set_values, made.csv) == (3, {}, tmp_path / "a.csv")
    assert made.seconds > 0
    assert made.peak_memory > 0


def test_ctrl_c_while_files_are_written_loses_no_number(clips, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(outputs.WRITE, "markdown", interrupt)
    with pytest.raises(Interrupted) as caught:
        compare(clips[0], [clips[1]], csv=tmp_path / "a.csv", markdown=tmp_path / "a.md", latex=tmp_path / "a.tex")
    (made,) = caught.value.comparison.evaluations
    assert (len(made.clips), made.csv, made.markdown, made.latex) == (3, tmp_path / "a.csv", None, None)
    assert made.failures == tuple(
        f"{tmp_path / name}: not written, because the run was stopped" for name in ("a.md", "a.tex")
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UsageError("`memory_limit=1` is too small", "raise it"), "`memory_limit=1` is too small; raise it"),
        (VaectlError("the disk is full"), "the disk is full"),
        (RuntimeError("CUDA\nerror"), "the measurement: RuntimeError: CUDA error; this is a bug: please report it"),
    ],
)
def test_a_cost_that_cannot_be_measured_is_a_warning(clips, monkeypatch, error, said):  # noqa: F811
    def fail(*_):
        raise error

    monkeypatch.setattr(cost, "prepare_run", fail)
    listener = Listener()
    one, two = (NamedPath(name, Path("builtin")) for name in ("one", "two"))
    found = compare(clips[0], [], listener, model=(one, two))
    assert listener.warnings == [f"{name}: speed and memory are not measured: {said}" for name in ("one", "two")]
    for each in found.evaluations:
        assert (len(each.clips), each.failures) == (3, ())
        assert each.cost
        assert each.cost.warm is None


def test_an_unforeseen_error_at_the_end_loses_no_number(clips, tmp_path, monkeypatch):  # noqa: F811
    def fail(*_):
        raise ZeroDivisionError("division by zero")

    detector = tmp_path / "detector.pt"
    torch.jit.script(Detector()).save(str(detector))
    monkeypatch.setattr("vaectl.metrics.fvd.frechet_distance", fail)
    monkeypatch.setitem(outputs.WRITE, "csv", fail)
    chosen = {"metric": ("psnr", "fvd"), "fvd_detector": detector, "csv": tmp_path / "a.csv"}
    (made,) = compare(clips[0], [clips[1]], **chosen).evaluations
    assert len(made.clips) == 3
    assert [line.partition(": ")[0] for line in made.failures] == ["fvd", str(tmp_path / "a.csv")]
    assert all("ZeroDivisionError: division by zero; this is a bug" in line for line in made.failures)


def test_fvd_of_one_clip_is_refused_before_anything_is_fetched(clips, monkeypatch):  # noqa: F811
    monkeypatch.setattr(job, "build_metrics", lambda *_: pytest.fail("built"))
    with pytest.raises(UsageError, match="fvd needs at least 2 clips, not 1"):
        compare(clips[0], [clips[1]], metric=("psnr", "fvd"), subset_size=1)


def test_the_protocol_is_stated_before_anything_is_decoded(clips, monkeypatch):  # noqa: F811
    """A file that cannot be read for its SHA-256 must not cost numbers that are measured."""

    def fail(*_):
        raise VaectlError("weights: cannot be read")

    monkeypatch.setattr(job, "provenance", fail)
    monkeypatch.setattr(pipeline, "read_group", lambda *_: pytest.fail("decoded"))
    with pytest.raises(VaectlError, match="weights: cannot be read"):
        compare(clips[0], [clips[1]])
