"""The best checkpoint: it is on the disk, its link leads to it, and it is compared only with its equals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.jobs import Listener
from tests.training.runs import names, run
from vaectl.errors import VaectlError
from vaectl.training import checkpoint, job, run_dir
from vaectl.training.run_dir import checkpoints
from vaectl.training.trainer import Trainer
from vaectl.training.validation import Validation


@pytest.fixture
def psnr(monkeypatch) -> dict[int, float]:
    """Let validations measure these numbers, by step."""
    values: dict[int, float] = {}
    trainers, make = [], Trainer.__init__
    monkeypatch.setattr(Trainer, "__init__", lambda self, *given: (trainers.append(self), make(self, *given))[1])
    monkeypatch.setattr(Validation, "measure", lambda *_: ({"psnr": values[trainers[-1].step]}, None))
    return values


@pytest.fixture
def given(videos) -> dict[str, object]:
    return {"eval_video_path": str(videos / "a.mp4"), "eval_steps": 1, "save_ckpt_step": 9, "keep": 1, "max_steps": 4}


def best_of(folder: Path) -> tuple[str, int]:
    """Return the target of `best`, and the best step in the facts of the last checkpoint."""
    facts = json.loads((folder / "latest" / "training.json").read_text())
    return (folder / "best").resolve(strict=True).name, facts["best"]["step"]


@pytest.mark.parametrize(("due", "place"), [(9, "write_checkpoint"), (1, "amend_facts")])
def test_a_best_checkpoint_that_cannot_be_written_is_not_the_best(
    videos, tmp_path, psnr, given, monkeypatch, due, place
):
    psnr |= {1: 20.0, 2: 30.0, 3: 10.0, 4: 15.0}
    write = getattr(checkpoint, place)

    def full(run, step, *more):
        if "2" in f"{step if place == 'write_checkpoint' else run.name}":
            raise VaectlError("no space left")
        return write(run, step, *more)

    monkeypatch.setattr(job, place, full)
    listener = Listener()
    result = run(videos, tmp_path, listener, **given | {"save_ckpt_step": due})
    assert listener.warnings[1:] == ["no space left; earlier checkpoints are kept"]
    assert list(checkpoints(result.run)) == [1, 4]
    assert best_of(result.run) == ("checkpoint-00000001", 1)
    assert result.best == {"step": 1, "psnr": 20.0}


def test_a_finished_run_that_was_killed_before_its_links_is_repaired(videos, tmp_path, psnr, given, monkeypatch):
    psnr |= {1: 10.0, 2: 20.0, 3: 15.0, 4: 30.0}
    whole = run(videos, tmp_path, exp_name="whole", **given)
    part = whole.run.with_name("vae")

    def killed(folder, best, link=run_dir.link):
        if 4 in checkpoints(folder) and best == 4:
            raise SystemExit
        link(folder, best)

    with monkeypatch.context() as patch:
        patch.setattr(run_dir, "link", killed)
        with pytest.raises(SystemExit):
            run(videos, tmp_path, **given)
    assert list(checkpoints(part)) == [2, 4]
    result = run(videos, tmp_path, resume_from_checkpoint="latest")
    assert (result.step, result.loss) == (4, None)
    assert names(part) == names(whole.run)
    assert best_of(part) == best_of(whole.run) == ("checkpoint-00000004", 4)


def test_tensorboard_shows_a_validation_that_is_repeated_once(videos, tmp_path, psnr, given, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    psnr |= {1: 10.0, 2: 20.0, 3: 15.0}
    amend = job.amend_facts

    def killed(folder, changes):
        if folder.name.endswith("2"):
            raise SystemExit
        amend(folder, changes)

    given |= {"max_steps": 3, "save_ckpt_step": 1}
    with monkeypatch.context() as patch:
        patch.setattr(job, "amend_facts", killed)
        with pytest.raises(SystemExit):
            run(videos, tmp_path, **given)
    result = run(videos, tmp_path, resume_from_checkpoint="latest")
    board = EventAccumulator(str(result.run / "tensorboard"))
    board.Reload()
    for name in ("validation/psnr", "train/loss", "train/lr"):
        assert [event.step for event in board.Scalars(name)] == [1, 2, 3]


def test_latest_of_a_run_means_its_last_checkpoint_even_without_the_link(videos, tmp_path):
    first = run(videos, tmp_path, max_steps=1)
    (first.run / "latest").unlink()
    assert run(videos, tmp_path, resume_from_checkpoint=str(first.run / "latest"), max_steps=2).step == 2


@pytest.mark.parametrize("change", ["eval_num_frames", "eval_resolution", "eval_sample_rate", "subset", "run", "clips"])
def test_a_validation_of_something_else_is_not_compared(videos, tmp_path, psnr, given, change):
    psnr |= {1: 30.0, 2: 20.0, 3: 10.0}
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in "ab":
        shutil.copy(videos / "a.mp4", clips / f"{name}.mp4")
    run(videos, tmp_path, **given | {"max_steps": 1, "eval_video_path": str(clips)})
    more = {
        "eval_num_frames": {"eval_num_frames": 1},
        "eval_resolution": {"eval_resolution": 32},
        "eval_sample_rate": {"eval_sample_rate": 2},
        "subset": {"eval_subset_size": 1},
        "run": {"exp_name": "other"},
        "clips": {},
    }[change]
    if change == "clips":
        (clips / "b.mp4").unlink()
    listener = Listener()
    wish = str(tmp_path / "results" / "vae" / "latest")
    result = run(videos, tmp_path, listener, resume_from_checkpoint=wish, max_steps=3, **more)
    assert best_of(result.run) == ("checkpoint-00000002", 2)
    why = f"has no checkpoint in {result.run}" if change == "run" else "was of other clips, frames or sizes"
    said = f"the best validation so far, at step 1, {why}; the next one is the best"
    assert said in listener.notes


def test_the_link_is_gone_until_there_is_another_best(videos, tmp_path, psnr, given, monkeypatch):
    psnr |= {1: 30.0, 3: 10.0}
    first = run(videos, tmp_path, **given | {"max_steps": 1})
    linked = []
    advance = Trainer.advance
    monkeypatch.setattr(
        Trainer, "advance", lambda *some: linked.append((first.run / "best").is_symlink()) or advance(*some)
    )
    again = {"resume_from_checkpoint": "latest", "max_steps": 3, "eval_steps": 3}
    run(videos, tmp_path, eval_resolution=32, **again)
    assert linked == [False, False]
    assert best_of(first.run) == ("checkpoint-00000003", 3)


def test_the_best_stays_with_the_same_validation(videos, tmp_path, psnr, given):
    psnr |= {1: 30.0, 2: 20.0}
    run(videos, tmp_path, **given | {"max_steps": 1})
    copy = shutil.copy(videos / "a.mp4", tmp_path / "a.mp4")
    more = {"eval_video_path": str(copy), "eval_batch_size": 1, "eval_num_video_log": 0}
    result = run(videos, tmp_path, resume_from_checkpoint="latest", max_steps=2, **more)
    assert best_of(result.run) == ("checkpoint-00000001", 1)
