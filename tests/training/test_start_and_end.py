"""What a run says and leaves: its outline, the names of its numbers, a run that is done, a start that fails."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from tests.jobs import Listener, files
from tests.training.runs import lines, nano, options, run
from tests.video.media import numbered_images
from vaectl.cli.app import main
from vaectl.errors import UsageError, VaectlError
from vaectl.metrics import lpips
from vaectl.training import job, run_dir
from vaectl.training.trainer import Trainer

ADVERSARIAL = {"disc_weight": 0.5, "disc_start": 2, "resolution": 32, "batch_size": 1, "log_steps": 2}


def test_losses_and_norms_of_generator_and_discriminator_have_their_own_names(videos, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    listener = Listener()
    result = run(videos, tmp_path, listener, max_steps=6, **ADVERSARIAL)
    written = lines(result.run)
    mine = [
        {"loss", "grad_norm", "rec", "disc_loss", "disc_grad_norm", "real_logits"} & line.keys() for line in written
    ]
    assert mine[:3] == [{"loss", "grad_norm", "rec"}] * 3
    assert mine[3] == mine[5] == {"disc_loss", "disc_grad_norm", "real_logits"}
    assert result.loss == written[4]["loss"]
    assert result.as_json()["loss"] == written[4]["loss"]
    shown = listener.states[-1]
    assert shown.startswith(f"loss {written[4]['loss']:.4g} disc_loss {written[5]['disc_loss']:.4g} rec ")
    board = EventAccumulator(str(result.run / "tensorboard"))
    board.Reload()
    steps = {name: [event.step for event in board.Scalars(f"train/{name}")] for name in ("loss", "disc_loss", "lr")}
    assert steps == {"loss": [1, 2, 3, 5], "disc_loss": [4, 6], "lr": [1, 2, 3, 4, 5, 6]}


def test_the_loss_of_a_result_is_finite_even_if_the_last_step_is_not(videos, tmp_path, monkeypatch):
    advance = Trainer.advance

    def spoilt(self, batches):
        values = advance(self, batches)
        return values | {"loss": math.nan} if self.step == 2 else values

    monkeypatch.setattr(Trainer, "advance", spoilt)
    result = run(videos, tmp_path, max_steps=2)
    assert result.loss == lines(result.run)[0]["loss"]


def test_a_run_says_what_it_is_about_to_do_in_60_columns(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listener = Listener()
    given = {"ckpt_dir": "results", "eval_video_path": videos / "a.mp4", "gradient_accumulation_steps": 2}
    run(videos, tmp_path, listener, max_steps=6, **given)
    assert listener.rows == {
        "run": "results/vae (new)",
        "clips": "3 videos, 1.9 s",
        "model": "WFVAEModel, 0.133M parameters, new",
        "device": "cpu, 1 thread, float32",
        "batch": "4 clips (2 x 1 rank x 2 accumulated)",
        "frames": "5 of 16x16 pixels",
        "steps": "6 (8.0 epochs of 3 clips)",
        "validation": "every 1000 steps: 1 clip, 5x16x16",
        "checkpoints": "every 1000 steps; last 3 and the best",
    }
    (pace,) = [note for note in listener.notes if "s per step" in note]
    assert pace.endswith("for 6 steps, plus validation")
    listener = Listener()
    more = {"save_ckpt_minutes": 10, "accept_changes": True}
    run(videos, tmp_path, listener, resume_from_checkpoint="latest", max_steps=7, **more)
    assert listener.rows["run"].endswith("vae (resumed at step 6)")
    assert listener.rows["model"].endswith(", resumed")
    assert listener.rows["checkpoints"].endswith("steps or 10 min; last 3 and the best")
    assert all(len(value) <= 60 - len("checkpoints  ") for name, value in listener.rows.items() if name != "run")


def test_images_have_no_length(tmp_path):
    folder = numbered_images(tmp_path / "images" / "a%d.png", range(3)).parent
    listener = Listener()
    run(folder, tmp_path, listener, max_steps=1, num_frames=1)
    assert listener.rows["clips"] == "3 images"


def test_frames_that_are_too_small_for_the_perceptual_loss_are_refused_before_the_first_step(videos, tmp_path):
    listener = Listener()
    for given in ({"resolution": 24}, {"resolution": 32, "crop_size": 24}):
        named = "`crop_size=24`" if "crop_size" in given else "`resolution=24`"
        with pytest.raises(UsageError, match=f"{named}: LPIPS with `lpips_net=alex` needs at least 31 pixels; use 32"):
            run(videos, tmp_path, listener, max_steps=1, perceptual_weight=1, lpips_net="alex", **given)
    assert listener.rows == {}


@pytest.mark.parametrize(("given", "limit"), [({"max_steps": 2}, "`max_steps`"), ({"epochs": 1}, "`epochs`")])
def test_a_resumed_run_that_is_done_says_so_and_changes_nothing(videos, tmp_path, monkeypatch, given, limit):
    first = run(videos, tmp_path, **given)
    before = files(first.run)
    monkeypatch.setattr(Trainer, "advance", lambda *_: pytest.fail("a step was trained"))
    for name in ("vae", "other"):
        listener = Listener()
        result = run(videos, tmp_path, listener, resume_from_checkpoint=str(first.run), exp_name=name)
        (done,) = [note for note in listener.notes if "is done" in note]
        assert done.endswith(f"is done at step {first.step}; to train longer, resume with a higher {limit}")
        assert (result.step, result.loss, result.checkpoint.resolve()) == (first.step, None, first.checkpoint.resolve())
    assert files(first.run) == before
    assert not first.run.with_name("other").exists()


def test_the_command_shows_an_outline_a_result_and_the_next_commands(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(videos, "my clips")
    shutil.copytree(videos, "held-out")
    given = options(Path("my clips"), tmp_path, ckpt_dir="results", eval_video_path="held-out", max_steps=2)
    keep = ("num_frames", "resolution", "sample_rate", "perceptual_weight", "disc_weight", "device")
    evaluation = ("eval_num_frames", "eval_resolution", "eval_video_path", "ckpt_dir", "model_config", "max_steps")
    arguments = [f"--{name}={getattr(given, name)}" for name in (*keep, *evaluation)]
    command = ["train", "--video-path", "my clips", "--num-workers=0", "--no-eval-lpips", *arguments]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out.startswith("checkpoint  results/vae/checkpoint-00000002\nstep        2, loss ")
    assert out[out.index("next:") :].splitlines() == [
        "next:",
        "  vaectl reconstruct --video-path held-out/a.mp4 --rec-path results/vae/reconstructed-a.mp4"
        " --model results/vae/best",
        "  vaectl eval --real-video-dir held-out --num-frames 5 --resolution 16 --metric psnr,ssim"
        " --model results/vae/best",
        "  tensorboard --logdir results/vae/tensorboard",
    ]
    assert err.splitlines()[0] == "run          results/vae (new)"
    assert err.splitlines()[8].startswith("checkpoints  every 1000 steps")
    assert main(["train", "--resume-from-checkpoint", "results/vae", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["loss"] is None
    assert out.count("\n") == 1
    assert "is done at step 2; to train longer, resume with a higher --max-steps" in err
    assert main(["train", "--resume-from-checkpoint", "results/vae", "--eval-video-path", "held-out/b.mp4"]) == 0
    out, _ = capsys.readouterr()
    assert "step        2, no steps left\n" in out
    assert "nan" not in out
    assert "time" not in out


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("no kernel")


@pytest.mark.parametrize(
    ("given", "place", "error"),
    [
        ({"num_frames": 6}, None, VaectlError),
        ({"video_path": "empty"}, None, VaectlError),
        ({"model_config": "nowhere.json"}, None, VaectlError),
        ({"eval_video_path": "empty"}, None, VaectlError),
        ({"resume_from_checkpoint": "nowhere"}, None, VaectlError),
        ({}, (job, "data_of", interrupt), KeyboardInterrupt),
        ({}, (job, "RunLog", fail), RuntimeError),
        ({}, (Trainer, "advance", fail), RuntimeError),
        ({}, (Trainer, "advance", interrupt), KeyboardInterrupt),
    ],
)
def test_a_start_that_fails_leaves_no_folder(videos, tmp_path, monkeypatch, given, place, error):
    """Neither that of the run nor those above it; but one that was there stays."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    if place:
        monkeypatch.setattr(*place)
    common = {"max_steps": 1, "model_config": str(nano(tmp_path)), **given}
    sources = common.pop("video_path", videos)
    with pytest.raises(error):
        run(sources, tmp_path, ckpt_dir="deep/results", **common)
    assert not (tmp_path / "deep").exists()
    (tmp_path / "there" / "vae").mkdir(parents=True)
    with pytest.raises(error):
        run(sources, tmp_path, ckpt_dir="there", **common)
    assert (tmp_path / "there" / "vae").is_dir()


def test_a_failed_start_leaves_the_other_runs_and_a_failed_run_stays(videos, tmp_path, monkeypatch):
    run(videos, tmp_path, max_steps=1)
    with pytest.raises(VaectlError):
        run(videos, tmp_path, max_steps=1, num_frames=6, exp_name="wrong")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["vae"]
    advance = Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda self, batches: advance(self, batches) if self.step < 1 else fail())
    with pytest.raises(RuntimeError):
        run(videos, tmp_path, max_steps=3, exp_name="late")
    assert run_dir.has_begun(tmp_path / "results" / "late")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"perceptual_weight": 0.1, "lpips_net": "vgg"},
            "cannot be fetched .*, or use `lpips_net=alex`, which needs no",
        ),
        ({"load_disc_from_checkpoint": "nowhere", "disc_weight": 0.5}, "nowhere: no such file"),
    ],
)
def test_a_network_of_the_losses_that_is_missing_ends_a_run_before_its_plan(
    videos, tmp_path, monkeypatch, given, message
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    name, _, *others = lpips.VGG16
    monkeypatch.setattr(lpips, "VGG16", (name, f"http://localhost:9/{name}", *others))
    listener = Listener()
    with pytest.raises(VaectlError, match=message):
        run(videos, tmp_path, listener, max_steps=1, **given)
    assert listener.rows == {}
    assert not (tmp_path / "results").exists()
