"""Packets and pictures of a stream, up to the first that is damaged or missing. FFmpeg's log messages count as damage.

A valid stream may cause errors too: if it begins between two keyframes, at its start or after a seam, its first packets
refer to missing ones. So messages count only from the first keyframe on, and not for pictures shown before it.

Knows packets and pictures, but neither their numbers nor their times.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from functools import partial
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vaectl.video.container import Opened, decoder_of, fraction, frame_rate_of, open_video
from vaectl.video.messages import OtherThreads, messages_of, of_this_thread
from vaectl.video.mpegts import Continuity
from vaectl.video.truncation import Break

_UNMARKED = frozenset({"gif", "apng"})
"""Formats for which FFmpeg returns the last packet of a truncated file as if it were complete."""
_HEADER = "Header packet passed to frame decoder"
"""Message of the Theora decoder where two Ogg files were joined."""
_MAX_GAP_SECONDS, _MAX_OVERLAP_SECONDS = 10, Fraction(1, 10)
"""A larger step in time, forward or back, means that another recording begins. Limits of FFmpeg."""


class DamageError(Exception):
    """The next frame is damaged or missing. The message says why, in a few words."""

    def __init__(self, reason: str, packet: int, pts: int | None = None, frames: Sequence[VideoFrame] = ()) -> None:
        super().__init__(reason)
        self.packet = packet
        """Number of the first damaged or missing packet, in decoding order."""
        self.pts = pts
        """Ticks. Decoded frames are complete if they are shown before this time. None if the file has no times."""
        self.frames = frames
        """Frames that the decoder returned for that packet."""


class _AgainWithOneThreadError(Exception):
    """There is an error, and several threads cannot say in which packet."""


class TimedPacket(NamedTuple):
    """A packet and its place in a stream that may consist of several joined recordings."""

    packet: Packet[VideoStream]
    shift: int
    """Ticks to add to its times, so that they continue from the recording before."""
    begins: bool
    """Whether it is the first packet of a recording."""


class Picture(NamedTuple):
    """A decoded frame."""

    frame: VideoFrame
    shift: int
    """Ticks to add to its times: see `TimedPacket`."""


def demux(path: Path, opened: Opened, until: Break | None = None) -> Iterator[TimedPacket]:
    """Yield the packets of a stream in decoding order, without empty ones.

    `until` is where the file is known to be broken. Raises DamageError before the packet at that place or at the end,
    and for a packet that is damaged or cannot be read.
    """
    container, stream, problem = opened
    continuity = Continuity(path, stream.id) if container.format.name == "mpegts" else None
    joins, isobmff = _Joins(container, stream), container.format.name.startswith("mov,")
    packets = container.demux(stream)
    number, last, after_seam = 0, None, False
    while True:
        missing = number, None if last is None else last + 1
        try:
            with of_this_thread() as lines:
                packet = next(packets, None)
        except MemoryError:
            if until is None and not _fits_into_memory(path):
                raise
            raise DamageError(until.reason if until else "a size in it is wrong", *missing) from None
        except av.error.FFmpegError as error:
            raise DamageError(f"reading fails: {error.strerror}", *missing) from None
        for message in messages_of(lines) if lines else ():
            if message.source == container.format.name and message.is_error:
                raise DamageError(f"reading fails: {message.text.strip()}", *missing)
        if packet is None:
            if until is not None:
                lacks_its_end = container.format.name in _UNMARKED
                raise DamageError(until.reason, number - lacks_its_end, missing[1])
            if problem is not None:
                raise DamageError(f"reading fails: {problem}", *missing)
            return
        if not packet.size:  # PyAV's end marker, or a repeated frame of AVI
            continue
        if until is not None and packet.pos is not None and packet.pos >= until.position:
            raise DamageError(until.reason, *missing)
        seam = continuity is not None and packet.is_corrupt and not continuity.is_broken(packet.pos or 0)
        if packet.is_corrupt and not seam:
            raise DamageError("a packet is damaged", number, packet.dts)
        if isobmff and last is not None and packet.dts is not None and packet.dts < last:  # of joined files
            raise DamageError("its times run backwards", *missing)
        packet.is_corrupt = False
        placed = joins.place(packet, after_seam=after_seam)
        if placed is None:
            raise DamageError("frames are missing", *missing)
        yield TimedPacket(packet, *placed)
        number, last, after_seam = number + 1, packet.dts, seam


def _fits_into_memory(path: Path) -> bool:
    """Whether there is memory for a packet of the size of the file, and so for each of its packets."""
    try:
        bytearray(path.stat().st_size)
    except MemoryError:
        return False
    return True


class _Joins:
    """Finds where recordings were joined: there the times of a transport stream or Ogg file jump."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._may_jump = bool(Flags.ts_discont & Flags(container.format.flags))
        self._second = round(1 / (fraction(stream.time_base) or 1))
        self._step = round(self._second / frame_rate_of(stream))
        self._expected: int | None = None
        self._shift = 0

    def place(self, packet: Packet[VideoStream], *, after_seam: bool) -> tuple[int, bool] | None:
        """Return the shift of the packet's times in ticks, and whether a recording begins with it.

        Return None for a gap in time after a possible seam, because frames were lost there.
        """
        if not self._may_jump:
            return self._shift, False
        known = [ticks for ticks in (packet.dts, packet.pts) if ticks is not None]
        if not known:
            return self._shift, False
        time = min(known)  # FFmpeg may derive a missing one from the recording before
        ahead = 0 if self._expected is None else time + self._shift - self._expected
        if after_seam and self._step / 2 < ahead <= _MAX_GAP_SECONDS * self._second:
            return None
        begins = ahead > _MAX_GAP_SECONDS * self._second or ahead < -_MAX_OVERLAP_SECONDS * self._second
        if begins:
            self._shift -= ahead
        self._step = packet.duration or self._step
        self._expected = time + self._shift + self._step
        return self._shift, begins


def decode(
    path: Path,
    threads: int = 0,
    keyframe: int | None = None,
    until: Break | None = None,
    leave_out: Callable[[Packet[VideoStream]], bool] | None = None,
) -> Generator[Picture]:
    """Yield the pictures of a video in presentation order, starting at the keyframe with time `keyframe` (ticks).

    Args:
        threads: decode threads, 0 for all cores.
        until: see `demux`.
        leave_out: whether not to decode a packet. Then the file is opened briefly (see `open_video`), and any error is
            a DamageError without details.

    Raises DamageError before the first damaged or missing picture, and UsageError or VaectlError as `open_video` does.
    """
    given = 0
    if threads != 1:
        try:
            with closing(_decode(path, threads, keyframe, until, leave_out)) as pictures:
                for picture in pictures:
                    yield picture
                    given += 1
            return
        except _AgainWithOneThreadError:
            if leave_out is not None:  # it may decide otherwise the second time
                raise DamageError("", 0) from None
    with closing(_decode(path, 1, keyframe, until, leave_out)) as pictures:
        yield from islice(pictures, given, None)


def first_frame(path: Path, opened: Opened) -> tuple[VideoFrame | None, str | None]:
    """Return the first frame that can be decoded, if any, and the first problem up to it, if any."""
    decoder = decoder_of(opened.stream)
    problem = None
    try:
        for packet, *_ in demux(path, opened):
            frames, trouble = decode_packet(decoder, packet)
            problem = problem or trouble
            if frames:
                return frames[0], problem
    except DamageError as damage:
        problem = problem or str(damage)
    frames, trouble = decode_packet(decoder, None)
    return next(iter(frames), None), problem or trouble


def _decode(
    path: Path,
    threads: int,
    keyframe: int | None,
    until: Break | None,
    leave_out: Callable[[Packet[VideoStream]], bool] | None,
) -> Generator[Picture]:
    shifts: list[int] = []
    """Shift of each packet, by its number."""

    def picture(frame: VideoFrame) -> Picture:
        return Picture(frame, shifts[_number(frame, shifts)])

    with open_video(path, threads, brief=leave_out is not None) as opened:
        decoder = decoder_of(opened.stream)
        decoder.copy_opaque = True
        if keyframe is not None:
            opened.container.seek(keyframe, stream=opened.stream)
        try:
            yield from map(picture, _frames(decoder, demux(path, opened, until), shifts, threads, leave_out))
        except DamageError as damage:
            if threads != 1:
                raise _AgainWithOneThreadError from None
            # Without times, the frames still in the decoder may be shown after the missing ones.
            held = _flush(decoder) if damage.pts is not None or not decoder.codec.reorder else ()
            rest = takewhile(partial(_is_whole, damage=damage, shifts=shifts), chain(damage.frames, held))
            yield from map(picture, rest)
            raise
        finally:
            if threads != 1:
                # A thread that logs waits for the GIL. PyAV holds the GIL while it frees a decoder and waits for its
                # threads. So the threads must be idle by then.
                decoder.flush_buffers()


def _frames(
    decoder: VideoCodecContext,
    packets: Iterator[TimedPacket],
    shifts: list[int],
    threads: int,
    leave_out: Callable[[Packet[VideoStream]], bool] | None,
) -> Generator[VideoFrame, None, None]:
    """Yield the decoder's frames up to the first problem. Appends the shift of each packet to `shifts`."""
    others = OtherThreads(decoder.name) if threads != 1 else None
    start: Packet[VideoStream] | None = None
    begun: int | None = None
    for packet, shift, begins in packets:
        if begins:  # the next recording does not refer to this one
            yield from _flush(decoder)
            decoder.flush_buffers()
            start = begun = None
        number = len(shifts)
        if packet.is_keyframe and start is None:
            start, begun = packet, number
        packet.opaque = number
        shifts.append(shift)
        if leave_out is not None and leave_out(packet):
            continue
        frames, problem = decode_packet(decoder, packet)
        if problem and start is not None and not _is_shown_before(packet, start):
            raise DamageError(problem, number, packet.pts, frames)
        if others and others.logged_an_error():
            raise _AgainWithOneThreadError
        for frame in frames:
            if not frame.is_corrupt:
                yield frame
            elif begun is not None and begun <= _number(frame, shifts):
                raise DamageError("a frame is damaged", _number(frame, shifts), frame.pts)
    frames, problem = decode_packet(decoder, None)
    if problem or (others and others.logged_an_error()):
        raise DamageError(problem or "", len(shifts) - 1, None, frames)
    yield from frames


def decode_packet(decoder: VideoCodecContext, packet: Packet[Any] | None) -> tuple[list[VideoFrame], str | None]:
    """Decode a packet (None: flush). Return the frames, and the error of the decoder if there is one.

    Needs `vaectl.video.messages.listening`.
    """
    frames: list[VideoFrame] = []
    failure = None
    with of_this_thread() as lines:
        try:
            frames = decoder.decode(packet)
        except av.error.EOFError:
            pass  # already flushed
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            failure = f"decoding fails: {error.strerror}"
    if not lines:
        return frames, failure
    messages = messages_of(lines)
    if any(_HEADER in message.text for message in messages):
        return frames, None
    problem = next((message.text.strip() for message in messages if message.is_error), None)
    return frames, f"decoding fails: {problem}" if problem else failure


def _flush(decoder: VideoCodecContext) -> Iterator[VideoFrame]:
    """Yield the frames that are still in the decoder."""
    yield from decode_packet(decoder, None)[0]


def _number(frame: VideoFrame, shifts: Sequence[int]) -> int:
    """Number of the packet that the frame was decoded from; the newest if the decoder does not say."""
    number = frame.opaque
    return number if isinstance(number, int) else len(shifts) - 1


def _is_whole(frame: VideoFrame, damage: DamageError, shifts: Sequence[int]) -> bool:
    late = damage.pts is not None and frame.pts is not None and frame.pts >= damage.pts
    return not frame.is_corrupt and not late and _number(frame, shifts) < damage.packet


def _is_shown_before(packet: Packet[VideoStream], keyframe: Packet[VideoStream]) -> bool:
    """Whether the packet is decoded after the keyframe but shown before it: it may refer to older frames (open GOP)."""
    return packet.pts is not None and keyframe.pts is not None and packet.pts < keyframe.pts
