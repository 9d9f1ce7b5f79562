"""`vaectl train`: run the job of the same name and show its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaectl.options.train import TrainOptions
    from vaectl.training.result import TrainResult

EXAMPLES = """
Examples:
  vaectl train --video-path videos/ --recipe tiny
  vaectl train --video-path videos/ --model-config config.json --ema
  vaectl train --video-path videos/ --recipe finetune-decoder --model wan/vae
  vaectl train --resume-from-checkpoint results/vae/latest
  torchrun --nproc-per-node 8 -m vaectl train --config run.toml
"""


def train(options: TrainOptions) -> None:
    """Train a causal video auto-encoder on a tree of videos.

    Every vaectl command loads the checkpoints, and so does the original code (diffusers for Wan and Qwen-Image).
    --resume-from-checkpoint latest continues a killed run from its last checkpoint. Ctrl-C writes a checkpoint before
    it stops.
    """
    from vaectl import distributed
    from vaectl.cli.console import reporter
    from vaectl.cli.spelling import as_json
    from vaectl.training.job import train as run

    with reporter() as progress:
        result = run(options, progress)
    if not distributed.is_main():
        return
    if options.json:
        print(as_json(result.as_json()))
    else:
        show(result)
        print("\nnext:")
        for command in next_commands(options, result):
            print(f"  {command}")


def underlying(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults below the `given` options: those of the checkpoint to resume from, or of a recipe."""
    from vaectl.training.resume import underlying

    return underlying(given)


def next_commands(options: TrainOptions, result: TrainResult) -> list[str]:
    """Return the commands to continue with: reconstruct a clip, measure the validation set, show the curves."""
    import shlex

    from vaectl.options.clips import NUM_FRAMES, RESOLUTION
    from vaectl.training.run_dir import BEST, TENSORBOARD
    from vaectl.video.animation import is_still
    from vaectl.video.sequence import file_named

    model = result.run / BEST if (result.run / BEST).exists() else result.checkpoint
    commands: list[list[object]] = []
    for clip in result.clips[:1]:
        suffix = ".png" if is_still(clip) else ".mp4"
        target = result.run / f"reconstructed-{file_named(clip).stem}{suffix}"
        commands.append(["vaectl", "reconstruct", "--video-path", clip, "--rec-path", target, "--model", model])
    if options.eval_video_path:
        size = options.eval_subset_size
        subset = size if len(result.clips) + result.left_out == size else 0
        given = {
            "--num-frames": (options.eval_num_frames, NUM_FRAMES),
            "--sample-rate": (options.eval_sample_rate, 1),
            "--resolution": (options.eval_resolution, RESOLUTION),
            "--subset-size": (subset, 0),
            "--metric": ("" if options.eval_lpips else "psnr,ssim", ""),
        }
        unusual = [part for name, (value, usual) in given.items() if value != usual for part in (name, value)]
        unusual += ["--allow-missing"] * (result.left_out > 0)
        commands.append(["vaectl", "eval", "--real-video-dir", options.eval_video_path, *unusual, "--model", model])
    if (board := result.run / TENSORBOARD).exists():
        commands.append(["tensorboard", "--logdir", board])
    return [shlex.join(map(str, command)) for command in commands]


def show(result: TrainResult) -> None:
    """Print the result of the run on stdout."""
    from datetime import timedelta

    from vaectl.training.ema import scores

    print(f"checkpoint  {result.checkpoint}")
    loss = "" if result.loss is None else f", loss {result.loss:.6g}"
    print(f"step        {result.step}{loss if result.clips_per_second else ', no steps left'}")
    if result.best:
        first, *others = scores(result.best)
        print(f"best        step {result.best['step']}: {first}", *others, sep=f"\n{'':12}")
    if result.skipped:
        print(f"skipped     {result.skipped} steps that were not finite")
    if not result.clips_per_second:
        return  # all steps were done before
    took = timedelta(seconds=round(result.seconds))
    print(
        f"time        {took}, {result.clips_per_second:.2f} clips/s, {result.waiting:.1%} of it waiting for data,"
        f" peak memory {result.peak_memory / 2**30:.2f} GiB"
    )
