"""Run the commands on a real clip, and compare what they report on the device with the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_steps.context import Context, Values
from gpu_steps.program import BENCHMARKS, ENVIRONMENT

CLIP = BENCHMARKS.parent / ".samples" / "bikes.mp4"
SAME_DB = 0.01
"""Maximum difference of a PSNR in float32 between devices: rounding changes a few values by one level of 256."""


def run(context: Context) -> None:
    missing = [name for name, there in needed().items() if not there]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def case(name: str, work: Callable[[Context, Path], Values], *, rehearsed: bool = True) -> None:
            if missing:
                context.leave_out(name, f"missing: {', '.join(missing)}")
            elif context.tiny and not rehearsed:
                context.leave_out(name, "tested on the CPU elsewhere")
            else:
                context.case(name, lambda: work(context, folder), seconds=context.processes)

        case("reconstruct, float32, against the CPU", reconstruct)
        case("train, stopped and resumed", train)
        case("eval, against the CPU", evaluate, rehearsed=False)
        case("reconstruct --dtype auto", partial(reconstruct, dtype="auto"), rehearsed=False)
        case("reconstruct --save-memory", partial(reconstruct, options=("--save-memory",)), rehearsed=False)


def needed() -> dict[str, bool]:
    """Return what the commands need, and whether it is available."""
    try:
        installed = bool(version("vaectl"))
    except PackageNotFoundError:
        installed = False
    return {
        "an installed vaectl": installed,
        "PyAV": find_spec("av") is not None,
        "the sample clips": CLIP.is_file(),
    }


@cache
def vaectl(*arguments: object) -> dict[str, Any]:
    """Return what a command prints with --json; runs it once. Raises RuntimeError with its last error line."""
    command = [sys.executable, "-m", "vaectl", *map(str, arguments), "--json"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def reconstruct(context: Context, place: Path, options: tuple[str, ...] = (), dtype: str = "float32") -> Values:
    size = ("--num-frames", 5, "--short-size", 32) if context.tiny else ("--num-frames", 65)
    common = ("reconstruct", "--video-path", CLIP, "--rec-path", place / "made.mp4", "--overwrite", *size)
    made = vaectl(*common, "--device", str(context.device), "--dtype", dtype, *options)
    expected = vaectl(*common, "--device", "cpu", "--dtype", "float32")["clips"][0]["psnr"]
    (clip,) = made["clips"]
    values = {"dB": clip["psnr"], "on the CPU": expected, "frames/s": clip["frames_per_second"]}
    values["peak GiB"] = made["peak_memory"] / 2**30
    return values | ({"passed": abs(clip["psnr"] - expected) <= SAME_DB} if dtype == "float32" else {})


def evaluate(context: Context, place: Path) -> Values:
    metrics = ("psnr", "ssim", "lpips") if find_spec("lpips") else ("psnr", "ssim")
    size = ("--num-frames", 5, "--resolution", 32) if context.tiny else ("--num-frames", 33, "--resolution", 256)
    common = ("eval", "--real-video-dir", CLIP, "--model", "builtin", *size, *(f"--metric={name}" for name in metrics))
    made, expected = (
        {name: value["mean"] for name, value in vaectl(*common, "--device", device)["summary"].items()}
        for device in (str(context.device), "cpu")
    )
    difference = max(abs(made[name] / expected[name] - 1) for name in metrics)
    return {**made, "relative difference": difference, "passed": difference <= 1e-3}


def train(context: Context, place: Path) -> Values:
    pixels, frames = (32, 5) if context.tiny else (256, 17)
    size = ("--num-frames", frames, "--resolution", pixels, "--crop-size", pixels)
    common = ("train", "--video-path", CLIP.parent, "--ckpt-dir", place / "results", "--device", context.device)
    steps = 1 if context.tiny else 10
    options = ("--recipe", "tiny", "--init", "random", "--batch-size", 1, "--num-workers", 0 if context.tiny else 4)
    first = vaectl(*common, *options, *size, "--max-steps", steps)
    last = vaectl(*common, "--resume-from-checkpoint", "latest", "--max-steps", 2 * steps, "--num-workers", 0)
    values = {"steps": last["step"], "clips/s": first["clips_per_second"], "peak GiB": first["peak_memory"] / 2**30}
    return values | {"passed": last["step"] == 2 * steps and first["step"] == steps}
