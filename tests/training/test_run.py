"""A training run from options to files: what it writes, what it reports, what others can load."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.jobs import Listener
from tests.models.reference import CASES, load_reference
from tests.training.runs import NANO, lines, names, nano, options, run, weights
from vaectl.errors import UsageError, VaectlError
from vaectl.models import load_model
from vaectl.training import run_log as log_module
from vaectl.training.job import train
from vaectl.training.trainer import Trainer
from vaectl.video import read_video


def test_a_run_leaves_checkpoints_journals_and_pictures(videos, tmp_path):
    listener = Listener()
    result = run(
        videos, tmp_path, listener, max_steps=8, save_ckpt_step=2, keep=2, eval_steps=4, eval_video_path=videos
    )
    assert names(result.run) == {
        *("checkpoint-00000006", "checkpoint-00000008", "latest", "best"),
        *("options.json", "metrics.jsonl", "validation.jsonl", "tensorboard", "samples"),
    } | ({"checkpoint-00000004"} if result.best["step"] == 4 else set())
    assert (result.run / "latest").resolve() == result.checkpoint.resolve()
    assert (result.run / "best").resolve().name == f"checkpoint-{result.best['step']:08d}"
    assert [line["step"] for line in lines(result.run)] == list(range(1, 9))
    assert {"loss", "rec", "nll", "kl", "wavelet", "grad_norm", "lr"} <= lines(result.run)[0].keys()
    assert [line["step"] for line in lines(result.run, "validation.jsonl")] == [4, 8]
    pictures = sorted((result.run / "samples").iterdir())
    assert [path.name for path in pictures] == ["step-00000004.png", "step-00000008.png"]
    assert read_video(pictures[0]).frames.shape == (1, 3, 2 * 3 * 16, 4 * 16)
    assert json.loads((result.run / "options.json").read_text())["max_steps"] == 8
    assert result.step == 8
    assert listener.clips[-1] == ("vae", 8, 8)
    (warning,) = listener.warnings
    assert "3 of 3 validation clips (`eval_video_path`) are also trained on" in warning


@pytest.mark.parametrize("wanted", [True, False])
def test_algorithms_are_deterministic_where_that_is_asked_for(videos, tmp_path, monkeypatch, wanted):
    seen, advance = [], Trainer.advance

    def watched(self, batches):
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return advance(self, batches)

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(Trainer, "advance", watched)
    run(videos, tmp_path, max_steps=1, deterministic=wanted)
    assert seen == [(wanted, ":4096:8" if wanted else None)]
    assert not torch.are_deterministic_algorithms_enabled()


def test_no_file_of_a_checkpoint_would_be_taken_for_a_published_one(videos, tmp_path):
    result = run(videos, tmp_path, max_steps=1)
    assert not list(result.run.rglob("*.ckpt"))


def test_a_checkpoint_is_a_model_with_the_averaged_weights_and_says_so(videos, tmp_path):
    result = run(videos, tmp_path, max_steps=3, ema=True, ema_decay=0.5)
    model = load_model(result.checkpoint, device="cpu")
    shown, state = model.state_dict(), torch.load(result.checkpoint / "training_state.pt", weights_only=True)
    trained = state["model"]
    assert any(not torch.equal(shown[name], trained[name]) for name in shown)
    assert '"_weights": "ema"' in (result.checkpoint / "config.json").read_text()
    assert model.reconstruct(torch.zeros(1, 3, 5, 16, 16)).isfinite().all()


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_has_the_names_shapes_and_config_of_the_original_code(videos, tmp_path, case):
    """All families, with and without whole-clip layers: what is trained is what the original loads."""
    reference = load_reference(case)
    (tmp_path / "config.json").write_text(json.dumps(reference.config))
    frames = 9 if "8x8x8" in case else 5
    given = {"model_config": str(tmp_path / "config.json"), "num_frames": frames, "batch_size": 1, "resolution": 32}
    if not case.startswith("wfvae"):
        name = reference.config["_class_name"]
        with pytest.raises(UsageError, match=rf"`wavelet_loss`: an? {name} has no wavelets; leave it out"):
            run(videos, tmp_path, max_steps=1, wavelet_loss=True, **given)
        given["wavelet_loss"] = False
    result = run(videos, tmp_path, max_steps=1, **given)
    assert {name: list(tensor.shape) for name, tensor in weights(result.checkpoint).items()} == reference.shapes
    written = json.loads((result.checkpoint / "config.json").read_text())
    assert {key: written[key] for key in reference.config} == reference.config


def test_the_average_follows_its_formula(videos, tmp_path):
    """With its warm-up: (1 + 2) / (10 + 2) at the second step."""
    steps = [run(videos, tmp_path, max_steps=n, ema=True, ema_decay=0.8, exp_name=f"n{n}") for n in (1, 2)]
    states = [torch.load(result.checkpoint / "training_state.pt", weights_only=True)["model"] for result in steps]
    before, after = (weights(result.checkpoint) for result in steps)
    for name in ("encoder.conv_out.conv.weight", "decoder.conv_out.bias"):
        torch.testing.assert_close(after[name], 0.25 * before[name] + 0.75 * states[1][name])


def test_learning_lowers_the_loss(videos, tmp_path):
    losses = [line["loss"] for line in lines(run(videos, tmp_path, max_steps=60).run)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_a_run_can_be_repeated_bit_for_bit_with_any_number_of_workers(videos, tmp_path):
    first, second = (run(videos, tmp_path, max_steps=3, exp_name=f"w{n}", num_workers=n) for n in (0, 2))
    assert (first.run / "metrics.jsonl").read_bytes() == (second.run / "metrics.jsonl").read_bytes()
    (first_file, second_file) = (r.checkpoint / "diffusion_pytorch_model.safetensors" for r in (first, second))
    assert first_file.read_bytes() == second_file.read_bytes()


def test_another_seed_gives_another_run(videos, tmp_path):
    first, second = (lines(run(videos, tmp_path, max_steps=1, exp_name=f"s{n}", seed=n).run) for n in (1, 2))
    assert first != second


def test_a_frozen_encoder_stays_as_it_is(videos, tmp_path):
    begun = run(videos, tmp_path, max_steps=1, exp_name="a")
    result = run(videos, tmp_path, max_steps=2, freeze_encoder=True, model=str(begun.checkpoint))
    before, after = weights(begun.checkpoint), weights(result.checkpoint)
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}


def test_the_adversarial_term_comes_in_turns_from_its_first_step_on(videos, tmp_path):
    result = run(videos, tmp_path, max_steps=6, disc_weight=0.5, disc_start=2, resolution=32, batch_size=1)
    kinds = [line["kind"] for line in lines(result.run)]
    assert kinds == ["generator", "generator", "generator", "discriminator", "generator", "discriminator"]
    has_term = ["adaptive_weight" in line for line in lines(result.run)]
    assert has_term == [False, False, True, False, True, False]


def test_lpips_is_part_of_the_objective(videos, tmp_path):
    result = run(videos, tmp_path, max_steps=1, perceptual_weight=1.0, lpips_net="alex", resolution=64)
    assert lines(result.run)[0]["perceptual"] > 0


def test_batches_that_are_accumulated_learn_as_one(videos, tmp_path):
    """Equal but for the order of sums, after two steps: the losses, and the means of the gradients that AdamW keeps.

    The weights would not do: AdamW scales a gradient that is nothing but rounding up to a whole step.
    """
    whole = run(videos, tmp_path, max_steps=2, batch_size=4, exp_name="whole")
    parts = run(videos, tmp_path, max_steps=2, batch_size=1, gradient_accumulation_steps=4, exp_name="parts")
    for a, b in zip(lines(whole.run), lines(parts.run), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    means, others = (mean_gradients(result.checkpoint) for result in (whole, parts))
    rounding = 1e-8 * max(mean.norm() for mean in means)
    assert len(means) > 100
    for mean, other in zip(means, others, strict=True):
        assert (mean - other).norm() < 1e-4 * mean.norm() + rounding


def mean_gradients(checkpoint: Path) -> list[torch.Tensor]:
    state = torch.load(checkpoint / "training_state.pt", weights_only=True)["generator_optimizer"]["state"]
    return [state[k]["exp_avg"] for k in sorted(state)]


def test_recomputed_activations_change_nothing(videos, tmp_path):
    plain, again = (run(videos, tmp_path, max_steps=2, exp_name=f"g{n}", gradient_checkpointing=n) for n in (0, 1))
    assert lines(plain.run) == lines(again.run)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains(videos, tmp_path, precision):
    full = lines(run(videos, tmp_path, max_steps=2, exp_name="full").run)
    half = lines(run(videos, tmp_path, max_steps=2, mix_precision=precision).run)
    assert half[0]["loss"] == pytest.approx(full[0]["loss"], rel=0.02)
    assert half[0]["loss"] != full[0]["loss"], "nothing was computed in half precision"


def test_tensorboard_has_what_the_journal_has(videos, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(videos, tmp_path, max_steps=3, eval_steps=3, eval_video_path=videos)
    board = EventAccumulator(str(result.run / "tensorboard"))
    board.Reload()
    losses = [event.value for event in board.Scalars("train/loss")]
    assert losses == pytest.approx([line["loss"] for line in lines(result.run)], rel=1e-6)
    assert board.Scalars("validation/psnr")[0].value == pytest.approx(result.best["psnr"], rel=1e-6)
    assert [event.step for event in board.Images("samples")] == [3]


def test_validation_measures_what_eval_measures(videos, tmp_path):
    from vaectl.metrics.psnr import mean_psnr, mean_squared_errors
    from vaectl.video.clip import to_frames, to_video
    from vaectl.video.transform import scale_and_crop

    result = run(videos, tmp_path, max_steps=1, eval_video_path=videos / "a.mp4", eval_batch_size=3)
    model = load_model(result.checkpoint, device="cpu")
    frames = scale_and_crop(read_video(videos / "a.mp4", num_frames=5).frames, 16, 16)
    back = to_frames(model.reconstruct(to_video(frames)))
    assert result.best["psnr"] == pytest.approx(mean_psnr(mean_squared_errors(frames, back)), abs=1e-4)


def test_a_clip_that_cannot_be_validated_is_left_out_and_named(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "eval")
    (tmp_path / "eval" / "broken.mp4").write_bytes(b"no video")
    listener = Listener()
    result = run(videos, tmp_path, listener, max_steps=1, eval_video_path=tmp_path / "eval")
    assert result.best["psnr"] > 0
    assert len(listener.warnings) == 1
    assert "broken.mp4" in listener.warnings[0]


def test_a_step_that_is_not_finite_teaches_nothing_and_ten_end_the_run(videos, tmp_path, monkeypatch):
    from vaectl.training.losses import Objective

    true_loss = Objective.generator_loss
    calls = iter(range(100))

    def sometimes_nan(self, *args, **kwargs):
        total, parts = true_loss(self, *args, **kwargs)
        return (total * math.nan if next(calls) >= 2 else total), parts

    monkeypatch.setattr(Objective, "generator_loss", sometimes_nan)
    listener = Listener()
    with pytest.raises(VaectlError, match=r"step 12: .* 10 times in a row"):
        run(videos, tmp_path, listener, max_steps=50, save_ckpt_step=1)
    written = lines(tmp_path / "results" / "vae")
    assert [line["skipped"] for line in written] == [False] * 2 + [True] * 10
    assert written[-1]["loss"] is None
    assert len(listener.warnings) == 10
    after = [weights(tmp_path / "results" / "vae" / f"checkpoint-000000{step:02d}") for step in (9, 11)]
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])
    assert all(tensor.isfinite().all() for tensor in after[1].values())


def test_a_run_keeps_weights_that_are_not_finite(videos, tmp_path, monkeypatch):
    """Unlike `save_model`. A run that diverged leaves its state."""
    advance = Trainer.advance

    def diverges(self, batches):
        values = advance(self, batches)
        next(self.model.parameters()).data.fill_(math.nan)
        return values

    monkeypatch.setattr(Trainer, "advance", diverges)
    checkpoint = run(videos, tmp_path, max_steps=1).checkpoint
    assert any(tensor.isnan().any() for tensor in weights(checkpoint).values())
    with pytest.raises(VaectlError, match="NaN or infinite values in 1 tensor"):
        load_model(checkpoint)


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on(videos, tmp_path, monkeypatch):
    from vaectl.training import job

    true_write = job.write_checkpoint

    def full_at_4(run, step, write_model, state, facts):
        def write_and_fail(place):
            write_model(place)
            raise OSError(28, "No space left on device")

        return true_write(run, step, write_and_fail if step == 4 else write_model, state, facts)

    monkeypatch.setattr(job, "write_checkpoint", full_at_4)
    listener = Listener()
    result = run(videos, tmp_path, listener, max_steps=6, save_ckpt_step=2)
    assert [w for w in listener.warnings if "checkpoint-00000004: not written (No space left" in w]
    assert names(result.run) >= {"checkpoint-00000002", "checkpoint-00000006"}
    assert not [path for path in result.run.iterdir() if "unfinished" in path.name]


def test_a_journal_whose_disk_is_full_waits_for_room(tmp_path, monkeypatch):
    journal = log_module.Lines(tmp_path / "lines.jsonl", 0)
    assert journal.add({"step": 1}) is None
    (tmp_path / "lines.jsonl").rename(tmp_path / "away")
    (tmp_path / "lines.jsonl").mkdir()
    assert "its lines wait" in journal.add({"step": 2})
    assert journal.add({"step": 3}) is None, "said once"
    (tmp_path / "lines.jsonl").rmdir()
    (tmp_path / "away").rename(tmp_path / "lines.jsonl")
    journal.add({"step": 4})
    assert [line["step"] for line in lines(tmp_path, "lines.jsonl")] == [1, 2, 3, 4]


def test_steps_follow_from_epochs_and_the_size_of_the_data(videos, tmp_path):
    assert run(videos, tmp_path, epochs=4, batch_size=2).step == 4 * 3 // 2
    assert run(videos, tmp_path, epochs=4, max_steps=2, exp_name="b").step == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_frames": 6}, "`num_frames` must be 1 .* 4n .* not 6; use 5"),
        ({"resolution": 100, "crop_size": 20}, "`crop_size` must be a multiple of 8 for this model, not 20; use 16|24"),
        ({"resolution": 64, "crop_size": 72}, "`crop_size=72` does not fit into a `resolution` of 64"),
        ({"resolution": 20}, "`resolution` must be a multiple of 8 for this model, not 20; use 16|24"),
        ({"model_name": "CausalVAE"}, "`model_name=CausalVAE`: the config is of a WFVAEModel"),
        ({"disc_cls": "Other"}, "`disc_cls=Other`"),
        ({"video_weight": ["1", "2"]}, "`video_weight` is given 2 times, `video_path` 1 times"),
        ({"exp_name": "a/b"}, "`exp_name` must be a name"),
        ({"recipe": "tinny"}, "tiny"),
        ({"num_frames": 41}, "shorter than"),
        ({"video_path": "empty"}, "no videos"),
        ({"video_path": "broken"}, "1 of 1 videos cannot be read"),
        ({"load_disc_from_checkpoint": "nano.json", "disc_weight": 0.5}, "nano.json: cannot be read"),
        ({"model_config": None}, "what to train is missing"),
        ({"model_config": "some/vae"}, "some/vae: no such file or directory, and the cache of Hugging Face lacks it"),
        ({"model_config": "wide.json"}, r"wide\.json: out of memory: .* take \d+\.\d+ GiB"),
        ({"resume_from_checkpoint": "nowhere"}, "nowhere: no such checkpoint"),
    ],
)
def test_a_request_that_cannot_work_is_one_line(videos, tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    nano(tmp_path)
    (tmp_path / "wide.json").write_text(json.dumps({**NANO, "base_channels": 8192}))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.mp4").write_bytes(b"no video")
    given = {"model_config": "nano.json", "max_steps": 1, **given}
    if given.get("resume_from_checkpoint") or given["model_config"] is None:
        given["model"] = None
    with pytest.raises(VaectlError, match=message) as error:
        run(given.pop("video_path", videos), tmp_path, **given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "results").exists()


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_read(videos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write there"):
        run(videos, tmp_path, ckpt_dir=str(tmp_path / "file"), max_steps=1)


def test_two_runs_do_not_share_a_folder(videos, tmp_path):
    from vaectl.training.run_dir import claimed

    with claimed(tmp_path / "results" / "vae"), pytest.raises(UsageError, match="another process is at work there"):
        run(videos, tmp_path, max_steps=1)
    run(videos, tmp_path, max_steps=1)
    with pytest.raises(UsageError, match="already contains a run; continue it with `resume_from_checkpoint=latest`"):
        run(videos, tmp_path, max_steps=1)


def test_the_published_command_line_is_understood(videos, tmp_path):
    from typer.testing import CliRunner

    from vaectl.cli.app import app

    line = """train --num_frames 5 --resolution 32 --batch_size 1 --lr 0.00001 --epochs 4 --disc_start 0
        --save_ckpt_step 2000 --eval_steps 500 --eval_batch_size 1 --eval_num_frames 5 --eval_sample_rate 1
        --eval_subset_size 2 --eval_lpips --ema --ema_decay 0.999 --perceptual_weight 0.0 --loss_type l1 --sample_rate 1
        --disc_cls causalvideovae.model.losses.LPIPSWithDiscriminator3D --wavelet_loss --wavelet_weight 0.1
        --kl_weight 1e-6 --logvar_init 0 --disc_weight 0.5 --mix_precision fp32 --find_unused_parameters
        --dataset_num_worker 0 --log_steps 1 --seed 1234 --weight_decay 1e-4 --clip_grad_norm 1.0 --enable_tiling
        --not_resume_optimizer --not_resume_discriminator --not_resume_training_process --eval_num_video_log 1
        --eval_resolution 64 --ignore_mismatched_sizes --dynamic_sample --exp_name WFVAE --model_name WFVAE
        --max_steps 2"""
    paths = ["--video_path", videos, "--eval_video_path", videos, "--model_config", nano(tmp_path)]
    ran = CliRunner().invoke(app, [*line.split(), *map(str, paths), "--ckpt_dir", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert "step        2" in ran.stdout
    assert (tmp_path / "out" / "WFVAE" / "checkpoint-00000002").is_dir()


def test_options_may_come_from_a_recipe_and_the_command_line_wins(videos, tmp_path):
    chosen = options(videos, tmp_path, recipe="tiny", lr="1e-4")
    assert chosen.ema is True
    assert chosen.lr == 1e-4
    assert chosen.ema_decay == 0.995


def test_a_job_from_python_needs_no_command_line(videos, tmp_path):
    assert train(options(videos, tmp_path, max_steps=1), Listener()).step == 1
