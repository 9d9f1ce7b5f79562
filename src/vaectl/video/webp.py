"""Read animated WebP files with Pillow, which uses libwebp, the reference. FFmpeg 8 does not read them.

Format: the WebP container specification, "Animation". The canvas begins in transparent black, as in browsers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.video.frame import VideoFrame

from vaectl.errors import VaectlError
from vaectl.video.animation import DEFAULT_DELAY
from vaectl.video.clip import ColorTags
from vaectl.video.container import check_canvas, explain_memory_errors
from vaectl.video.decode import DamageError
from vaectl.video.orientation import orientation_of_exif
from vaectl.video.source import Source, animation_source
from vaectl.video.tiff import of_any_size
from vaectl.video.truncation import CUT_SHORT

_CHUNKS = frozenset({b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"EXIF", b"XMP "})
"""Chunks of an animation. Others may come after the frames; among them, the name of a frame is damaged."""

_LARGEST_SIDE = 2**14
"""In pixels. The size of a frame has 14 bits. That of the canvas has 24, but no encoder makes it larger than frames."""


class _Structure(NamedTuple):
    width: int
    height: int
    delays: tuple[Fraction, ...]
    """Seconds that each frame is shown."""
    end: int
    """End of the last complete frame in bytes."""
    damage: str | None


def open_webp(path: Path) -> Source:
    """Return the frames of an animated WebP. Raises VaectlError if not one frame can be read."""
    structure = _read_structure(path)
    if not structure.delays:
        raise VaectlError(f"{path}: {structure.damage or 'it has no frames'}", "get the file again")
    width, height = structure.width, structure.height
    if max(width, height) > _LARGEST_SIDE:
        raise VaectlError(
            f"{path}: it is damaged: its canvas has {width}x{height} pixels, and frames at most {_LARGEST_SIDE} a side",
            "get the file again",
        )
    check_canvas(path, width, height)
    try:
        with explain_memory_errors(path, width, height), _open(path, structure) as image:
            orientation = orientation_of_exif(image.getexif().get(0x112, 1))
    except DamageError as damage:
        raise VaectlError(f"{path}: not one frame can be decoded ({damage})", "get the file again") from None
    return animation_source(
        path,
        (width, height),
        structure.delays,
        structure.damage,
        partial(_frames, path, structure),
        orientation,
        codec="webp",
        pixel_format="rgba",
        bit_depth=8,
        color=ColorTags(),
    )


def _read_structure(path: Path) -> _Structure:
    """Read the heads of the chunks, up to the first that is not complete."""
    size = path.stat().st_size
    delays: list[Fraction] = []
    with path.open("rb") as file:
        head = file.read(30)
        width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
        end = at = 12
        declared = 8 + int.from_bytes(head[4:8], "little")
        unknown = None
        while at + 8 <= declared:
            file.seek(at)
            head = file.read(24)
            start, length = at, int.from_bytes(head[4:8], "little")
            at += 8 + length + length % 2
            if len(head) < 8 or at > size:
                return _Structure(width, height, tuple(delays), end, CUT_SHORT)
            if head[:4] not in _CHUNKS:
                unknown = start if unknown is None else unknown
            if head[:4] == b"ANMF":
                if unknown is not None:  # libwebp skips it
                    return _Structure(width, height, tuple(delays), end, f"it is damaged at byte {unknown}")
                delays.append(Fraction(int.from_bytes(head[20:23], "little"), 1000) or DEFAULT_DELAY)
                end = at
    return _Structure(width, height, tuple(delays), end, None)


def _open(path: Path, structure: _Structure) -> Any:
    """Open the file with Pillow; of a truncated one, the complete frames. Raises DamageError."""
    from PIL.WebPImagePlugin import WebPImageFile

    data = path.read_bytes()
    if structure.damage is not None:
        data = data[:4] + (structure.end - 8).to_bytes(4, "little") + data[8 : structure.end]
    try:
        with of_any_size():
            image = WebPImageFile(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:
        _check_memory(structure)
        raise DamageError(f"libwebp: {error}", 0) from None
    if image.n_frames != len(structure.delays):
        raise DamageError(f"{len(structure.delays)} frames are there, libwebp reads {image.n_frames}", 0)
    return image


def _check_memory(structure: _Structure) -> None:
    """Raise MemoryError if there is no room for what libwebp needs. It does not say why it fails."""
    np.empty((3, structure.height, structure.width, 4), np.uint8)


def _frames(path: Path, structure: _Structure, wanted: range) -> Iterator[VideoFrame]:
    """Yield the canvas after each wanted frame. Frames cannot be decoded without those before them."""
    with _open(path, structure) as image:
        for number in wanted:
            try:
                image.seek(number)
                picture = np.asarray(image.convert("RGBA"))
            except MemoryError:
                raise
            except (OSError, EOFError, SyntaxError, ValueError) as error:
                _check_memory(structure)
                raise DamageError(f"decoding fails: {error}", number) from None
            yield VideoFrame.from_ndarray(picture, format="rgba")
