"""Whether the end of a file is there, by the sizes that its container declares. Knows boxes and chunks, no pictures.

FFmpeg reads a file that was cut short as if it ended there; a clip must not come out short without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO


def is_cut_short(path: Path) -> bool:
    """True where an MP4, MOV, Matroska, WebM, AVI or WebP file is shorter than it says. Other formats give False."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
            return _boxes_end(file, size) > size
        if head[:4] == b"RIFF":
            return _chunks_end(file, size) > size
        if head[:4] == b"\x1aE\xdf\xa3":
            return _elements_end(file, size) > size
    return False


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last top-level box of an ISO base media file ends (ISO/IEC 14496-12, 4.2)."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not head[4:8].isalnum():  # a box that goes on to the end of the file, or junk after the last
            return end
        end += length
    return end


def _chunks_end(file: BinaryIO, size: int) -> int:
    """Where the last RIFF chunk ends. An interrupted writer leaves the length 0, which says nothing."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or length == 0:
            return end
        end += 8 + length
    return end


def _elements_end(file: BinaryIO, size: int) -> int:
    """Where the Segment ends (RFC 8794): each element is an id, a length, and that many bytes."""
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(12)
        id_width = next((len(name) for name in _ELEMENTS if head.startswith(name)), 0)
        if id_width == 0 or not head[id_width:]:
            return end
        length_width = 9 - head[id_width].bit_length()
        length = int.from_bytes(head[id_width : id_width + length_width], "big") & ((1 << 7 * length_width) - 1)
        if length == (1 << 7 * length_width) - 1:  # unknown: written as a live stream
            return end
        end += id_width + length_width + length
    return end


# EBML header, Segment, Void.
_ELEMENTS = (b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\xec")
