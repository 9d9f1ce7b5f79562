"""Which frames a file holds and when each is shown: the table by which frames are counted, timed and sought.

Knows packets and times, and decodes only where packets cannot tell; it converts no picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vaectl.video.clip import VideoInfo
from vaectl.video.container import fraction, open_video
from vaectl.video.intact import is_cut_short
from vaectl.video.timestamps import FRAME_TIMES_TAG, true_times

# Codecs with one shown frame in each packet (VP8: in each that says so).
_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "ffv1", "prores", "mjpeg", "png", "rawvideo", "gif", "apng"}
)
# Where each packet carries the time of its frame, so that one can seek by it.
_SEEKABLE_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
# H.264 and H.265 let that many frames be decoded before one that is shown first.
_LONGEST_REORDERING = 16


@dataclass(frozen=True)
class FrameIndex:
    """All frames that can be read, in presentation order."""

    times: tuple[Fraction, ...]
    """Seconds; strictly increasing."""
    pts: tuple[int, ...]
    """The same in ticks of the stream, as decoded frames carry them; empty where the file has no such times."""
    keyframes: tuple[int, ...]
    """Sorted ticks of the frames where decoding can begin; empty where seeking is not to be trusted."""
    damage: str | None
    """What is wrong with the file after these frames; None where nothing is."""


class _Timing(NamedTuple):
    """Of one packet, or of one frame; in ticks."""

    pts: int | None
    dts: int | None
    is_key: bool


def build_index(info: VideoInfo) -> FrameIndex:
    """Index the video from its packets where they tell all, else by decoding it once.

    Raises UsageError or VaectlError as `open_video` does.
    """
    if info.is_image:
        return FrameIndex((Fraction(0),), (), (), None)
    with open_video(info.path) as (container, stream):
        tick = fraction(stream.time_base) or 1 / info.frame_rate
        seekable = container.format.name in _SEEKABLE_FORMATS
        times_tag = container.metadata.get(FRAME_TIMES_TAG)
        packets, damage = _scan_packets(container, stream)
        has_pts = container.format.name != "avi"  # AVI stores none; FFmpeg's guesses fail with B-frames
        if has_pts and _tell_all(packets, info):
            frames = sorted(packets, key=_pts)
        else:
            frames, broken = _scan_frames(info.path)
            damage = damage or broken
    if is_cut_short(info.path):
        damage = "it is cut short"

    if damage and packets:  # the last packet may lack its end; what is missing is decoded after it
        if has_pts:  # and shown no earlier than that
            frames = [frame for frame in frames if _pts(frame) < (packets[-1].dts or 0)]
        else:
            frames = frames[: max(0, len(packets) - _LONGEST_REORDERING)]
    pts = [frame.pts for frame in frames if frame.pts is not None]
    dts = sorted(packet.dts for packet in packets if packet.dts is not None)
    if has_pts and len(pts) == len(frames) and _is_increasing(pts):
        times = true_times([t * tick for t in pts], times_tag)
    elif len(dts) == len(frames) and _is_increasing(dts):
        times, pts = [t * tick for t in dts], []
    else:
        times, pts = [i / info.frame_rate for i in range(len(frames))], []
    keyframes = sorted(_pts(packet) for packet in packets if packet.is_key) if pts and seekable else []
    return FrameIndex(tuple(times), tuple(pts), tuple(keyframes), damage)


def _scan_packets(container: InputContainer, stream: VideoStream) -> tuple[list[_Timing], str | None]:
    """The packets of frames that are shown, in decoding order, up to the first damage, and what that is."""
    packets: list[_Timing] = []
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                return packets, "a packet is damaged"
            # Empty: PyAV's mark of the end, or an AVI's that the frame before stays. Discarded: outside the edit list.
            if packet.size and not packet.is_discard and not _is_hidden_vp8(packet):
                packets.append(_Timing(packet.pts, packet.dts, packet.is_keyframe))
    except av.error.FFmpegError as error:
        return packets, f"reading fails ({error.strerror})"
    return packets, None


def _is_hidden_vp8(packet: Packet[VideoStream]) -> bool:
    """The show_frame bit of a VP8 frame header (RFC 6386, 9.1) is not set."""
    return packet.stream.codec_context.name == "vp8" and not memoryview(packet)[0] >> 4 & 1


def _tell_all(packets: list[_Timing], info: VideoInfo) -> bool:
    """True where each packet is one frame that will be decoded, with a time of its own."""
    return (
        info.codec in _FRAME_PER_PACKET
        and not info.is_interlaced  # two packets, one for each half-picture, may make a frame
        and all(packet.pts is not None for packet in packets)
        and _is_increasing(sorted(map(_pts, packets)))
        # Frames shown before the first keyframe may need what came before the file was cut, and are then not decoded.
        and bool(packets)
        and packets[0].is_key
        and packets[0] == min(packets, key=_pts)
    )


def _scan_frames(path: Path) -> tuple[list[_Timing], str | None]:
    """The frames that decoding gives, in presentation order, up to the first damage, and what that is."""
    frames: list[_Timing] = []
    with open_video(path) as (container, stream):
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    return frames, "a frame is damaged"
                frames.append(_Timing(frame.pts, frame.dts, frame.key_frame))
        except av.error.FFmpegError as error:
            return frames, f"decoding fails ({error.strerror})"
    return frames, None


def _pts(timing: _Timing) -> int:
    """Its pts, or where the file has none, its dts: the same but for a delay."""
    return timing.pts if timing.pts is not None else timing.dts or 0


def _is_increasing(ticks: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(ticks))
