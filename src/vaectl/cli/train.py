"""`vaectl train`: run the job of the same name and show its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaectl.options.train import TrainOptions
    from vaectl.training.job import TrainResult

EXAMPLES = """
Examples:
  vaectl train --video-path videos/ --recipe tiny
  vaectl train --video-path videos/ --model-config config.json --ema
  vaectl train --resume-from-checkpoint results/vae/latest
  torchrun --nproc-per-node 8 -m vaectl train --config run.toml
"""


def train(options: TrainOptions) -> None:
    """Train a causal video auto-encoder on a tree of videos.

    Every vaectl command and the original code load the checkpoints. --resume-from-checkpoint latest continues a killed
    run from its last checkpoint. Ctrl-C writes a checkpoint before it stops.
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


def underlying(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults below the `given` options: those of the checkpoint to resume from, or of a recipe."""
    from vaectl.training.resume import underlying

    return underlying(given)


def show(result: TrainResult) -> None:
    """Print the result of the run on stdout."""
    from datetime import timedelta

    from vaectl.training.ema import scores

    print(f"checkpoint  {result.checkpoint}")
    print(f"step        {result.step}, loss {result.loss:.6g}")
    if result.best:
        first, *others = scores(result.best)
        print(f"best        step {result.best['step']}: {first}", *others, sep=f"\n{'':12}")
    if result.skipped:
        print(f"skipped     {result.skipped} steps that were not finite")
    took = timedelta(seconds=round(result.seconds))
    print(
        f"time        {took}, {result.clips_per_second:.2f} clips/s, {result.waiting:.1%} of it waiting for data,"
        f" peak memory {result.peak_memory / 2**30:.2f} GiB"
    )
