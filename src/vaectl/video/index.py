"""The index of a video: number, times and keyframes of its frames, for counting and seeking.

Reads packets and their times. Decodes only if the packets are not enough. Converts no picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from av.packet import Packet
from av.video.stream import VideoStream

from vaectl.video.clip import VideoInfo
from vaectl.video.container import Opened, fraction, open_video
from vaectl.video.decode import DamageError, decode, demux
from vaectl.video.file_cache import FileCache
from vaectl.video.raw import RAW_FORMATS, num_complete_frames
from vaectl.video.timestamps import FRAME_TIMES_TAG, true_times
from vaectl.video.truncation import CUT_SHORT, Break, first_break, may_end_anywhere

# Codecs with one shown frame in each packet (VP8: in each packet with the show_frame bit).
_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "ffv1", "prores", "mjpeg", "png", "rawvideo", "gif", "apng"}
)
# Formats with a table of all packets.
_FORMATS_WITH_TABLE = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "avi"})
# Formats that may store only decoding times. AVI stores no others.
_FORMATS_WITHOUT_PTS = frozenset({"asf", "mxf"})
_SEEKABLE_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})


@dataclass(frozen=True)
class FrameIndex:
    """All frames that can be read, in presentation order."""

    times: tuple[Fraction, ...]
    """Seconds; strictly increasing."""
    pts: tuple[int, ...]
    """The times in ticks of the stream, as in decoded frames; empty if the file has none."""
    keyframes: tuple[int, ...]
    """Sorted ticks of the frames where decoding can begin; empty if seeking is not reliable."""
    damage: str | None
    """What is wrong after these frames; None for an intact file."""


_indexes: FileCache[FrameIndex] = FileCache(200_000, lambda index: len(index.times))  # about 40 MB


class _Timing(NamedTuple):
    """Times of a packet or a frame, in ticks."""

    pts: int | None
    dts: int | None
    is_key: bool
    shift: int
    """Ticks to add to its times in a stream of several joined recordings."""
    place: tuple[int, int] = (0, 0)
    """Position of the packet in the file, and its size, in bytes."""
    is_shown: bool = True


def index_of(info: VideoInfo) -> FrameIndex:
    """Return the index of the video; that of an earlier call if the file has not changed. Raises as `build_index`."""
    return _indexes.get(info.path, lambda: build_index(info))


def build_index(info: VideoInfo) -> FrameIndex:
    """Index the video from its packets if they are enough, else by decoding it once.

    Raises UsageError or VaectlError like `open_video`.
    """
    if info.is_image:
        return FrameIndex((Fraction(0),), (), (), None)
    with open_video(info.path, brief=True) as opened:
        container, stream, _ = opened
        tick = fraction(stream.time_base) or 1 / info.frame_rate
        name = container.format.name
        seekable = name in _SEEKABLE_FORMATS
        times_tag = container.metadata.get(FRAME_TIMES_TAG)
        until = first_break(info.path, name, stream.id)
        table = [(entry.pos, entry.size) for entry in stream.index_entries if entry.size]
        packets, damage = _scan_packets(info.path, opened, until)
        reorders = stream.codec_context.codec.reorder
        may_lack_pts = name in _FORMATS_WITHOUT_PTS and reorders and stream.codec_context.has_b_frames
        has_pts = name != "avi" and not may_lack_pts  # FFmpeg's guesses fail with B-frames
    if damage is None and name == "yuv4mpegpipe" and packets and sum(packets[-1].place) < info.path.stat().st_size:
        damage = DamageError(CUT_SHORT, len(packets))  # FFmpeg returns no packet for a part of a frame
        until = Break(info.path.stat().st_size, CUT_SHORT)
    if damage is None and name in _FORMATS_WITH_TABLE and (until := _first_missing(table, packets)):
        with open_video(info.path) as opened:
            packets, damage = _scan_packets(info.path, opened, until)
    packets = [packet for packet in packets if packet.is_shown]
    whole = damage is None or (until is not None and until.reason == CUT_SHORT)  # up to its end
    if whole and has_pts and _packets_suffice(packets, info) and _begins_with(packets[0], info.path):
        frames = sorted(packets, key=_shown)
        if damage and damage.pts is not None and reorders:
            frames = [frame for frame in frames if _pts(frame) < damage.pts]
    else:
        frames, damage = _scan_frames(info.path, until)
    if damage is None and has_pts and may_end_anywhere(info.path, name):
        frames = _without_tail(frames, packets)
    if damage is None and name in RAW_FORMATS and not info.is_interlaced:
        frames = frames[: num_complete_frames(info.path, len(frames))]
    pts = [frame.pts for frame in frames if frame.pts is not None]
    shown = [frame.pts + frame.shift for frame in frames if frame.pts is not None]
    dts = sorted(packet.dts + packet.shift for packet in packets if packet.dts is not None)
    if has_pts and len(pts) == len(frames) and _is_increasing(shown):
        times = true_times([t * tick for t in shown], times_tag)
    elif len(dts) == len(frames) and _is_increasing(dts):
        times, pts = [t * tick for t in dts], []
    else:
        times, pts = [i / info.frame_rate for i in range(len(frames))], []
    keyframes = sorted(_pts(packet) for packet in packets if packet.is_key) if pts and seekable else []
    reason = str(until.reason if until and damage else damage or "") or None
    return FrameIndex(tuple(times), tuple(pts), tuple(keyframes), reason)


def _first_missing(table: Sequence[tuple[int, int]], packets: Sequence[_Timing]) -> Break | None:
    """Find the first packet that the table of an MP4 or AVI file lists, and that the file lacks."""
    if len(packets) >= len(table):
        return None
    offset = packets[0].place[0] - table[0][0] if packets else 0
    listed = [(position + offset, size) for position, size in table]
    first = next((i for i, packet in enumerate(packets) if packet.place != listed[i]), len(packets))
    return Break(listed[first][0], f"its table lists {len(table)} frames, {len(packets)} are there")


def _scan_packets(path: Path, opened: Opened, until: Break | None) -> tuple[list[_Timing], DamageError | None]:
    """Return the packets in decoding order up to the first damage, and the damage."""
    packets: list[_Timing] = []
    try:
        for packet, shift, _ in demux(path, opened, until):
            shown = not packet.is_discard and not _is_hidden_vp8(packet)  # discarded: outside the edit list
            packets.append(
                _Timing(packet.pts, packet.dts, packet.is_keyframe, shift, (packet.pos or 0, packet.size), shown)
            )
    except DamageError as damage:
        return packets[: damage.packet], damage
    return packets, None


def _is_hidden_vp8(packet: Packet[VideoStream]) -> bool:
    """Whether the show_frame bit of a VP8 frame header is not set (RFC 6386, 9.1)."""
    return packet.stream.codec_context.name == "vp8" and not memoryview(packet)[0] >> 4 & 1


def _packets_suffice(packets: list[_Timing], info: VideoInfo) -> bool:
    """Whether each packet is one frame that can be decoded, with its own time."""
    return (
        info.codec in _FRAME_PER_PACKET
        and not info.is_interlaced  # a frame may consist of two packets, one for each field
        and all(packet.pts is not None for packet in packets)
        and _is_increasing(sorted(map(_shown, packets)))
        # Frames shown before the first keyframe may refer to frames that were cut off. Then they are not decoded.
        and bool(packets)
        and packets[0].is_key
        and packets[0] == min(packets, key=_shown)
        and packets[-1].shift == 0  # the same holds at the start of every joined recording
    )


def _begins_with(packet: _Timing, path: Path) -> bool:
    """Whether decoding starts with the frame of the first packet. Some decoders skip to a better one."""
    with closing(decode(path, threads=1, leave_out=lambda _: False)) as pictures:
        try:
            first = next(pictures, None)
        except DamageError:
            return True  # reading will report it
    return first is not None and first.frame.pts == packet.pts


def _scan_frames(path: Path, until: Break | None) -> tuple[list[_Timing], DamageError | None]:
    """Return the decoded frames in presentation order up to the first damage, and the damage."""
    frames: list[_Timing] = []
    try:
        for frame, shift in decode(path, until=until):
            frames.append(_Timing(frame.pts, frame.dts, frame.key_frame, shift))
    except DamageError as damage:
        return frames, damage
    return frames, None


def _without_tail(frames: list[_Timing], packets: list[_Timing]) -> list[_Timing]:
    """Drop the last frames from the first gap on. For formats that declare no end, where a recording may have been cut.

    Frames shown after the decoding time of the last packet may have neighbours that would have been decoded later.
    """
    if len(packets) < 3 or packets[-1].dts is None:
        return frames
    complete = packets[-1].dts + packets[-1].shift
    times = [_shown(frame) for frame in frames]
    steps = [after - before for before, after in pairwise(times)]
    usual = [step for time, step in zip(times[1:], steps, strict=True) if time <= complete]
    for number, (time, step) in enumerate(zip(times[1:], steps, strict=True), 1):
        if time > complete and usual and step > max(usual) * Fraction(3, 2):
            return frames[:number]
    return frames


def _pts(timing: _Timing) -> int:
    """Its pts. Without one its dts, which differs by a delay."""
    return timing.pts if timing.pts is not None else timing.dts or 0


def _shown(timing: _Timing) -> int:
    return _pts(timing) + timing.shift


def _is_increasing(ticks: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(ticks))
