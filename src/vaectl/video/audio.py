"""Copy the audio of one file into another while its video is written.

Tracks are copied packet by packet. A track that the target cannot hold is encoded again. Packets come one by one in
time order, so memory does not grow with the file. Knows no pixels; `write` decides when a packet is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from vaectl.video.container import LENIENT_TAGS

# Codecs that common players play in each container (fewer than it can store), and the encoder for all others. None: all
# that the muxer takes.
_HOLDS: dict[str, tuple[frozenset[str] | None, str]] = {
    "mp4": (frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}), "aac"),
    "mov": (
        frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"}),
        "aac",
    ),
    "webm": (frozenset({"opus", "vorbis"}), "libopus"),
    "matroska": (None, "flac"),
}
_EDIT_LISTS = frozenset({"mp4", "mov"})
"""Containers that can start in the middle of a packet. The others hold no time below 0."""


def can_hold_audio(container: str) -> bool:
    """Whether vaectl writes audio into this container (FFmpeg's format name)."""
    return container in _HOLDS


@dataclass(frozen=True)
class AudioTrack:
    """One audio stream of a source and its place in the target."""

    source: Path
    index: int
    target: AudioStream
    encoded: bool
    """Whether the track is encoded again instead of copied."""


@dataclass(frozen=True)
class TimedPacket:
    """A packet of the target, and its time in seconds of the target."""

    time: Fraction
    packet: Packet[AudioStream]


def add_audio(source: Path, target: OutputContainer, warn: Callable[[str], None]) -> tuple[AudioTrack, ...]:
    """Add a stream to `target` for each audio stream of `source`. Call it before the header is written.

    Broken audio raises no error: what cannot be copied is left out with a warning.
    """
    tracks: list[AudioTrack] = []
    try:
        with _opened(source) as container:
            for stream in container.streams.audio:
                try:
                    tracks.append(_add_track(source, stream, target, warn))
                except MemoryError:
                    raise
                except (av.FFmpegError, ValueError) as error:
                    warn(f"{source}: audio stream {stream.index} is left out: {error}")
    except MemoryError:
        raise
    except (av.FFmpegError, OSError) as error:
        warn(f"{source}: the audio is left out: {error}")
    return tuple(tracks)


def _add_track(source: Path, stream: AudioStream, target: OutputContainer, warn: Callable[[str], None]) -> AudioTrack:
    context: AudioCodecContext | None = stream.codec_context
    if context is None or not context.sample_rate or not context.layout.nb_channels:
        raise ValueError("its codec or its sample rate is unknown")
    held, encoder = _HOLDS[target.format.name]
    copied = context.codec.canonical_name in (target.supported_codecs if held is None else held)
    if copied:
        added = target.add_stream_from_template(stream, opaque=True)
    else:
        added = _add_encoder(target, av.Codec(encoder, "w"), context)
        name = f"{target.format.name} does not hold {context.codec.canonical_name} audio"
        warn(f"{source}: {name}: stream {stream.index} is encoded again as {added.codec_context.codec.canonical_name}")
    for key in {"language", "title"} & stream.metadata.keys():
        added.metadata[key] = stream.metadata[key]
    return AudioTrack(source, stream.index, added, encoded=not copied)


def _add_encoder(target: OutputContainer, encoder: av.Codec, context: AudioCodecContext) -> AudioStream:
    rates = encoder.audio_rates or [context.sample_rate]
    channels = context.layout.nb_channels
    added = target.add_stream(encoder.name, rate=context.sample_rate if context.sample_rate in rates else 48000)
    assert isinstance(added, AudioStream)
    added.codec_context.layout = {1: "mono", 2: "stereo"}.get(channels, "5.1" if channels >= 6 else "stereo")
    added.codec_context.bit_rate = 96_000 * added.codec_context.layout.nb_channels
    return added


def audio_packets(
    tracks: tuple[AudioTrack, ...], origin: Fraction, warn: Callable[[str], None]
) -> Iterator[TimedPacket]:
    """Yield the packets of all tracks in time order, shifted so that `origin` (s) of the source becomes 0.

    A broken track ends early, with a warning.
    """
    return heapq.merge(*(_track_packets(track, origin, warn) for track in tracks), key=lambda timed: timed.time)


def _track_packets(track: AudioTrack, origin: Fraction, warn: Callable[[str], None]) -> Iterator[TimedPacket]:
    last = None
    try:
        with _opened(track.source) as container:
            stream = container.streams[track.index]
            assert isinstance(stream, AudioStream)
            shift = round(origin / (stream.time_base or 1))
            packets = (
                _encoded(track, container, stream, shift, warn) if track.encoded else _copied(container, stream, shift)
            )
            for packet in packets:
                packet.stream = track.target
                time = (packet.dts or 0) * packet.time_base
                if last is None and not _can_begin(track.target, time):
                    continue
                if last is not None and time <= last:
                    raise ValueError(f"its times run backwards at {float(time):.3f} s")
                last = time
                yield TimedPacket(time, packet)
    except MemoryError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        warn(f"{track.source}: audio stream {track.index} ends early: {error}")


def _can_begin(target: AudioStream, time: Fraction) -> bool:
    """Whether a track may start at this time (s). Times below 0 need an edit list, or the priming of Matroska."""
    # The millisecond keeps a first packet whose time the container rounded.
    in_priming = time >= -_priming(target.codec_context) - Fraction(1, 1000)
    return in_priming or target.container.format.name in _EDIT_LISTS


def _copied(container: InputContainer, stream: AudioStream, shift: int) -> Iterator[Packet[AudioStream]]:
    for packet in container.demux(stream):
        pts = packet.pts if packet.pts is not None else packet.dts
        if pts is not None:  # None: the empty packet that ends the stream
            packet.pts = packet.dts = pts - shift
            yield packet


def _encoded(
    track: AudioTrack, container: InputContainer, stream: AudioStream, shift: int, warn: Callable[[str], None]
) -> Iterator[Packet[AudioStream]]:
    damaged = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.FFmpegError:
            damaged += 1
            continue
        for frame in frames:
            if frame.pts is not None:
                frame.pts -= shift
            yield from track.target.encode(frame)
    yield from track.target.encode(None)
    if damaged:
        warn(f"{track.source}: audio stream {track.index} is damaged: {damaged} packets are left out")


def _opened(path: Path) -> InputContainer:
    # "file:", because a colon in the name would read as a protocol.
    container = av.open(f"file:{path.absolute()}", **LENIENT_TAGS)
    assert isinstance(container, InputContainer)
    return container


def _priming(context: AudioCodecContext) -> Fraction:
    """Seconds that an Opus decoder drops at the start. In Matroska a track may start that much below 0."""
    header = context.extradata or b""
    return Fraction(int.from_bytes(header[10:12], "little"), 48000) if header[:8] == b"OpusHead" else Fraction(0)
