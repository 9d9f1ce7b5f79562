"""`vaectl train` on the command line: help that is true, options beneath options, what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.video.media import animation, numbered_images
from vaectl.cli.derive import resolve
from vaectl.cli.spelling import spell_options
from vaectl.cli.train import next_commands, show, underlying
from vaectl.errors import UsageError
from vaectl.options.train import TrainOptions
from vaectl.training.job import TrainResult

ROOT = Path(__file__).parents[2]


def test_the_command_line_goes_before_a_file_and_that_before_a_recipe(tmp_path):
    (tmp_path / "run.toml").write_text('recipe = "tiny"\nlr = 0.5\nbatch_size = 7\nvideo_path = ["a", "b"]\n')
    options = resolve(TrainOptions, {"config": str(tmp_path / "run.toml"), "batch_size": "3"}, underlying)
    assert (options.batch_size, options.lr, options.ema_decay) == (3, 0.5, 0.995)
    assert options.video_path == (Path("a"), Path("b"))


def test_paths_and_weights_may_be_repeated():
    typed = {"video_path": ["a", "b"], "video_weight": ["3", "1"]}
    options = resolve(TrainOptions, typed)
    assert options.video_weight == (3.0, 1.0)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({}, "--video-path is missing"),
        ({"video_path": ["a"], "lr": "fast"}, "--lr: must be a valid number, not 'fast'"),
        ({"video_path": ["a"], "lr": "-1"}, "--lr: must be at least 0"),
        (
            {"video_path": ["a"], "mix_precision": "bf8"},
            "--mix-precision: must be 'auto', 'float32', 'bfloat16' or 'float16', not 'bf8'",
        ),
        ({"video_path": ["a"], "video_weight": ["0"]}, "--video-weight must be above 0"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_option(typed, message):
    with pytest.raises(UsageError) as error:
        resolve(TrainOptions, typed)
    assert message in spell_options(str(error.value))
    assert "\n" not in str(error.value)


def result_in(run: Path, clips: tuple[Path, ...] = (), left_out: int = 0) -> TrainResult:
    return TrainResult(
        run=run,
        checkpoint=run / "checkpoint-00000008",
        step=8,
        loss=1234.5678,
        best={"step": 4, "psnr": 31.25, "ssim": 0.9},
        skipped=2,
        seconds=3725.0,
        clips_per_second=4.321,
        waiting=0.0312,
        decoding=123.4,
        peak_memory=3 << 29,
        clips=clips,
        left_out=left_out,
    )


def test_the_end_of_a_run_says_where_it_is_and_how_it_went(capsys):
    show(result_in(Path("results/vae")))
    assert capsys.readouterr().out.splitlines() == [
        "checkpoint  results/vae/checkpoint-00000008",
        "step        8, loss 1234.57",
        "best        step 4: psnr 31.2500, ssim 0.9000",
        "skipped     2 steps that were not finite",
        "time        1:02:05, 4.32 clips/s, 3.1% of it waiting for data, peak memory 1.50 GiB",
    ]


def test_the_next_commands_have_the_paths_of_the_run_and_are_quoted(tmp_path):
    run = tmp_path / "my run"
    (run / "tensorboard").mkdir(parents=True)
    given = {"video_path": ["v"], "eval_video_path": "held out", "eval_subset_size": "2", "eval_sample_rate": "3"}
    options = resolve(TrainOptions, given)
    clips = (Path("held out/a.png"), Path("held out/b.mp4"))
    assert next_commands(options, result_in(run, clips)) == [
        f"vaectl reconstruct --video-path 'held out/a.png' --rec-path '{run}/reconstructed-a.png'"
        f" --model '{run}/checkpoint-00000008'",
        "vaectl eval --real-video-dir 'held out' --num-frames 17 --sample-rate 3 --subset-size 2"
        f" --model '{run}/checkpoint-00000008'",
        f"tensorboard --logdir '{run}/tensorboard'",
    ]
    (run / "best").mkdir()
    (command, _) = next_commands(resolve(TrainOptions, {"video_path": ["v"]}), result_in(run, (Path("v/c.mkv"),)))
    assert command == (
        f"vaectl reconstruct --video-path v/c.mkv --rec-path '{run}/reconstructed-c.mp4' --model '{run}/best'"
    )


@pytest.mark.parametrize(
    ("given", "left_out", "words"),
    [
        ({}, 0, []),
        ({}, 1, ["--allow-missing"]),
        ({"eval_subset_size": "3"}, 1, ["--subset-size 3", "--allow-missing"]),
        ({"eval_subset_size": "4"}, 1, ["--allow-missing"]),
        ({"eval_lpips": False, "eval_resolution": "16"}, 0, ["--resolution 16", "--metric psnr,ssim"]),
    ],
)
def test_the_next_measurement_takes_the_clips_and_metrics_of_the_validation(tmp_path, given, left_out, words):
    options = resolve(TrainOptions, {"video_path": ["v"], "eval_video_path": "held", "eval_num_frames": "9", **given})
    result = result_in(tmp_path, (Path("held/a.mp4"), Path("held/b.mp4")), left_out)
    expected = ["vaectl eval --real-video-dir held --num-frames 9", *words, f"--model {result.checkpoint}"]
    assert next_commands(options, result)[1] == " ".join(expected)


def test_the_next_reconstruction_has_a_name_that_can_be_written(tmp_path):
    numbered = numbered_images(tmp_path / "fr" / "%05d.png", range(3))
    clips = {
        numbered: "reconstructed-fr.mp4",
        numbered.with_name("00001.png"): "reconstructed-00001.png",
        animation(tmp_path / "moving.png", 2): "reconstructed-moving.mp4",
        animation(tmp_path / "moving.webp", 2): "reconstructed-moving.mp4",
    }
    for clip, name in clips.items():
        (command,) = next_commands(resolve(TrainOptions, {"video_path": ["v"]}), result_in(tmp_path / "r", (clip,)))
        assert f" --rec-path {tmp_path / 'r' / name} " in command
