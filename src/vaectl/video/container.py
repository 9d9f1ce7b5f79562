"""Opening a file with FFmpeg, choosing its picture stream and decoder. Each way to fail becomes one clear line.

It knows nothing of frames: what is in the stream is for `probe`, `index` and `read`.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vaectl.errors import UsageError, VaectlError
from vaectl.shortage import is_memory_shortage
from vaectl.video.messages import listening, of_this_thread

VIDEO_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg"),
    *(".ts", ".m2ts", ".mts", ".wmv", ".asf", ".flv", ".ogv", ".y4m"),
)
IMAGE_EXTENSIONS = (".png", ".apng", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

# FFmpeg guesses by content, and would also take text for a terminal recording or follow the addresses in a playlist.
# Only formats that hold pictures themselves are let in.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,m4v,asf,flv,ogg,ivf,nut,mxf,dv,yuv4mpegpipe,"
    "h264,hevc,obu,av1,apng,png_pipe,jpeg_pipe,webp_pipe,webp_anim,bmp_pipe,tiff_pipe"
)


_JPEG = b"\xff\xd8\xff"
"""Begins a JPEG. FFmpeg takes one with a second picture behind it (MPO) for a film."""
# Formats without a table of their packets, of which FFmpeg reads megabytes to find out what they hold.
_READ_AHEAD = frozenset({"flv", "asf", "ogg", "mpeg", "avi", "nut"})
LENIENT_TAGS: Mapping[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""For `av.open`: tags in another encoding than UTF-8, as old files have them, must not cost the video. PyAV 19 sees to
that by itself."""
_ACCOMPANYING = Disposition.attached_pic | Disposition.timed_thumbnails
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def is_image(container: InputContainer) -> bool:
    """True for a still image."""
    return container.format.name.endswith("_pipe") and container.format.name != "yuv4mpegpipe"


def fraction(ratio: Any) -> Fraction | None:
    """A rate, time base or aspect ratio of PyAV as an exact number; None where it is unset.

    PyAV 19 has a type of its own for these, whose products are rounded to 32 bits; earlier ones give Fraction or None.
    """
    return Fraction(ratio.numerator, ratio.denominator) if ratio else None


def frame_rate_of(stream: VideoStream) -> Fraction:
    """Average frames per second; 25 where nothing says."""
    return fraction(stream.average_rate) or fraction(stream.guessed_rate) or Fraction(25)


def _check(path: Path) -> None:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{path} is a folder, not a video", "name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is not an ordinary file", "name a video file")
        path.open("rb").close()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", "check the path") from None
    except PermissionError:
        raise UsageError(f"{path}: no permission to read it", "change its permissions or its owner") from None
    except OSError as error:
        raise VaectlError(f"{path} cannot be opened ({error.strerror})", "check the path and the disk") from None
    if status.st_size == 0:
        raise VaectlError(f"{path} is empty (0 bytes)", "get the file again")


class Opened(NamedTuple):
    """A file with its picture stream."""

    container: InputContainer
    stream: VideoStream
    problem: str | None = None
    """What the demuxer said against the part of the file that it read to find out what it holds."""


@contextmanager
def open_video(path: Path, threads: int = 0) -> Iterator[Opened]:
    """Open `path` and its picture stream, the one that players show; `threads` decode it, 0 for one on each core.

    Raises UsageError for a path that is no readable file, VaectlError for a file without a video that can be decoded.
    """
    _check(path)
    with listening():
        container, problem = _open(path)
        if problem:  # packets that were read then are not read again: have them read when they are wanted
            container.close()
            container, problem = _open(path, {"probesize": "5000", "analyzeduration": "0"})
        with container:
            streams = picture_streams(container)
            if not streams:
                held = "only sound" if container.streams.audio else "no picture"
                raise VaectlError(f"{path} holds {held}", "a file with a video stream is needed")
            stream = max(streams, key=_prominence)
            if stream.codec_context is None:
                raise VaectlError(f"{path}: no decoder for its video stream", "convert it to H.264 first")
            context = stream.codec_context
            stream.thread_type, context.thread_count = "AUTO", 1 if is_image(container) else threads
            with explain_memory_errors(path, context.width, context.height):
                yield Opened(container, stream, problem)


@contextmanager
def explain_memory_errors(path: Path, width: int, height: int) -> Iterator[None]:
    """Raises VaectlError where memory for the pictures of `path` is short; FFmpeg's errors say so as well."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_shortage(error):
            raise
        raise VaectlError(
            f"{path}: out of memory: its frames have {width}x{height} pixels", "free some, or make it smaller first"
        ) from None


def _open(path: Path, options: Mapping[str, str] = MappingProxyType({})) -> tuple[InputContainer, str | None]:
    # An image goes in as bytes, because FFmpeg takes a name such as "a%03d.png" for a numbered sequence. Other names
    # are marked as files, because a colon in them would read as a protocol.
    source: io.BytesIO | str = f"file:{path.absolute()}"
    kind = None
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        content = path.read_bytes()
        source, kind = io.BytesIO(content), "jpeg_pipe" if content.startswith(_JPEG) else None
    try:
        with of_this_thread() as messages:
            container = av.open(
                source,
                format=kind,
                options={"format_whitelist": _FORMATS, "protocol_whitelist": "file", **options},
                **LENIENT_TAGS,
            )
    except MemoryError:
        raise VaectlError(f"{path}: out of memory while opening it", "free some") from None
    except av.error.FFmpegError as error:
        raise VaectlError(
            f"{path} is not a video that can be read, or its end is missing ({error.strerror})",
            "play it to check, and get the file again",
        ) from None
    assert isinstance(container, InputContainer)
    name = container.format.name
    errors = (message.text.strip() for message in messages if message.source == name and message.is_error)
    return container, next(errors, None) if name in _READ_AHEAD else None


def picture_streams(container: InputContainer) -> list[VideoStream]:
    """All that hold moving pictures: no cover art, no thumbnails."""
    return [s for s in container.streams.video if not s.disposition & _ACCOMPANYING]


def _prominence(stream: VideoStream) -> tuple[bool, int]:
    """What players go by: the stream that is marked as the default, then the largest, then the first."""
    context = stream.codec_context
    return bool(stream.disposition & Disposition.default), context.width * context.height if context else 0


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """What decodes the stream: FFmpeg's choice, except where that leaves out the alpha of VP8 and VP9.

    In WebM alpha is a stream of its own within the packets, which only the codec's reference decoder puts together.
    """
    context = stream.codec_context
    with_alpha = _ALPHA_DECODERS.get(context.name)
    if with_alpha is None or stream.metadata.get("alpha_mode") != "1":
        return context
    decoder = av.CodecContext.create(with_alpha, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata, decoder.thread_count = context.extradata, context.thread_count
    return decoder
