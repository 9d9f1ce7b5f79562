"""Check whether a file is complete, by the sizes and the order that its container declares. Knows no pictures.

FFmpeg reads a truncated file as if it ended there, and skips damage. A clip must not become shorter without an error.
`isobmff`, `matroska`, `mpegts`, `blocks` and this module read the declared structure.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NamedTuple

from vaectl.video import blocks, isobmff, matroska, mpegts

_PNG = b"\x89PNG\r\n\x1a\n"
CUT_SHORT = "it is cut short"


class Break(NamedTuple):
    """The first place where a file is broken."""

    position: int
    """In bytes."""
    reason: str


def is_cut_short(path: Path) -> bool:
    """Whether an MP4, MOV, Matroska, WebM, AVI, WebP, GIF, PNG or JPEG file is truncated; False for others."""
    size = path.stat().st_size
    with path.open("rb") as file:
        return _end(file, size) > size


def first_break(path: Path, container: str, stream: int) -> Break | None:
    """Find the first place where the file is broken; None if its structure is complete.

    Args:
        container: FFmpeg's name of the format.
        stream: FFmpeg's id of the picture stream; its packet identifier in a transport stream.
    """
    place: int | None = None
    if container == "matroska,webm":
        place = matroska.first_break(path)
    elif container == "mpegts":
        place = mpegts.Continuity(path, stream).first_break()
    elif (broken := blocks.first_break(path, container)) is not None:
        place, lacks_its_end = broken
        if lacks_its_end:
            return Break(place, CUT_SHORT)
    if place is not None:
        return Break(place, f"it is damaged at byte {place}")
    return Break(path.stat().st_size, CUT_SHORT) if is_cut_short(path) else None


def may_end_anywhere(path: Path, container: str) -> bool:
    """Whether the format declares no end, so that a stopped recording may have lost its last frames.

    `container` is FFmpeg's name of the format.
    """
    return container in ("mpegts", "mpeg") or (container == "matroska,webm" and matroska.is_live(path))


def _end(file: BinaryIO, size: int) -> int:
    """Return the declared end of the file in bytes; 0 if it declares none."""
    head = file.read(12)
    if head[4:8] in isobmff.FIRST_BOXES:
        return isobmff.end(file, size)
    if head[:4] == b"RIFF":
        return _chunks_end(file, size)
    if head[:4] == matroska.EBML:
        return matroska.end(file, size)
    file.seek(0)
    if head[:8] == _PNG:
        return _png_end(file)
    if head[:4] == b"GIF8":
        return _blocks_end(file.read())
    if head[:2] == b"\xff\xd8":
        return _jpeg_end(file.read())
    return 0


def _chunks_end(file: BinaryIO, size: int) -> int:
    """End of the last RIFF chunk. An interrupted writer leaves the length 0, which is ignored."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or length == 0:
            return end
        end += 8 + length
    return end


def _png_end(file: BinaryIO) -> int:
    """End of the IEND chunk of a PNG (ISO/IEC 15948, 5.3); beyond the file if there is none."""
    at = len(_PNG)
    while True:
        file.seek(at)
        head = file.read(8)
        at += 12 + int.from_bytes(head[:4], "big")
        if len(head) < 8 or head[4:8] == b"IEND":
            return at


def _blocks_end(data: bytes) -> int:
    """End of the last block of a GIF (GIF89a specification, 15-27); beyond the file if it is damaged."""

    def color_table(packed: int) -> int:
        return 3 << (packed & 7) + 1 if packed & 0x80 else 0

    size, data = len(data), data + bytes(13)
    end = 13 + color_table(data[10])
    while data[end : end + 1] in (b"!", b","):
        # An extension starts with its label; an image with its position, size, colour table and code size.
        end += 2 if data[end] == ord("!") else 11 + color_table(data[end + 9])
        while end < size and data[end]:
            end += 1 + data[end]
        end += 1
    return end if end >= size or data[end] == ord(";") else size + 1  # many files lack the closing ";"


def _jpeg_end(data: bytes) -> int:
    """End of the first picture of a JPEG (ITU-T T.81, B.1.1); beyond the file if it is truncated.

    Cameras append more: another picture, or a video.
    """
    end = 2
    while 0 <= (end := data.find(b"\xff", end)) < len(data) - 1:
        marker = data[end + 1]
        end += 2
        if marker == 0xD9:  # end of image
            return end
        if marker == 0xFF:  # the first of two fill bytes
            end -= 1
        elif marker not in (0x00, 0x01, *range(0xD0, 0xD8)):  # markers inside the scan have no length
            end += int.from_bytes(data[end : end + 2], "big")
    return len(data) + 1
