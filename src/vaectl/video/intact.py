"""Whether the end of a file is there, by the sizes that its container declares. Knows boxes and chunks, no pictures.

FFmpeg reads a file that was cut short as if it ended there; a clip must not come out short without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO


def is_cut_short(path: Path) -> bool:
    """True where an MP4, MOV, Matroska, WebM, AVI, WebP, GIF or JPEG file lacks its end. Other formats give False."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
            return _boxes_end(file, size) > size
        if head[:4] == b"RIFF":
            return _chunks_end(file, size) > size
        if head[:4] == b"\x1aE\xdf\xa3":
            return _elements_end(file, size) > size
        if head[:4] == b"GIF8":
            return _blocks_end(path.read_bytes()) > size
        if head[:2] == b"\xff\xd8":
            data = path.read_bytes()
            return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")  # end of image, start of scan
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


def _blocks_end(data: bytes) -> int:
    """Where the last block of a GIF ends (GIF89a specification, 15-27); beyond the file where what follows is none."""

    def color_table(packed: int) -> int:
        return 3 << (packed & 7) + 1 if packed & 0x80 else 0

    size, data = len(data), data + bytes(13)
    end = 13 + color_table(data[10])
    while data[end : end + 1] in (b"!", b","):
        # An extension has its label first; an image its place and size, a colour table, and a code size.
        end += 2 if data[end] == ord("!") else 11 + color_table(data[end + 9])
        while end < size and data[end]:
            end += 1 + data[end]
        end += 1
    return end if end >= size or data[end] == ord(";") else size + 1  # many files do without the closing ";"


# EBML header, Segment, Void.
_ELEMENTS = (b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\xec")
