"""Open a file with FFmpeg, and choose its picture stream and decoder. Each failure becomes one clear line.

Knows nothing about frames: `probe`, `index` and `read` interpret the stream.
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
from vaectl.video.gif import with_controls
from vaectl.video.messages import listening, messages_of, of_this_thread
from vaectl.video.unsupported import heif_kind, unsupported_kind

VIDEO_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg"),
    *(".ts", ".m2ts", ".mts", ".wmv", ".asf", ".flv", ".ogv", ".y4m"),
)
IMAGE_EXTENSIONS = (".png", ".apng", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

# FFmpeg guesses the format by content. It would read text as a terminal recording, and follow a playlist.
# So only formats that contain pictures are allowed.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,m4v,asf,flv,ogg,ivf,nut,mxf,dv,yuv4mpegpipe,"
    "h264,hevc,obu,av1,apng,png_pipe,jpeg_pipe,webp_pipe,webp_anim,bmp_pipe,tiff_pipe"
)


_JPEG = b"\xff\xd8\xff"
"""First bytes of a JPEG. FFmpeg would read one with a second picture after it (MPO) as a video."""
# Formats without a packet table. FFmpeg reads megabytes of them to find their streams.
_READ_AHEAD = frozenset({"flv", "asf", "ogg", "mpeg", "avi", "nut"})
# Of `open_video`. FFmpeg then reads no more than one packet to learn about the streams, and decodes none: for that it
# would need a decoder on the list of those allowed to the demuxer.
_BRIEF = {"probesize": "32", "analyzeduration": "0", "fpsprobesize": "0", "codec_whitelist": "none"}
LENIENT_TAGS: Mapping[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""For `av.open`: read files whose tags are not UTF-8, such as old ones. PyAV 19 does this by default."""
_CONVERT = "the file may be fine: convert it to PNG, or to H.264 in MP4"
_ACCOMPANYING = Disposition.attached_pic | Disposition.timed_thumbnails
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def is_image(container: InputContainer) -> bool:
    """Whether the container is a still image. A GIF of one frame is."""
    name = container.format.name
    if name == "gif":
        return [stream.frames for stream in container.streams.video] == [1]
    return name.endswith("_pipe") and name != "yuv4mpegpipe"


def fraction(ratio: Any) -> Fraction | None:
    """Convert a rate, time base or aspect ratio of PyAV to an exact number; None if unset.

    PyAV 19 has its own type for these, whose products are rounded to 32 bits. Earlier versions return Fraction or None.
    """
    return Fraction(ratio.numerator, ratio.denominator) if ratio else None


def frame_rate_of(stream: VideoStream) -> Fraction:
    """Return the average frames per second; 25 if unknown."""
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


def _is_isobmff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _heif_kind(path: Path) -> str | None:
    with path.open("rb") as file:
        return heif_kind(file.read(12))


class Opened(NamedTuple):
    """A file with its picture stream."""

    container: InputContainer
    stream: VideoStream
    problem: str | None = None
    """The error that the demuxer reported in the part of the file that it read to find the streams."""


@contextmanager
def open_video(path: Path, threads: int = 0, *, brief: bool = False) -> Iterator[Opened]:
    """Open `path` and the picture stream that players show. `threads` is the number of decode threads, 0 for all cores.

    `brief` opens an MP4 or MOV file, whose header describes all streams, without decoding its first frames to learn
    more. Then the pixel format and the frame rate may be unknown, and a decoder may have to learn the order of frames.

    Raises UsageError if `path` is not a readable file, VaectlError if it holds no video that can be decoded.
    """
    _check(path)
    with listening():
        container, problem = _open(path, _BRIEF if brief and _is_isobmff(path) else {})
        if problem:  # read as little as possible now, so that the damaged packets are read again later
            container.close()
            container, problem = _open(path, {"probesize": "5000", "analyzeduration": "0"})
        with container:
            streams = picture_streams(container)
            if not streams:
                held = "only sound" if container.streams.audio else "no picture"
                raise VaectlError(f"{path} holds {held}", "a file with a video stream is needed")
            if len(streams) > 1 and (kind := _heif_kind(path)) is not None:
                raise VaectlError(f"{path}: {kind} files of several pictures are not supported", _CONVERT)
            stream = max(streams, key=_prominence)
            if stream.codec_context is None:
                raise VaectlError(f"{path}: its codec is not supported: FFmpeg has no decoder", _CONVERT)
            context = stream.codec_context
            stream.thread_type, context.thread_count = "AUTO", 1 if is_image(container) else threads
            with explain_memory_errors(path, context.width, context.height):
                yield Opened(container, stream, problem)


@contextmanager
def explain_memory_errors(path: Path, width: int, height: int) -> Iterator[None]:
    """Raise VaectlError if memory is too short for the pictures of `path`, also where FFmpeg reports it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_shortage(error):
            raise
        raise VaectlError(
            f"{path}: out of memory: its frames have {width}x{height} pixels", "free some, or make it smaller first"
        ) from None


def check_canvas(path: Path, width: int, height: int) -> None:
    """Raise VaectlError if an animation has a larger canvas than a still that FFmpeg reads (`av_image_check_size`)."""
    if (width + 128) * (height + 128) >= 2**28:
        raise VaectlError(
            f"{path}: its canvas of {width}x{height} pixels is too large, or the file is damaged",
            "make it smaller first, or get the file again",
        )


def _open(path: Path, options: Mapping[str, str] = MappingProxyType({})) -> tuple[InputContainer, str | None]:
    # An image is passed as bytes, because FFmpeg reads a name such as "a%03d.png" as a numbered sequence. Other names
    # get the prefix "file:", because FFmpeg would read a colon in them as the end of a protocol.
    source: io.BytesIO | str = f"file:{path.absolute()}"
    kind = None
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        content = path.read_bytes()
        source, kind = io.BytesIO(content), "jpeg_pipe" if content.startswith(_JPEG) else None
    if (gif := with_controls(path)) is not None:
        source = io.BytesIO(gif)
    try:
        with of_this_thread() as lines:
            container = av.open(
                source,
                format=kind,
                options={"format_whitelist": _FORMATS, "protocol_whitelist": "file", **options},
                **LENIENT_TAGS,
            )
    except MemoryError:
        raise VaectlError(f"{path}: out of memory while opening it", "free some") from None
    except av.error.FFmpegError as error:
        if (kind := unsupported_kind(path)) is not None:
            raise VaectlError(f"{path}: {kind} files are not supported", _CONVERT) from None
        raise VaectlError(
            f"{path} is not a video that can be read, or its end is missing ({error.strerror})",
            "play it to check, and get the file again",
        ) from None
    assert isinstance(container, InputContainer)
    name = container.format.name
    if name not in _READ_AHEAD:
        return container, None
    errors = (message.text.strip() for message in messages_of(lines) if message.source == name and message.is_error)
    return container, next(errors, None)


def picture_streams(container: InputContainer) -> list[VideoStream]:
    """Return the video streams without cover art and thumbnails."""
    return [s for s in container.streams.video if not s.disposition & _ACCOMPANYING]


def _prominence(stream: VideoStream) -> tuple[bool, int]:
    """Sort key of players: the default stream, then the largest, then the first."""
    context = stream.codec_context
    return bool(stream.disposition & Disposition.default), context.width * context.height if context else 0


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """Return the decoder of the stream: FFmpeg's choice, except for VP8 and VP9 with alpha.

    In WebM, alpha is a second stream inside the packets. Only the reference decoder of the codec decodes it.
    """
    context = stream.codec_context
    with_alpha = _ALPHA_DECODERS.get(context.name)
    if with_alpha is None or stream.metadata.get("alpha_mode") != "1":
        return context
    decoder = av.CodecContext.create(with_alpha, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata, decoder.thread_count = context.extradata, context.thread_count
    return decoder
