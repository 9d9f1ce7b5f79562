"""What a reader needs to know about a video: its facts, and its frames where FFmpeg does not list and decode them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

from av.video.frame import VideoFrame

from vaectl.video.clip import VideoInfo
from vaectl.video.facts import Layout


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
