"""Find the first broken block of an FLV, IVF, Ogg, MXF or ASF (WMV) file. Their blocks declare their sizes.

FFmpeg returns an incomplete block as if it were complete, and skips damage up to the next block.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_PACKET = b"\x82\0\0"
"""First bytes of a packet with the usual error correction field."""
_MXF_KEY = b"\x06\x0e\x2b\x34"
_ORDINARY_BLOCK_BYTES = 2**20
"""A plausible block size. A block that is much larger than this and all earlier ones, and than the file, is damaged."""
_FLV_TAGS = frozenset({8, 9, 18})
"""Audio, video, data."""


def first_break(path: Path, container: str) -> tuple[int, bool] | None:
    """Find the first block that is damaged or cut off. Return its byte position, and whether it is only cut off.

    None if all blocks are complete, and for other containers. `container` is FFmpeg's name of the format.
    """
    if container == "asf":
        return _first_break_of_asf(path)
    if container not in _ROWS:
        return None
    size = path.stat().st_size
    start, end_of = _ROWS[container]
    with path.open("rb") as file:
        at = before = start(file)
        largest = _ORDINARY_BLOCK_BYTES
        while at < size:
            file.seek(at)
            end = end_of(file, at, size)
            if end is None or (end > size and end - at > 4 * largest):
                return before, False  # the damage may begin in the block before
            if end > size:
                return at, True
            before, at, largest = at, end, max(largest, end - at)
    return None


def _flv_start(file: BinaryIO) -> int:
    return int.from_bytes(file.read(9)[5:], "big") + 4


def _flv_end(file: BinaryIO, at: int, size: int) -> int | None:
    """End of a tag with its size, which is repeated after it (Adobe Flash Video File Format 10.1, E.4.1)."""
    head = file.read(11)
    if len(head) == 11 and not _is_flv_tag(head):
        return None
    length = 11 + int.from_bytes(head[1:4], "big")
    if at + length + 4 > size:
        return at + length if at + length == size else size + 1
    file.seek(at + length)
    again, following = int.from_bytes(file.read(4), "big"), file.read(11)
    # Some writers store another number there. Then the next tag shows whether this one is complete.
    return at + length + 4 if again == length or _is_flv_tag(following) or not following else None


def _is_flv_tag(head: bytes) -> bool:
    return len(head) == 11 and head[0] & 0x1F in _FLV_TAGS and head[8:] == bytes(3)


def _ivf_start(file: BinaryIO) -> int:
    return int.from_bytes(file.read(8)[6:], "little")


def _ivf_end(file: BinaryIO, at: int, _size: int) -> int | None:
    length = int.from_bytes(file.read(4), "little")
    return at + 12 + length if length else None


def _mxf_start(file: BinaryIO) -> int:
    """Start of the header partition, after a run-in of up to 64 KiB (SMPTE 377, 6.5)."""
    return max(0, file.read(2**16 + 4).find(_MXF_KEY))


def _mxf_end(file: BinaryIO, at: int, size: int) -> int | None:
    """End of a key and its value (SMPTE 336). The length is one byte below 128, or the width of the number after it."""
    head = file.read(25)
    if len(head) < 17:
        return size + 1
    if head[:4] != _MXF_KEY:
        return None
    longer = head[16] & 0x7F if head[16] & 0x80 else 0
    length = int.from_bytes(head[17 : 17 + longer], "big") if longer else head[16]
    return at + 17 + longer + length if longer <= 8 else None


def _ogg_end(file: BinaryIO, at: int, size: int) -> int | None:
    """End of a page (RFC 3533, 6)."""
    head = file.read(27)
    if len(head) < 27:
        return size + 1
    return at + 27 + head[26] + sum(file.read(head[26])) if head[:4] == b"OggS" else None


_Start = Callable[[BinaryIO], int]
_End = Callable[[BinaryIO, int, int], int | None]
_ROWS: dict[str, tuple[_Start, _End]] = {
    "flv": (_flv_start, _flv_end),
    "ivf": (_ivf_start, _ivf_end),
    "mxf": (_mxf_start, _mxf_end),
    "ogg": (lambda _: 0, _ogg_end),
}


def _first_break_of_asf(path: Path) -> tuple[int, bool] | None:
    """ASF packets have one size. The header counts them, except in a live recording (ASF, 3.2 and 5.2)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(2**20)
        length = int.from_bytes(head[16:24], "little")
        place, data = head.find(_FILE_PROPERTIES), head[length : length + 50]
        if place < 0 or data[:16] != _ASF_DATA:
            return None
        properties = head[place : place + 104]
        packets, flags = int.from_bytes(properties[56:64], "little"), properties[88]
        packet = int.from_bytes(properties[92:96], "little")
        first = length + 50
        if packet == 0 or properties[92:96] != properties[96:100]:
            return None
        whole = (size - first) // packet
        count = whole if flags & 1 else packets
        file.seek(first)
        if file.read(3) != _ASF_PACKET:
            return None
        for number in range(1, min(whole, count)):
            file.seek(first + number * packet)
            if file.read(3) != _ASF_PACKET:
                # The damage may begin in the packet before, and the damaged frame one packet earlier.
                return first + max(0, number - 2) * packet, False
        return (first + max(0, whole - 1) * packet, True) if whole < count else None
