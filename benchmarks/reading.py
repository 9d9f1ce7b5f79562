"""Measure frames per second of reading a real 720p clip, in order and at random positions, compared with other readers.

    python benchmarks/reading.py [VIDEO] [--threads N]

All decode with N threads (1), in this process, in turns, and give the same frames as uint8, from a file that is open
and indexed. vaectl gives contiguous (T, 3, H, W), with accurate colours, and with those of plain PyAV (swscale). Plain
PyAV converts each frame with `to_ndarray("rgb24")`, as most scripts do; it opens the file each time, seeks to the
keyframe before the wanted time and decodes up to it. torchcodec, if it is installed, is in exact mode, and gives its
default, (T, 3, H, W) as a view of (T, H, W, 3). A few of its frames are compared with those of swscale.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import av
import torch
from rich.console import Console
from rich.table import Table

from common import take_turns
from vaectl.video import VideoReader

try:
    from torchcodec.decoders import VideoDecoder
except (ImportError, OSError, RuntimeError):  # not installed, or without its FFmpeg
    VideoDecoder = None

CLIP_FRAMES = 17
CLIPS = 12


def plain_in_order(path: Path, threads: int) -> None:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = threads
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")


def plain_from(path: Path, seconds: float, threads: int) -> None:
    given = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        assert stream.time_base is not None
        container.seek(int(seconds / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time is not None and frame.time >= seconds - 1e-6:
                frame.to_ndarray(format="rgb24")
                given += 1
                if given == CLIP_FRAMES:
                    break


def main() -> None:
    parser = argparse.ArgumentParser()
    clip = Path(__file__).parent.parent / ".samples" / "bigbuckbunny.mp4"
    parser.add_argument("video", type=Path, nargs="?", default=clip)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    path, threads = given.video, given.threads
    torch.set_num_threads(threads)
    accurate = VideoReader(path, threads=threads)
    swscale = VideoReader(path, threads=threads, rgb_conversion="swscale")
    times = swscale.timestamps()
    accurate.timestamps()
    total = len(times)
    starts = [random.Random(0).randrange(total - CLIP_FRAMES) for _ in range(CLIPS)]

    def in_order(reader: VideoReader) -> Callable[[], object]:
        return lambda: reader.read()

    def at_random(reader: VideoReader) -> Callable[[], object]:
        return lambda: [reader.read(start, CLIP_FRAMES) for start in starts]

    jobs: dict[str, tuple[int, dict[str, Callable[[], object]]]] = {
        "in order": (
            total,
            {
                "vaectl": in_order(accurate),
                "swscale": in_order(swscale),
                "plain PyAV": lambda: plain_in_order(path, threads),
            },
        ),
        f"{CLIPS} clips of {CLIP_FRAMES} frames": (
            CLIPS * CLIP_FRAMES,
            {
                "vaectl": at_random(accurate),
                "swscale": at_random(swscale),
                "plain PyAV": lambda: [plain_from(path, float(times[start]), threads) for start in starts],
            },
        ),
    }
    if VideoDecoder is None:
        Console().print("torchcodec cannot be imported here, so it is not measured")
    else:
        peer = VideoDecoder(path, seek_mode="exact", num_ffmpeg_threads=threads)
        assert torch.equal(peer.get_frames_in_range(5, 9).data, swscale.read(5, 4).frames)
        (_, order), (_, anywhere) = jobs.values()
        order["torchcodec"] = lambda: peer.get_frames_in_range(0, total)
        anywhere["torchcodec"] = lambda: [peer.get_frames_in_range(s, s + CLIP_FRAMES) for s in starts]
    size = f"{accurate.info.width}x{accurate.info.height}"
    table = Table(title=f"{path.name}, {size}, {threads} threads, opened before; frames per second")
    columns = list(next(iter(jobs.values()))[1])
    table.add_column("reading")
    for column in columns:
        table.add_column(column, justify="right")
    for name, (frames, works) in jobs.items():
        for work in works.values():
            work()
        seconds = take_turns(list(works.values()), torch.device("cpu"))
        table.add_row(name, *(f"{frames / taken:.0f}" for taken in seconds))
    Console().print(table)


if __name__ == "__main__":
    main()
