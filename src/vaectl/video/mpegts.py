"""Find incomplete frames of an MPEG transport stream (ISO/IEC 13818-1, 2.4.3). Knows no pictures.

A frame is spread over transport packets of 188 bytes, with a continuity counter from 0 to 15. Where the counter jumps,
packets are missing, or two streams were joined. FFmpeg marks the frame before the jump as corrupt in both cases. The
frame is complete if a new one begins at the jump. If it is the cut end of a recording, the decoder notices.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SYNC = 0x47
_STRIDES = (188, 192, 204)
"""Bytes from one packet to the next: plain, with a time stamp before it, with error correction after it."""
_PACKETS_AT_ONCE = 2**18
"""Packets per step."""


class Continuity:
    """Jumps of the continuity counter in one stream of a file."""

    def __init__(self, path: Path, pid: int) -> None:
        self._path, self._pid = path, pid

    def is_broken(self, position: int) -> bool:
        """Whether the frame whose first transport packet begins at this byte is incomplete."""
        starts, breaks = self._starts_and_breaks
        first = bisect_right(starts, position) - 1
        end = starts[first + 1] if first + 1 < len(starts) else 2**63
        at = bisect_right(breaks, position)
        return at < len(breaks) and breaks[at] < end

    def first_break(self) -> int | None:
        """Return the first byte of the first incomplete frame; None if there is none."""
        starts, breaks = self._starts_and_breaks
        return starts[max(0, bisect_right(starts, breaks[0]) - 1)] if starts and breaks else None

    @cached_property
    def _starts_and_breaks(self) -> tuple[list[int], list[int]]:
        """Sorted byte positions: starts of frames, and places where packets are missing inside a frame."""
        data = np.memmap(self._path, np.uint8, "r")
        starts: list[int] = []
        breaks: list[int] = []
        last, expected, may_go_on = None, None, False
        for positions, heads, stride in _packets(data):
            if expected is not None and positions[0] != expected:
                breaks.append(expected)
            expected = int(positions[-1]) + stride
            ours = ((heads[:, 1] & 0x1F).astype(np.int32) << 8 | heads[:, 2]) == self._pid
            positions, heads = positions[ours], heads[ours]
            if not len(heads):
                continue
            begins, failed = heads[:, 1] & 0x40 != 0, heads[:, 1] & 0x80 != 0
            has_payload, has_field = heads[:, 3] & 0x10 != 0, heads[:, 3] & 0x20 != 0
            count = heads[:, 3].astype(np.int16) & 15
            announced = has_field & (heads[:, 4] > 0) & (heads[:, 5] & 0x80 != 0)
            before = np.concatenate(([count[0] - has_payload[0] if last is None else last], count[:-1]))
            jumps = ((before + has_payload) % 16 != count % 16) & ~announced
            repeated = (before == count) & has_payload  # a packet may be sent twice
            payload = positions + 4 + has_field * (1 + heads[:, 4].astype(np.int64))
            code = data[np.minimum(payload[:, None] + np.arange(3), len(data) - 1)]
            no_start = begins & (code != (0, 0, 1)).any(1)
            starts += positions[begins].tolist()
            breaks += positions[(jumps & ~repeated & ~begins) | failed].tolist()
            breaks += (positions[no_start] + 1).tolist()
            last, may_go_on = count[-1], not has_field[-1]
        if expected is not None and expected < len(data) and may_go_on:  # the last packet of a frame is stuffed
            breaks.append(expected)
        return starts, sorted(breaks)


def _packets(data: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8], int]]:
    """Yield the positions of transport packets, their first six bytes and their stride, in chunks."""
    at = 0
    while (found := _synchronised(data, at)) is not None:
        at, stride = found
        while len(data) - at >= 188:
            count = min(_PACKETS_AT_ONCE, (len(data) - at + stride - 188) // stride)
            positions = at + stride * np.arange(count)
            good = data[positions] == _SYNC
            positions = positions[: count if good.all() else int(good.argmin())]
            if not len(positions):
                break
            yield positions, data[positions[:, None] + np.arange(6)], stride
            at = int(positions[-1]) + stride


def _synchronised(data: NDArray[np.uint8], at: int) -> tuple[int, int] | None:
    """Find the next position from `at` on where packets begin, and their stride."""
    while at < len(data):
        window = data[at : at + 2**16]
        for candidate in np.flatnonzero(window == _SYNC):
            first = at + int(candidate)
            if len(data) - first < 188:
                return None
            for stride in _STRIDES:
                marks = data[first : first + 5 * stride : stride]
                if len(marks) >= min(5, -(-(len(data) - first) // stride)) and (marks == _SYNC).all():
                    return first, stride
        at += len(window)
    return None
