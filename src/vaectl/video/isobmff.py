"""Boxes of MP4 and MOV files (ISO/IEC 14496-12): the declared end, the crop of the picture, and encryption."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from vaectl.video.crop import Crop

FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_MAX_MOOV_BYTES = 2**28
"""A larger `moov` box is not read."""


def end(file: BinaryIO, size: int) -> int:
    """Return the end of the last top-level box, in bytes (4.2)."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not head[4:8].isalnum():  # a box up to the end of the file, or junk after the last box
            return end
        end += length
    return end


def crops(path: Path) -> list[Crop]:
    """Return the crop of each picture track, from its clean aperture box (`clap`, 12.1.4)."""
    return [_crop(entries[0][1]) if entries else Crop() for entries in _picture_tracks(path)]


def is_encrypted(path: Path) -> bool:
    """Whether a picture track is encrypted (ISO/IEC 14496-12, 8.12)."""
    return any(kind == b"encv" for entries in _picture_tracks(path) for kind, _ in entries)


def _picture_tracks(path: Path) -> list[list[tuple[bytes, bytes]]]:
    """Return the sample descriptions of each picture track: type and content."""
    found: list[list[tuple[bytes, bytes]]] = []
    for track in _inside(_find(path, b"moov"), b"trak"):
        for media in _inside(track, b"mdia"):
            if not any(handler[8:12] == b"vide" for handler in _inside(media, b"hdlr")):
                continue
            found.append([])
            for information in _inside(media, b"minf"):
                for table in _inside(information, b"stbl"):
                    for descriptions in _inside(table, b"stsd"):
                        found[-1] += _boxes(descriptions[8:])
    return found


def _crop(entry: bytes) -> Crop:
    """Return the crop of a sample description."""
    width, height = (int.from_bytes(entry[at : at + 2], "big") for at in (24, 26))
    for aperture in _inside(entry[78:], b"clap"):
        left, right = _cut(aperture[0:8], aperture[16:24], width)
        top, bottom = _cut(aperture[8:16], aperture[24:32], height)
        if min(left, right, top, bottom) >= 0 and left + right < width and top + bottom < height:
            return Crop(top, bottom, left, right)
    return Crop()


def _cut(extent: bytes, offset: bytes, size: int) -> tuple[int, int]:
    """Pixels to remove before and after an aperture of this extent, whose centre is `offset` from the centre."""

    def fraction(data: bytes) -> Fraction:
        numerator, denominator = int.from_bytes(data[:4], "big", signed=True), int.from_bytes(data[4:8], "big")
        return Fraction(numerator, denominator or 1)

    before = -((-(fraction(offset) + (size - fraction(extent)) / 2)) // 1)
    return before, size - before - int(fraction(extent))


def _find(path: Path, name: bytes) -> bytes:
    """Return the content of a top-level box; empty if there is none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, header = int.from_bytes(head[:4], "big"), 8
            if length == 1:
                length, header = int.from_bytes(head[8:16], "big"), 16
            if head[4:8] == name and length <= _MAX_MOOV_BYTES:
                file.seek(at + header)
                return file.read((length or size - at) - header)
            if length < 8:
                break
            at += length
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and contents of consecutive boxes."""
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length


def _inside(data: bytes, name: bytes) -> Iterator[bytes]:
    return (content for found, content in _boxes(data) if found == name)
