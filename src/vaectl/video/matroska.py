"""Elements of Matroska and WebM files (RFC 8794, RFC 9559): their end, the first break, and the crop of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vaectl.video.crop import Crop

EBML = b"\x1aE\xdf\xa3"
_SEGMENT, _CLUSTER, _TRACKS = 0x18538067, 0x1F43B675, 0x1654AE6B
_VOID, _CRC = 0xEC, 0xBF
_MAX_HEAD_BYTES = 12
"""Longest id and size together."""
# Elements of a segment: seek head, info, tracks, cluster, cues, attachments, chapters, tags.
_LEVEL_1 = frozenset(
    {0x114D9B74, 0x1549A966, _TRACKS, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, _VOID, _CRC}
)
# Elements of a cluster: timestamp, silent tracks, position, previous size, simple block, block group, encrypted block.
_IN_CLUSTER = frozenset({0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, _VOID, _CRC})
_TOP = frozenset({int.from_bytes(EBML, "big"), _SEGMENT, _VOID, _CRC})


class _Element(NamedTuple):
    id: int
    start: int
    """Position of its content in the file, in bytes."""
    end: int | None
    """None if its size is unknown, as in a live stream."""


def end(file: BinaryIO, size: int) -> int:
    """Return the end of the last segment with a known size, in bytes. Data after it that is not Matroska is ignored."""
    at = 0
    while at < size:
        element = _read(file, at)
        if element is None or element.id not in _TOP or element.end is None:
            return at
        at = element.end
    return at


def is_live(path: Path) -> bool:
    """Whether the segment has no size. Then it was written as a stream, and may end anywhere."""
    with path.open("rb") as file:
        return any(
            element.id == _SEGMENT and element.end is None for element in _children(file, 0, path.stat().st_size)
        )


def first_break(path: Path) -> int | None:
    """Find the first place in a segment where an element should begin but does not; None if there is none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at < size:
            element = _read(file, at)
            if element is None or element.id not in _TOP:
                return None
            if element.id == _SEGMENT:
                at, broken = _through(file, element.start, min(element.end or size, size), size, _LEVEL_1)
                if broken:
                    return at
            else:
                at = size if element.end is None else element.end
    return None


def _through(file: BinaryIO, at: int, end: int, size: int, known: frozenset[int]) -> tuple[int, bool]:
    """Walk over the elements. Return where this stops, and whether the file is broken there."""
    while at < end:
        element = _read(file, at)
        if element is None:
            return at, end - at >= _MAX_HEAD_BYTES
        if element.id not in known and not _is_followed_by(file, element, end, known):
            # A cluster of unknown size ends before an element that cannot be in it.
            return at, known is _LEVEL_1 or element.id not in _LEVEL_1 | _TOP
        if element.id == _CLUSTER:
            cluster_end = end if element.end is None else min(element.end, end)
            reached, broken = _through(file, element.start, cluster_end, size, _IN_CLUSTER)
            if broken or (element.end is not None and reached < cluster_end):
                return reached, True
            at = max(cluster_end, reached) if element.end is not None else reached
        elif element.end is None:
            return at, False
        elif element.end > end and end < size:  # at the end of the file it is only cut off
            return at, True
        else:
            at = element.end
    return at, False


def _is_followed_by(file: BinaryIO, element: _Element, end: int, known: frozenset[int]) -> bool:
    """Whether a known element follows. Then this may be an element of a later version, which readers skip."""
    if element.end is None or element.end > end:
        return False
    following = _read(file, element.end)
    return element.end == end or (following is not None and following.id in known)


def crops(path: Path) -> list[Crop]:
    """Return the crop of each picture track: PixelCropTop, PixelCropBottom, PixelCropLeft and PixelCropRight."""
    size = path.stat().st_size
    found = []
    with path.open("rb") as file:
        for segment in _children(file, 0, size, _SEGMENT):
            for tracks in _children(file, segment.start, segment.end or size, _TRACKS):
                for entry in _children(file, tracks.start, tracks.end or size, 0xAE):
                    for video in _children(file, entry.start, entry.end or size, 0xE0):
                        values = {
                            element.id: _number(file, element)
                            for element in _children(file, video.start, video.end or size)
                        }
                        found.append(Crop(*(values.get(name, 0) for name in (0x54BB, 0x54AA, 0x54CC, 0x54DD))))
                return found
    return found


def _children(file: BinaryIO, at: int, end: int, wanted: int | None = None) -> Iterator[_Element]:
    """Yield consecutive elements, all or those of one id. Ends after the first element of unknown size."""
    while at < end and (element := _read(file, at)) is not None:
        if wanted in (None, element.id):
            yield element
        if element.end is None:
            return
        at = element.end


def _number(file: BinaryIO, element: _Element) -> int:
    file.seek(element.start)
    return int.from_bytes(file.read(min(8, (element.end or element.start) - element.start)), "big")


def _read(file: BinaryIO, at: int) -> _Element | None:
    """Read the element at this byte; None if there is no valid id and size (RFC 8794, 5 and 6)."""
    file.seek(at)
    head = file.read(_MAX_HEAD_BYTES)
    id_width = 9 - head[0].bit_length() if head else 9
    if id_width > 4 or len(head) <= id_width:
        return None
    length_width = 9 - head[id_width].bit_length()
    if length_width > 8 or len(head) < id_width + length_width:
        return None
    start = at + id_width + length_width
    unknown = (1 << 7 * length_width) - 1
    length = int.from_bytes(head[id_width : id_width + length_width], "big") & unknown
    return _Element(int.from_bytes(head[:id_width], "big"), start, None if length == unknown else start + length)
