"""Measure frames per second of reading a real 720p clip, in order and at random positions, compared with plain PyAV.

    python benchmarks/reading.py [VIDEO]

Plain PyAV decodes with its defaults and converts each frame with `to_ndarray("rgb24")`, as most scripts do. Its random
access seeks to the keyframe before the wanted time and decodes up to it. vaectl reads with accurate colours, and with
those of plain PyAV (swscale). All run in this process.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
from rich.console import Console
from rich.table import Table

from vaectl.video import VideoReader

CLIP_FRAMES = 17
CLIPS = 12


def plain_in_order(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for frame in container.decode(video=0) if frame.to_ndarray(format="rgb24") is not None)


def plain_from(path: Path, seconds: float) -> int:
    given = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        container.seek(int(seconds / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time is not None and frame.time >= seconds - 1e-6:
                frame.to_ndarray(format="rgb24")
                given += 1
                if given == CLIP_FRAMES:
                    break
    return given


def rate(work: Callable[[], int]) -> float:
    """Return frames per second, the best of three runs."""
    best = 0.0
    for _ in range(3):
        begun = time.perf_counter()
        frames = work()
        best = max(best, frames / (time.perf_counter() - begun))
    return best


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / ".samples" / "bigbuckbunny.mp4"
    accurate, swscale = VideoReader(path), VideoReader(path, rgb_conversion="swscale")
    times = accurate.timestamps()
    starts = [random.Random(0).randrange(len(times) - CLIP_FRAMES) for _ in range(CLIPS)]

    def in_order(reader: VideoReader) -> int:
        return sum(len(clip) for clip in reader.clips())

    def at_random(reader: VideoReader) -> int:
        return sum(len(reader.read(start, CLIP_FRAMES)) for start in starts)

    jobs: dict[str, tuple[Callable[[VideoReader], int], Callable[[], int]]] = {
        "in order": (in_order, lambda: plain_in_order(path)),
        f"{CLIPS} clips of {CLIP_FRAMES} frames at random positions": (
            at_random,
            lambda: sum(plain_from(path, float(times[start])) for start in starts),
        ),
    }
    table = Table(title=f"{path.name}, {accurate.info.width}x{accurate.info.height}, frames per second")
    for column in ("reading", "vaectl", "swscale", "plain PyAV"):
        table.add_column(column, justify="left" if column == "reading" else "right")
    for name, (ours, plain) in jobs.items():
        rates = rate(partial(ours, accurate)), rate(partial(ours, swscale)), rate(plain)
        table.add_row(name, *(f"{each:.0f}" for each in rates))
    Console().print(table)


if __name__ == "__main__":
    main()
