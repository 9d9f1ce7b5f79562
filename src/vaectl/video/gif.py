"""Distinguish a still GIF from an animation, and make the frames explicit. Format: GIF89a specification, 15 to 27.

FFmpeg joins an image without a graphic control extension with the one before it. Browsers show both, the second for a
tenth of a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_CONTROL = b"!\xf9"
_EMPTY_CONTROL = _CONTROL + b"\x04\0\0\0\0\0"


def with_controls(path: Path) -> bytes | None:
    """Return the content of a GIF with a control extension before each image. None if nothing has to be added."""
    with path.open("rb") as file:
        if file.read(4) != b"GIF8":
            return None
        file.seek(0)
        data = file.read()
    places, images, has_control, at = [], 0, False, 13 + _color_table(data[10:11])
    while data[at : at + 1] in (b"!", b","):
        start, is_image = at, data[at : at + 1] == b","
        has_control = has_control or data[at : at + 2] == _CONTROL
        at += 11 + _color_table(data[at + 9 : at + 10]) if is_image else 2
        while data[at : at + 1] > b"\0":
            at += 1 + data[at]
        at += 1
        if is_image:
            images += 1
            if not has_control:
                places.append(start)
            has_control = False
    if images < 2 or not places:
        return None
    parts = (data[start:end] for start, end in zip([0, *places], [*places, None], strict=True))
    return b"GIF89a" + _EMPTY_CONTROL.join(parts)[6:]


def has_two_images(file: BinaryIO) -> bool:
    """Look for a second image descriptor. Reads no further, and decodes nothing."""
    file.seek(10)
    file.seek(2 + _color_table(file.read(1)), 1)
    images = 0
    while (kind := file.read(1)) in (b"!", b","):
        images += kind == b","
        if images == 2:
            return True
        file.seek(1 if kind == b"!" else 8, 1)
        if kind == b",":
            file.seek(1 + _color_table(file.read(1)), 1)
        while (length := file.read(1)) > b"\0":
            file.seek(length[0], 1)
    return False


def _color_table(packed: bytes) -> int:
    """Size in bytes of the colour table that follows."""
    return 3 << (packed[0] & 7) + 1 if packed and packed[0] & 0x80 else 0
