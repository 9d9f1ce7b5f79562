"""Small test videos, encoded with PyAV. Every picture shows its number, so order and count can be read back from the
output of any decoder, also of a lossy codec."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 8


def numbered_picture(number: int, width: int = 64, height: int = 48, seed: int = 0) -> NDArray[np.uint8]:
    """A (height, width, 3) RGB picture: white and black columns show `number` in binary above moving colour noise."""
    picture = np.empty((height, width, 3), np.uint8)
    noise = np.random.default_rng(seed).integers(40, 216, (height, width, 3)).astype(np.uint8)
    picture[:] = np.roll(noise, (number, 2 * number), (0, 1))
    edges = [round(i * width / BITS) for i in range(BITS + 1)]
    for bit in range(BITS):
        picture[: height // 2, edges[bit] : edges[bit + 1]] = 235 if number >> bit & 1 else 16
    return picture


def number_of(frame_3HW: Any) -> int:
    """Read the number in a (3, H, W) picture."""
    luma = np.asarray(frame_3HW).astype(float).mean(0)
    height, width = luma.shape
    edges = [round(i * width / BITS) for i in range(BITS + 1)]
    columns = (luma[: height // 2, a:b] for a, b in pairwise(edges))
    return sum(int(column.mean() > 128) << bit for bit, column in enumerate(columns))


def encode(
    path: Path,
    count: int = 24,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    rate: Fraction | int = 25,
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    container_options: dict[str, str] | None = None,
    configure: Callable[[Any], None] = lambda stream: None,
    pictures: Iterable[av.VideoFrame] | None = None,
    edit_packet: Callable[[Any], Any] = lambda packet: packet,
) -> Path:
    """Write `count` numbered pictures to `path` and return it.

    `pts` are the times in ticks of `time_base`. `configure` is called with the stream before the first frame.
    `pictures` replace the numbered ones. `edit_packet` may change a packet, or return None to drop it.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.thread_count = 1
        if time_base is not None:
            stream.codec_context.time_base = time_base
        configure(stream)
        frames = pictures if pictures is not None else (rgb_frame(numbered_picture(i, *size)) for i in range(count))
        for number, frame in enumerate(frames):
            frame.pts = number if pts is None else pts[number]
            frame.time_base = time_base or 1 / Fraction(rate)
            for packet in stream.encode(frame):
                _mux(container, edit_packet(packet))
        for packet in stream.encode():
            _mux(container, edit_packet(packet))
    return path


def animation(path: Path, num_frames: int, **how: Any) -> Path:
    """Write numbered pictures as an animated GIF, PNG or WebP, each for 40 ms."""
    first, *rest = [Image.fromarray(numbered_picture(i)) for i in range(num_frames)]
    first.save(path, save_all=True, append_images=rest, **{"duration": 40, **how})
    return path


def numbered_images(pattern: Path, numbers: Iterable[int]) -> Path:
    """Write numbered pictures to files that are named like `%03d.png`, and return the pattern."""
    pattern.parent.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        name = re.sub(r"%(\d*)d", lambda place, n=number: f"{n:{place[1]}d}", pattern.name)
        how = {"lossless": True} if name.endswith("webp") else {}
        Image.fromarray(numbered_picture(number)).save(pattern.with_name(name), **how)
    return pattern


def _mux(container: Any, packet: Any) -> None:
    if packet is not None:
        container.mux(packet)


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Overwrite the 2x2 part of the matrix in the first track header (`tkhd`, version 0) of an MP4 or MOV file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    fixed = [value << 16 for value in (a, b)] + [0] + [value << 16 for value in (c, d)] + [0, 0, 0]
    data[start : start + 32] = struct.pack(">8i", *fixed)
    path.write_bytes(data)
    return path


def cut(path: Path, fraction: float) -> Path:
    """Copy the first `fraction` of the bytes of `path` to a file next to it."""
    data = path.read_bytes()
    short = path.with_name(f"cut{fraction}_{path.name}")
    short.write_bytes(data[: int(len(data) * fraction)])
    return short


def rgb_frame(picture: NDArray[np.uint8]) -> av.VideoFrame:
    """Convert an (H, W, 3) picture to a frame."""
    return av.VideoFrame.from_ndarray(picture, format="rgb24")
