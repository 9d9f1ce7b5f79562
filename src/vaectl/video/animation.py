"""Distinguish animations from still images by the head of a file. `.png`, `.webp` and `.gif` may be either."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from vaectl.video.container import IMAGE_EXTENSIONS
from vaectl.video.gif import has_two_images
from vaectl.video.sequence import sequence_of

PNG = b"\x89PNG\r\n\x1a\n"
DEFAULT_DELAY = Fraction(1, 10)
"""Seconds that a frame with the delay 0 is shown. Browsers have the same."""
_ANIMATED = 2
"""Flag of the VP8X chunk of WebP."""


class Animation(NamedTuple):
    kind: Literal["gif", "apng", "webp"]
    has_several_frames: bool


def is_still(path: Path) -> bool:
    """Whether `path` is a still image: a file with the extension of an image or a GIF, and one frame.

    Opens only files with such an extension. An image that cannot be opened counts as a still; reading it will fail.
    """
    extension = path.suffix.lower()
    if extension not in (*IMAGE_EXTENSIONS, ".gif"):
        return False
    try:
        found = animation_of(path)
    except OSError:
        found = None
    if found is not None:
        return not found.has_several_frames
    return extension in IMAGE_EXTENSIONS and sequence_of(path) is None


def animation_of(path: Path) -> Animation | None:
    """Return the kind of animation in the file, from its head; None for a still image and for anything else."""
    if not path.is_file():  # opening a pipe would wait
        return None
    with path.open("rb") as file:
        head = file.read(21)
        if head[:8] == PNG:
            return _apng(file)
        if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and head[20:] and head[20] & _ANIMATED:
            return Animation("webp", _has_two_frames(file))
        return Animation("gif", has_two_images(file)) if head[:4] == b"GIF8" else None


def _apng(file: BinaryIO) -> Animation | None:
    """Look for an `acTL` chunk before the first `IDAT` (PNG, third edition, 11.3.2.1)."""
    at = len(PNG)
    while True:
        file.seek(at)
        head = file.read(12)
        if len(head) < 12 or head[4:8] in (b"IDAT", b"IEND"):
            return None
        if head[4:8] == b"acTL":
            return Animation("apng", int.from_bytes(head[8:], "big") > 1)
        at += 12 + int.from_bytes(head[:4], "big")


def _has_two_frames(file: BinaryIO) -> bool:
    """Look for a second `ANMF` chunk (WebP container specification, "Animation")."""
    at, frames = 12, 0
    while frames < 2:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return False
        frames += head[:4] == b"ANMF"
        length = int.from_bytes(head[4:], "little")
        at += 8 + length + length % 2
    return True
