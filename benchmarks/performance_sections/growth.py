"""How time and memory grow with frames, area and clips. Every point is a process of its own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from common import reset_peak, take_turns
from common.clips import ROOT, write_clip
from formulation import make_model
from performance_sections.rows import AnyRow, GrowthRow, Options
from vaectl.allocator import returning_freed
from vaectl.memory import peak, resident, return_freed, reuse_freed
from vaectl.tiling.plan import window_frames
from vaectl.tiling.stream import reconstruct_windows

CPU = torch.device("cpu")
FRAMES = {"built-in": (256, (9, 17, 33, 65, 129)), "WF-VAE-S": (128, (9, 17, 33, 65))}
"""The side of the frames, and how many there are."""
SIDES = {"built-in": (17, (64, 128, 256, 512)), "WF-VAE-S": (9, (64, 128, 256, 512))}
"""The number of frames, and their sides."""
TINY = {"built-in": (5, (32, 64))}
CLIPS = (1, 2, 4, 8, 16)


def frames(options: Options) -> Iterator[AnyRow]:
    """Encode and decode clips of more and more frames, in windows as in the commands."""
    for model, (side, counts) in ({"built-in": (32, (5, 9))} if options.tiny else FRAMES).items():
        for count in counts:
            yield point("frames", f"{model}, {side}x{side}", count, (model, count, side), options)


def area(options: Options) -> Iterator[AnyRow]:
    """Encode and decode larger and larger frames."""
    for model, (count, sides) in (TINY if options.tiny else SIDES).items():
        for side in sides:
            yield point("area", f"{model}, {count} frames", side, (model, count, side), options)


def clips(options: Options) -> Iterator[AnyRow]:
    """Measure more and more pairs with `vaectl eval`: the time and the peak memory that it reports."""
    with tempfile.TemporaryDirectory() as folder:
        for count in CLIPS[:2] if options.tiny else CLIPS:
            yield evaluated(Path(folder), count)


def point(over: str, series: str, size: int, run: tuple[str, int, int], options: Options) -> GrowthRow:
    """Measure a run in a new process."""
    line = [sys.executable, "-m", "performance_sections.growth", *map(str, run), str(int(options.processor_time))]
    printed = subprocess.run(line, cwd=ROOT / "benchmarks", check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, added = json.loads(printed)
    return GrowthRow(over, series, size, seconds, added)


@torch.no_grad()
def reconstruct(name: str, count: int, side: int, options: Options) -> tuple[float, int]:
    """Return the best time of two runs in windows of whole frames, as in the commands, and the memory that they add."""
    reuse_freed()
    model = make_model(name, CPU, torch.float32)
    clip = torch.rand(1, 3, count, side, side) * 2 - 1
    return_freed()  # of building the model
    before = resident()
    reset_peak()

    def run() -> None:
        with returning_freed(model):
            for _ in reconstruct_windows(model, clip.split(window_frames(model.config, side, side, CPU), dim=2), None):
                pass

    (seconds,) = take_turns([run], CPU, 2, options.clock)
    return seconds, peak(CPU) - before


def evaluated(folder: Path, count: int) -> GrowthRow:
    for name in ("real", "made"):
        (folder / name).mkdir(exist_ok=True)
        for i in range(count):
            write_clip(folder / name / f"{i}.mp4", 17, 128, 128)
    line = [sys.executable, "-m", "vaectl", "eval", "--real-video-dir", folder / "real"]
    line += ["--generated-video-dir", folder / "made", "--num-frames", "17", "--resolution", "128", "--json"]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    report = json.loads(done.stdout)
    return GrowthRow("clips", "vaectl eval, 17x128x128", count, report["seconds"], report["peak_memory"])


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of a line through the logarithms, by least squares."""
    x, y = ([math.log(value) for value in each] for each in (sizes, values))
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return above / sum((a - x_mean) ** 2 for a in x)


if __name__ == "__main__":
    name, count, size, processor_time = sys.argv[1:]
    options = Options(processor_time=processor_time == "1")
    print(json.dumps(reconstruct(name, int(count), int(size), options)))
