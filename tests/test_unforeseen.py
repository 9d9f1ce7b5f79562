"""Any error of one clip, in any job, is reported for that clip, and the others continue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.jobs import Listener, run
from tests.video.media import encode
from vaectl.data.clip_reader import ClipReader
from vaectl.data.sampling import Sampling, draw
from vaectl.errors import VaectlError, unforeseen
from vaectl.evaluation import prepare
from vaectl.evaluation.evaluate import evaluate
from vaectl.evaluation.manifest import read_manifest
from vaectl.options import EvalOptions, PrepareEvalOptions, parse
from vaectl.video import read, transform

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Clips a, b and c; reading b fails."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        encode(folder / f"{name}.mp4", 5, size=(32, 32))
    return folder


@pytest.fixture(params=[AssertionError("never thought\nof that"), MemoryError("2 TB")], ids=["a bug", "no memory"])
def trouble(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The message about b."""
    probe = read.open_source

    def fail(path: Path, *how: Any) -> Any:
        if path.stem == "b":
            raise request.param
        return probe(path, *how)

    monkeypatch.setattr(read, "open_source", fail)
    return "AssertionError: never thought of that; this is a bug" if "bug" in request.node.name else "out of memory"


def test_reconstruct(clips: Path, tmp_path: Path, trouble: str) -> None:
    result = run(clips, tmp_path / "out")
    errors = {clip.source.name: clip.error for clip in result.clips}
    assert (errors["a.mp4"], errors["c.mp4"]) == (None, None)
    assert errors["b.mp4"] is not None
    assert errors["b.mp4"].startswith(f"{clips / 'b.mp4'}: {trouble}")
    with pytest.raises((AssertionError, MemoryError)):  # alone, with its traceback
        run(clips / "b.mp4", tmp_path / "b.mp4")


def test_prepare_eval(clips: Path, tmp_path: Path, trouble: str) -> None:
    listener = Listener()
    small = {"num_frames": 5, "resolution": 24, "device": "cpu"}
    options = PrepareEvalOptions(real_video_dir=clips, generated_video_dir=tmp_path / "out", **small)
    result = prepare.prepare(options, listener)
    assert (result.made, result.failed) == (2, 1)
    (reason,) = (reason for _, reason, failed in listener.ended if failed)
    assert reason.startswith(f"{clips / 'b.mp4'}: {trouble}")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert [clip.status for clip in manifest.clips] == ["ok", "failed", "ok"]


def test_writing_in_prepare_eval(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = prepare.VideoWriter

    def fail(file: Path, **how: Any) -> Any:
        if file.stem == "b":
            raise AssertionError("never thought of that")
        return writer(file, **how)

    monkeypatch.setattr(prepare, "VideoWriter", fail)
    small = {"num_frames": 5, "resolution": 24, "device": "cpu"}
    options = PrepareEvalOptions(real_video_dir=clips, generated_video_dir=tmp_path / "out", **small)
    result = prepare.prepare(options, Listener())
    assert (result.made, result.failed) == (2, 1)


def test_eval(clips: Path, trouble: str) -> None:
    small = {"num_frames": 5, "resolution": 32, "device": "cpu", "metric": "psnr"}
    options = parse(EvalOptions, {"real_video_dir": clips, "model": "builtin", **small})
    (evaluation,) = evaluate(options, Listener()).evaluations
    assert [clip.name for clip in evaluation.clips] == ["a", "c"]
    assert evaluation.left_out["b"].startswith(f"{clips / 'b.mp4'}: {trouble}")


def test_training_data(clips: Path, trouble: str) -> None:
    sampling = Sampling(num_frames=5, sample_rate=1, resolution=32, seed=0)
    ClipReader().read(clips / "a.mp4", sampling, draw(0, 0))
    with pytest.raises(VaectlError, match=r"b\.mp4: cannot be read"):
        ClipReader().read(clips / "b.mp4", sampling, draw(0, 0))


def test_resizing_that_runs_out_of_memory(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes")

    monkeypatch.setattr(transform.F, "interpolate", fail)
    result = run(clips, tmp_path / "out", short_size=16)
    assert all(clip.error and "out of memory" in clip.error and clip.source.name in clip.error for clip in result.clips)


def test_a_tag_in_another_encoding_stops_nothing(clips: Path, tmp_path: Path) -> None:
    encode(tmp_path / "in" / "b.mkv", 5, size=(32, 32), container_options={"live": "0"})
    data = (tmp_path / "in" / "b.mkv").read_bytes()
    assert b"Lavf" in data
    (tmp_path / "in" / "b.mkv").write_bytes(data.replace(b"Lavf", b"\xe9\xe8\xff\xfe"))
    assert [clip.error for clip in run(clips, tmp_path / "out").clips] == [None] * 4


def test_what_is_said_is_one_line() -> None:
    assert "\n" not in str(unforeseen("a.mp4", ValueError("one\ntwo")))
