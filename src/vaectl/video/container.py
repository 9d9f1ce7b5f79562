"""Opening a file with FFmpeg and choosing its picture stream. Every way in which that fails becomes one clear line.

It knows nothing of frames: what is in the stream is for `probe`, `index` and `read`.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vaectl.errors import UsageError, VaectlError

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
            raise UsageError(f"{path} is a folder, not a video; name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is not an ordinary file; name a video file")
        path.open("rb").close()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise UsageError(f"{path}: no permission to read it; change its permissions or its owner") from None
    except OSError as error:
        raise VaectlError(f"{path} cannot be opened ({error.strerror}); check the path and the disk") from None
    if status.st_size == 0:
        raise VaectlError(f"{path} is empty (0 bytes); get the file again")


@contextmanager
def open_video(path: Path, threads: int = 0) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open `path` and give its first picture stream that is no cover art; `threads` decode it, 0 for one on each core.

    Raises UsageError for a path that is no readable file, VaectlError for a file without a video that can be decoded.
    """
    _check(path)
    # PyAV frees a decoder while it holds the interpreter lock, and waits for the decoder's threads. With FFmpeg's
    # messages on, one of these may wait for the lock, to log: both hang. Older torchvisions switch them on.
    if av.logging.get_level() is not None:
        av.logging.set_level(None)
    # An image goes in as bytes, because FFmpeg takes a name such as "a%03d.png" for a numbered sequence. Other names
    # are marked as files, because a colon in them would read as a protocol.
    source = io.BytesIO(path.read_bytes()) if path.suffix.lower() in IMAGE_EXTENSIONS else f"file:{path.absolute()}"
    try:
        container = av.open(source, options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"})
    except av.error.FFmpegError as error:
        raise VaectlError(
            f"{path} is not a video that can be read, or its end is missing ({error.strerror}); "
            "play it to check, and get the file again"
        ) from None
    with container:
        assert isinstance(container, InputContainer)
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            held = "only sound" if container.streams.audio else "no picture"
            raise VaectlError(f"{path} holds {held}; a file with a video stream is needed")
        stream = streams[0]
        if stream.codec_context is None:
            raise VaectlError(f"{path}: no decoder for its video stream; convert it to H.264 first")
        stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
        yield container, stream
