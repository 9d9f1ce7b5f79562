"""Find missing frames at the end of raw H.264 and H.265 streams, which have no times.

A recording that was cut may lack frames that are shown before its last one. Decoders do not report them. Each picture
has a number in display order (ITU-T H.264, 8.2.1; H.265, 8.3.1), and FFmpeg's filter `trace_headers` logs them.
The last picture of H.265 is complete if it decodes to the same pixels whatever bytes follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import av
from av import logging
from av.bitstream import BitStreamFilterContext
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from vaectl.video.container import open_video
from vaectl.video.messages import messages_of, of_this_thread

RAW_FORMATS = frozenset({"h264", "hevc"})
_FILLER_BYTES = 4096
"""Bytes appended to the last picture: more than a decoder reads in advance."""
_MAX_REORDERED_FRAMES = 16
_ELEMENT = re.compile(r"\d+ +(\w+) +[01]+ = (\d+)")
_RESETS = {"h264": (5,), "hevc": (19, 20)}
"""Types of the NAL units that restart the numbers."""


def num_complete_frames(path: Path, num_frames: int) -> int:
    """Return how many of the `num_frames` decoded frames come before the first missing or incomplete one.

    All of them if there is no sign of a cut, or if the numbers are unknown.
    """
    return min(_before_gap(path, num_frames), _before_cut(path, num_frames))


def _before_cut(path: Path, num_frames: int) -> int:
    """Number of frames that stay the same whatever bytes follow the file.

    FFmpeg's H.265 decoder stops at the end of a complete picture. If the end is missing, it decodes the bytes that
    follow, and reports no error.
    """
    with open_video(path, threads=1) as (container, stream, _):
        if container.format.name != "hevc":
            return num_frames
        before: list[bytes] = []
        packets: list[bytes] = []
        for packet in container.demux(stream):
            if packet.is_keyframe:
                before, packets = packets, []
            if packet.size:
                packets.append(bytes(packet))
        packets = before + packets  # frames shown before the last keyframe may refer to the one before
        parameters = stream.codec_context.extradata
    one, other = (_pictures(parameters, packets, filler) for filler in (b"\x55", b"\xaa"))
    if len(one) != len(other):
        return num_frames - max(len(one), len(other)) + min(len(one), len(other))
    changed = next((place for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), len(one))
    return num_frames - len(one) + changed


def _pictures(parameters: bytes | None, packets: list[bytes], filler: bytes) -> list[bytes]:
    """Hashes of the decoded pictures, with `filler` after the last packet."""
    decoder = CodecContext.create("hevc", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata, decoder.thread_count = parameters, 1
    hashes = []
    for number, data in enumerate((*packets, None), 1):
        rest = filler * _FILLER_BYTES if number == len(packets) else b""
        with of_this_thread(), suppress(av.error.FFmpegError):
            for frame in decoder.decode(None if data is None else Packet(data + rest)):
                hashes.append(blake2b(b"".join(bytes(plane) for plane in frame.planes)).digest())
    return hashes


def _before_gap(path: Path, num_frames: int) -> int:
    """Number of frames before the first missing number among the last ones."""
    orders = _orders(path)
    if len(orders) != num_frames:
        return num_frames
    shown = sorted(orders)
    steps = [later[1] - earlier[1] for earlier, later in pairwise(shown) if earlier[0] == later[0]]
    gaps = [
        place
        for place, (earlier, later) in enumerate(pairwise(shown), 1)
        if earlier[0] == later[0] and later[1] - earlier[1] > min(steps)
    ]
    if not gaps or gaps[0] < num_frames - _MAX_REORDERED_FRAMES:  # or the encoder skips numbers everywhere
        return num_frames
    return min(gaps[0], shown.index(orders[-1]))  # the last packet may be incomplete


def _orders(path: Path) -> list[tuple[int, int]]:
    """For each packet: the restarts of the numbers up to it, and its number since. Empty if unknown."""
    orders: list[tuple[int, int]] = []
    group, number, modulus = 0, 0, 16
    with open_video(path) as (container, stream, _), _logging_info():
        resets = _RESETS[container.format.name]
        trace = BitStreamFilterContext("trace_headers", stream)
        for packet in container.demux(stream):
            if not packet.size:
                continue
            try:
                with of_this_thread() as lines:
                    trace.filter(packet)
            except MemoryError:
                raise
            except av.error.FFmpegError:
                return []
            low, begins = None, False
            for element in filter(None, (_ELEMENT.match(message.text) for message in messages_of(lines))):
                name, value = element[1], int(element[2])
                if name == "log2_max_pic_order_cnt_lsb_minus4":
                    modulus = 1 << value + 4
                elif name == "nal_unit_type":
                    begins = begins or value in resets
                elif name.endswith("pic_order_cnt_lsb") and low is None:
                    low = value
            if begins:
                group, number = group + 1, low or 0
            elif low is None:
                return []
            else:
                number += (low - number + modulus // 2) % modulus - modulus // 2
            orders.append((group, number))
    return orders


@contextmanager
def _logging_info() -> Iterator[None]:
    """Let FFmpeg log at the level INFO inside the block."""
    before = logging.get_level()
    logging.set_level(logging.INFO)
    try:
        yield
    finally:
        logging.set_level(before)
