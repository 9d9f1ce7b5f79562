"""What a reader needs to know about a video: its facts, and its frames where FFmpeg does not list and decode them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from av.video.frame import VideoFrame

from vaectl.video.clip import ColorTags, VideoInfo
from vaectl.video.facts import Layout
from vaectl.video.orientation import Orientation


class Pictures(NamedTuple):
    """All frames that can be read, in presentation order."""

    times: tuple[Fraction, ...]
    """Seconds; strictly increasing."""
    damage: str | None
    """What is wrong after these frames; None for an intact source."""
    frames: Callable[[range], Iterator[VideoFrame]]
    """Yields the frames of these numbers. Raises DamageError before one that is damaged, and VaectlError."""


class Source(NamedTuple):
    info: VideoInfo
    layout: Layout
    pictures: Pictures | None = None
    """None: a file that `vaectl.video.index` and `decode` read."""


def animation_source(
    path: Path,
    size: tuple[int, int],
    delays: Sequence[Fraction],
    damage: str | None,
    frames: Callable[[range], Iterator[VideoFrame]],
    orientation: Orientation,
    *,
    codec: str,
    pixel_format: str,
    bit_depth: int,
    color: ColorTags,
    sample_aspect_ratio: Fraction = Fraction(1),
) -> Source:
    """Return an animation as a source.

    Args:
        size: width and height of the canvas in pixels, before it is rotated.
        delays: seconds that each frame is shown.
        damage, frames: see `Pictures`.
    """
    *starts, end = accumulate(delays, initial=Fraction(0))
    is_image = len(starts) == 1 and damage is None
    width, height = reversed(size) if orientation.transpose else size
    info = VideoInfo(
        path=path,
        width=width,
        height=height,
        frame_rate=Fraction(1) if is_image else len(starts) / end,
        num_frames_from_header=len(starts),
        codec=codec,
        pixel_format=pixel_format,
        bit_depth=bit_depth,
        color=color,
        sample_aspect_ratio=1 / sample_aspect_ratio if orientation.transpose else sample_aspect_ratio,
        rotation=orientation.rotation,
        is_interlaced=False,
        is_image=is_image,
        has_audio=False,
    )
    return Source(info, Layout(orientation=orientation), Pictures(tuple(starts), damage, frames))
