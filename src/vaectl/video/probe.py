"""Open what is read as one video: a file, or numbered images. The content decides how, not the extension."""

from __future__ import annotations

from pathlib import Path

from vaectl.urls import check_local
from vaectl.video.animation import animation_of
from vaectl.video.apng import open_apng
from vaectl.video.clip import VideoInfo
from vaectl.video.color import RgbConversion
from vaectl.video.facts import facts_and_layout
from vaectl.video.file_cache import FileCache
from vaectl.video.sequence import open_sequence, sequence_of
from vaectl.video.source import Source
from vaectl.video.webp import open_webp


def probe(path: Path | str) -> VideoInfo:
    """Return the facts about the video or image at `path`, or about the numbered images that it names.

    Raises UsageError if `path` is not a readable file and names no frames, VaectlError if it contains no video.
    """
    check_local(path)
    return open_source(Path(path)).info


def open_source(path: Path, rgb_conversion: RgbConversion = "accurate") -> Source:
    """Return the facts about the video at `path`, and how to read its frames. Raises like `probe`."""
    if (sequence := sequence_of(path)) is not None:
        return open_sequence(path, sequence, rgb_conversion)
    try:
        animation = animation_of(path)
    except OSError:
        animation = None  # `facts_and_layout` reports the problem
    if animation is not None and animation.kind in _READERS:
        return _READERS[animation.kind](path)
    return _sources.get(path, lambda: Source(*facts_and_layout(path)))


_sources: FileCache[Source] = FileCache(1000)
_READERS = {"apng": open_apng, "webp": open_webp}
