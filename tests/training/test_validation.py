"""Validation in a run: the clips are checked first, the checkpoint comes before, and a failure ends nothing."""

from __future__ import annotations

import errno
import json
import math
import shutil
import signal
from pathlib import Path

import pytest
import torch

from tests.jobs import Listener
from tests.training.runs import lines, nano, run, weights
from tests.video.media import encode
from vaectl.errors import UsageError, VaectlError
from vaectl.training.job import Run
from vaectl.training.run_dir import checkpoints
from vaectl.training.trainer import Trainer
from vaectl.training.validation import Validation, reason_of


@pytest.fixture
def held_out(videos, tmp_path) -> Path:
    """Clips of 20 and 12 frames, and one that is no video."""
    folder = tmp_path / "held-out"
    folder.mkdir()
    shutil.copy(videos / "a.mp4", folder / "long.mp4")
    shutil.copy(videos / "b.mp4", folder / "short.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def test_clips_that_cannot_be_validated_are_named_before_the_first_step(videos, tmp_path, held_out, monkeypatch):
    listener, warned = Listener(), []
    advance = Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda *given: warned.append([*listener.warnings]) or advance(*given))
    given = {"eval_video_path": held_out, "eval_num_frames": 8, "eval_sample_rate": 2}
    result = run(videos, tmp_path, listener, max_steps=1, **given)
    assert result.best["psnr"] > 0
    (warnings,) = warned
    assert len(warnings) == 2
    assert "broken.mp4" in warnings[0]
    assert "short.mp4: has 12 frames, and `eval_num_frames=8` at `eval_sample_rate=2` needs 15" in warnings[1]
    assert listener.warnings == warnings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eval_num_frames": 300}, r"`eval_video_path`: 0 of 3 clips can be validated; .*; lower `eval_num_frames`"),
        ({"eval_num_frames": 300, "eval_subset_size": 2}, "`eval_video_path`: 0 of 2 clips"),
        ({"eval_subset_size": 1}, "`eval_video_path`: 0 of 1 clips .*broken.mp4.*; give clips that can be read"),
        ({"eval_video_path": "nowhere"}, "`eval_video_path`: nowhere: no such file or folder"),
        ({"eval_lpips": True}, "`eval_resolution=16`: LPIPS needs at least 31 pixels"),
    ],
)
def test_a_validation_that_cannot_work_is_an_error_before_the_first_step(
    videos, tmp_path, held_out, monkeypatch, given, message
):
    monkeypatch.setattr(Trainer, "advance", lambda *_: pytest.fail("a step was trained"))
    with pytest.raises(UsageError, match=message):
        run(videos, tmp_path, max_steps=1, **{"eval_video_path": held_out, **given})


def test_the_check_of_a_subset_keeps_what_is_known_of_the_other_clips(tmp_path, monkeypatch):
    from vaectl.data import metadata_cache

    for name in "abc":
        encode(tmp_path / f"{name}.mp4", 2, size=(16, 16))
    metadata_cache.scan_videos(tmp_path, Listener())
    (tmp_path / "a.mp4").unlink()
    encode(tmp_path / "a.mp4", 3, size=(16, 16))
    found = metadata_cache.scan_videos(tmp_path, Listener(), most=1)
    assert [facts.num_frames for facts in found.videos.values()] == [3]
    monkeypatch.setattr(metadata_cache, "_facts", lambda path: pytest.fail(f"{path} was probed again"))
    assert list(metadata_cache.scan_videos(tmp_path, Listener()).videos) == ["a.mp4", "b.mp4", "c.mp4"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("shapes\n differ"), "RuntimeError: shapes differ"),
        (MemoryError(), "out of memory (MemoryError); lower `eval_batch_size`, `eval_resolution` or `eval_num_frames`"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory (CUDA out of memory.); lower `eval_batch_size`"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (VaectlError("clip.mp4: broken", "get it again"), "clip.mp4: broken; get it again"),
    ],
)
def test_the_reason_of_a_failure_is_one_line(error, said):
    assert reason_of(error).startswith(said)
    assert "\n" not in reason_of(error)


def test_a_validation_that_fails_is_reported_and_the_run_continues(videos, tmp_path, held_out, monkeypatch):
    plain = run(videos, tmp_path, max_steps=3, exp_name="plain", ema=True)
    measure, calls = Validation._measure_share, []

    def fail_once(self, *given):
        calls.append(measure(self, *given))
        return calls[-1] if len(calls) != 2 else [][0]  # the first validation, of the averaged weights

    monkeypatch.setattr(Validation, "_measure_share", fail_once)
    listener = Listener()
    given = {"eval_video_path": held_out / "long.mp4", "eval_steps": 2, "save_ckpt_step": 2, "ema": True}
    result = run(videos, tmp_path, listener, max_steps=3, **given)
    assert listener.warnings == ["step 2: the validation failed and is skipped: IndexError: list index out of range"]
    assert list(checkpoints(result.run)) == [2, 3]
    assert [line["step"] for line in lines(result.run, "validation.jsonl")] == [3]
    assert result.best["step"] == 3
    after, before = weights(result.checkpoint), weights(plain.checkpoint)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_picture_that_cannot_be_logged_ends_nothing(videos, tmp_path, held_out, monkeypatch):
    from vaectl.training import run_log

    monkeypatch.setattr(run_log, "write_video", lambda *_, **__: 1 / 0)
    listener = Listener()
    result = run(videos, tmp_path, listener, max_steps=2, eval_video_path=held_out / "long.mp4", eval_steps=1)
    assert "step 1: the validation cannot be logged: ZeroDivisionError" in listener.warnings[0]
    assert result.best is not None


def test_a_clip_that_breaks_later_is_skipped_and_the_option_is_named(videos, tmp_path, held_out, monkeypatch):
    advance = Trainer.advance

    def cut_short(self, batches):
        encode(held_out / "long.mp4", 3)
        return advance(self, batches)

    monkeypatch.setattr(Trainer, "advance", cut_short)
    listener = Listener()
    result = run(videos, tmp_path, listener, max_steps=1, eval_video_path=held_out / "long.mp4")
    assert result.best is None
    skipped, failed = listener.warnings
    assert skipped.startswith(f"validation skips {held_out / 'long.mp4'}: too short: gives 3 of the 5 frames")
    assert skipped.endswith("leave it out of `eval_video_path`")
    assert "step 1: the validation failed and is skipped: no clip of `eval_video_path` could be measured" in failed


SCORES = {2: 20.0, 4: 30.0, 6: 25.0, 8: math.inf, 9: 10.0}
"""The PSNR of each validation, by step. 3, 6 and 9 are saved in any case; 2, 4 and 8 because they are the best."""
GIVEN = {"max_steps": 9, "eval_steps": 2, "save_ckpt_step": 3, "keep": 9, "ema": True}


@pytest.fixture
def scores(monkeypatch) -> None:
    """Let validations measure `SCORES`."""
    trainers, make = [], Trainer.__init__
    monkeypatch.setattr(Trainer, "__init__", lambda self, *given: (trainers.append(self), make(self, *given))[1])
    monkeypatch.setattr(Validation, "measure", lambda *_: ({"psnr": SCORES[trainers[-1].step]}, None))


def facts(folder: Path) -> dict[int, tuple[object, bool]]:
    """Return best and validation_due of each checkpoint."""
    read = {step: json.loads((path / "training.json").read_text()) for step, path in checkpoints(folder).items()}
    return {
        step: (values["best"] and values["best"]["step"], values["validation_due"]) for step, values in read.items()
    }


KILLS = [(2, "measure"), (4, "save"), (6, "measure"), (6, "save"), (8, "link"), (9, "measure")]
"""Steps and places: before the validation, before its checkpoint is written or amended, before the links change."""


def test_kills_around_validations_change_nothing(videos, tmp_path, held_out, scores, monkeypatch):
    given = {"eval_video_path": held_out / "long.mp4", "model_config": str(nano(tmp_path)), **GIVEN}
    whole = run(videos, tmp_path, exp_name="whole", **given)
    best = {2: 2, 3: 2, 4: 4, 6: 4, 8: 8, 9: 8}
    assert facts(whole.run) == {step: (value, False) for step, value in best.items()}
    assert (whole.run / "best").resolve().name == "checkpoint-00000008"
    assert whole.as_json()["best"] == {"step": 8, "psnr": "inf", "ema_psnr": "inf"}
    part = whole.run.with_name("part")
    for step, place in KILLS:
        with monkeypatch.context() as patch:
            kill_at(patch, step, place)
            with pytest.raises(SystemExit):
                run(videos, tmp_path, exp_name="part", resume_from_checkpoint="latest", **given)
    result = run(videos, tmp_path, exp_name="part", resume_from_checkpoint="latest", **given)
    for name in ("metrics.jsonl", "validation.jsonl"):
        assert (part / name).read_bytes() == (whole.run / name).read_bytes()
    assert facts(part) == facts(whole.run)
    assert result.best == whole.best
    for name in ("latest", "best"):
        assert (part / name).resolve().name == (whole.run / name).resolve().name
    after, before = weights(part / "latest"), weights(whole.run / "latest")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def kill_at(patch: pytest.MonkeyPatch, step: int, place: str) -> None:
    """End the run at a step: in the validation, or afterwards when it saves or links."""
    validate = Run.validate

    def dying(self):
        def die(*_, **__):
            raise SystemExit

        if self.trainer.step == step:
            patch.setattr(
                *{"measure": (Validation, "measure"), "save": (Run, "save"), "link": (Run, "link")}[place], die
            )
        validate(self)

    patch.setattr(Run, "validate", dying)


def test_a_run_that_is_stopped_validates_when_it_is_resumed(videos, tmp_path, held_out, scores, monkeypatch):
    given = {"eval_video_path": held_out / "long.mp4", **GIVEN}
    advance = Trainer.advance

    def stopped(self, batches):
        if self.step == 3:
            signal.raise_signal(signal.SIGINT)
        return advance(self, batches)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "advance", stopped)
            with pytest.raises(KeyboardInterrupt):
                run(videos, tmp_path, **given)
    finally:
        signal.signal(signal.SIGINT, before)
    folder = tmp_path / "results" / "vae"
    assert [line["step"] for line in lines(folder, "validation.jsonl")] == [2]
    assert facts(folder)[4] == (2, True)
    run(videos, tmp_path, resume_from_checkpoint="latest")
    assert [line["step"] for line in lines(folder, "validation.jsonl")] == list(SCORES)
    assert facts(folder)[4] == (4, False)


def test_a_resumed_run_that_lacks_only_its_last_validation_makes_it(videos, tmp_path, held_out, scores, monkeypatch):
    given = {"eval_video_path": held_out / "long.mp4", **GIVEN}
    with monkeypatch.context() as patch:
        kill_at(patch, 9, "measure")
        with pytest.raises(SystemExit):
            run(videos, tmp_path, **given)
    monkeypatch.setattr(Trainer, "advance", lambda *_: pytest.fail("a step was trained"))
    result = run(videos, tmp_path, resume_from_checkpoint="latest")
    assert [line["step"] for line in lines(result.run, "validation.jsonl")] == list(SCORES)
    assert (result.step, result.loss) == (9, None)
