"""Convert a decoded frame to 8-bit RGB. Knows single frames: no file, no time, no rotation.

`RgbConverter` converts exactly as the tags say, `SwscaleConverter` as published code does.

Defaults of `RgbConverter` where a file has no tags, as in players. Matrix: BT.2020 if the primaries are; else BT.709
for a width of 1280 pixels or more or a height above 576, and BT.601 for smaller videos and all still images. Range:
limited for video, full for still images and for gray in codecs that store samples unchanged. Alpha is composited over
black. 8-bit RGB is returned unchanged; higher bit depths are rounded to 8.
"""

from __future__ import annotations

import ctypes
import errno
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import av._core
import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vaectl.errors import VaectlError
from vaectl.shortage import is_memory_shortage

RgbConversion = Literal["accurate", "swscale"]
"""`accurate`: `RgbConverter`; `swscale`: `SwscaleConverter`."""

# swscale's SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP: as numbers, because
# PyAV names the last three only since version 18. With them 8-bit results are the nearest level; without, several off.
_ACCURATE = 4 | 0x40000 | 0x2000 | 0x4000
_LIMITED, _FULL = 1, 2
_SLOW_GATHER = 0x2000000
"""AV_CPU_FLAG_SLOW_GATHER of FFmpeg."""
_PIXELS_AT_ONCE = 2**20
"""Pixels that are computed at once in more than 8 bits, to limit memory."""
_BT709, _BT601, _BT2020 = 1, 5, 9
_Plane = NDArray[np.integer]
_MATRICES = frozenset({1, 4, 5, 6, 7, 9})
_NO_MATRIX = frozenset({0, 2})
"""RGB and unspecified."""
_PLANAR_AS_PACKED = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p"})
"""Formats for which swscale gives planar RGB the values of interleaved RGB, in less time: if the width is a multiple of
16 and the height is even. Otherwise its loops end differently."""
# Codecs whose specification defines a missing range flag as limited, also for gray.
_LIMITED_GRAY_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video"})


def matrix_of(frame: VideoFrame, *, still: bool) -> int:
    """Return the H.273 code point of the matrix from the YCbCr samples of `frame` to RGB."""
    if frame.colorspace not in (0, 2, 3):
        return frame.colorspace
    if frame.color_primaries == _BT2020:
        return _BT2020
    return _BT709 if not still and (frame.width >= 1280 or frame.height > 576) else _BT601


def is_full_range(frame: VideoFrame, *, still: bool, codec: str) -> bool:
    """Whether black is 0 and white the largest number. In limited range they are 16 and 235, times 2^(bits - 8)."""
    pixels = _pixel_format(frame.format.name)
    if pixels.is_rgb or frame.format.name.startswith("yuvj"):
        return True
    if frame.color_range in (_LIMITED, _FULL):
        return frame.color_range == _FULL
    return still or (pixels.is_gray and codec not in _LIMITED_GRAY_CODECS)


class RgbConverter:
    """Converts the frames of one stream. Its only state is the tables of swscale.

    Args:
        still: whether the frames are still images.
        codec: FFmpeg's name of their codec.
        threads: threads of swscale, 0 for all cores.
    """

    def __init__(self, *, still: bool, codec: str, threads: int = 0) -> None:
        _avoid_gather()
        self._still = still
        self._codec = codec
        self._threads = threads
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame, width: int, height: int) -> list[NDArray[np.uint8]]:
        """Return red, green and blue of `frame`, each (height, width) uint8, scaled if the frame has another size.

        The planes do not share memory with the frame. Raises VaectlError for an unsupported matrix or pixel format.
        """
        *planes, opacity = self.channels(frame, width, height)
        white = (1 << 8 * planes[0].itemsize) - 1
        if opacity is not None and np.min(opacity) < white:
            planes = [_scaled(plane, opacity, white) for plane in planes]
        if white > 255:
            planes = [_scaled(plane, 255, white) for plane in planes]
        return [plane.astype(np.uint8, copy=False) for plane in planes]

    def channels(self, frame: VideoFrame, width: int, height: int) -> tuple[_Plane, _Plane, _Plane, _Plane | None]:
        """Return red, green, blue and opacity, each (height, width), uint8 or uint16; no opacity if all is opaque.

        The colours are not multiplied by the opacity. Raises like a call.
        """
        pixels = _pixel_format(frame.format.name)
        full = is_full_range(frame, still=self._still, codec=self._codec)
        matrix = _BT709
        if not pixels.is_rgb and not pixels.is_gray:
            matrix = matrix_of(frame, still=self._still)
            if matrix not in _MATRICES:
                raise _unsupported_matrix(matrix)
            frame.colorspace = matrix  # PyAV 17 takes BT.2020 from the frame alone
        deep = _needs_16_bits(frame, pixels, full=full)
        picture = _reformat(
            self._scaler,
            frame,
            width=width,
            height=height,
            format=("gbrap" if pixels.has_alpha else "gbrp") + ("16le" if deep else ""),
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=_FULL if full else _LIMITED,
            dst_color_range=_FULL,
            interpolation=_ACCURATE,
            threads=self._threads,
        )
        dtype = np.uint16 if deep else np.uint8
        green, blue, red, *opacity = (_samples(plane, dtype) for plane in picture.planes)
        if not full and pixels.is_gray:  # swscale treats all gray as full range
            white = int(np.iinfo(dtype).max)
            levels = ((np.arange(white + 1) / white * 255 - 16) * (white / 219)).clip(0, white).round().astype(dtype)
            red, green, blue = levels[red], levels[green], levels[blue]
        return red, green, blue, opacity[0] if opacity else None


class SwscaleConverter:
    """Converts the frames of one stream as PyAV's `frame.to_ndarray(format="rgb24")` does, bit for bit.

    These are the defaults of swscale, which decord uses too. Chroma of lower resolution is repeated, not interpolated.
    A video without tags is BT.601 at any size. Alpha is ignored. `threads` is the number of threads of swscale, 0 for
    all cores.
    """

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame, width: int, height: int) -> list[NDArray[np.uint8]]:
        """Return red, green and blue of `frame`, each (height, width) uint8, scaled if the frame has another size.

        The planes may share memory with the frame. Raises VaectlError for a pixel format or matrix that swscale
        cannot convert.
        """
        unscaled = (width, height) == (frame.width, frame.height)
        planar = unscaled and frame.format.name in _PLANAR_AS_PACKED and width % 16 == 0 and height % 2 == 0
        how = {"width": width, "height": height, "threads": self._threads}
        picture = _reformat(self._scaler, frame, format="gbrp" if planar else "rgb24", **how)
        if planar:
            green, blue, red = (_samples(plane, np.uint8).astype(np.uint8, copy=False) for plane in picture.planes)
            return [red, green, blue]
        return list(np.moveaxis(picture.to_ndarray(), 2, 0))


@cache
def _avoid_gather() -> None:
    """Make swscale scale rows without the gather instruction on AMD CPUs, where it takes a quarter more time.

    FFmpeg sets this flag for older AMD CPUs itself. It changes no result.
    """
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and "AuthenticAMD" in cpuinfo.read_text():
        with suppress(AttributeError, OSError):  # a PyAV that does not load FFmpeg as a library
            ffmpeg = ctypes.CDLL(av._core.__file__)
            ffmpeg.av_force_cpu_flags(ffmpeg.av_get_cpu_flags() | _SLOW_GATHER)


def _reformat(scaler: VideoReformatter, frame: VideoFrame, **how: Any) -> VideoFrame:
    try:
        return scaler.reformat(frame, **how)
    except av.error.FFmpegError as error:
        if is_memory_shortage(error) or error.errno == errno.EAGAIN:  # EAGAIN: cannot start a thread
            raise MemoryError(str(error)) from None
        if not _pixel_format(frame.format.name).is_rgb and frame.colorspace not in _MATRICES | _NO_MATRIX:
            raise _unsupported_matrix(frame.colorspace) from None
        name = frame.format.name
        raise VaectlError(f"its pixel format {name} is not supported", "convert it to 8 or 16 bits first") from None


def _unsupported_matrix(matrix: int) -> VaectlError:
    return VaectlError(f"its colour matrix (H.273: {matrix}) is not supported", "convert it to BT.709 first")


class _PixelFormat(NamedTuple):
    is_rgb: bool
    is_gray: bool
    has_alpha: bool
    bits: int


@cache
def _pixel_format(name: str) -> _PixelFormat:
    form = VideoFormat(name)
    is_rgb = form.is_rgb or form.has_palette
    return _PixelFormat(
        is_rgb,
        is_gray=not is_rgb and len(form.components) <= 2,  # gray, alpha; is_chroma is False in 4:4:4
        has_alpha=form.has_palette or any(c.is_alpha for c in form.components),
        bits=max(c.bits for c in form.components),
    )


def _needs_16_bits(frame: VideoFrame, pixels: _PixelFormat, *, full: bool) -> bool:
    """Whether swscale's conversion to 8 bits is wrong by more than rounding.

    It is a level off for full range, RGB and gray of more than 8 bits. Limited range overflows to black if blue is
    twice as bright as white: with a blue difference (Cb) above 236, which no camera or renderer makes.
    """
    bits = pixels.bits
    if full or pixels.is_gray:
        return bits > 8
    blue_difference = frame.planes[:2][-1]
    return bool(_samples(blue_difference, np.uint16 if bits > 8 else np.uint8).max() > 236 << (bits - 8))


def _samples(plane: VideoPlane, dtype: type[np.uint8 | np.uint16]) -> _Plane:
    """Return the samples of `plane`, (height, width), in its memory."""
    samples: _Plane = np.frombuffer(memoryview(plane), dtype)
    return samples.reshape(plane.height, -1)[:, : plane.width]


def _scaled(plane: _Plane, factor: _Plane | int, white: int) -> _Plane:
    """Return plane * factor / white, rounded. Computed in strips, because a large picture would take gigabytes."""
    factors = np.broadcast_to(np.asarray(factor), plane.shape)
    scaled = np.empty(plane.shape, plane.dtype)
    height, width = plane.shape
    rows = max(1, _PIXELS_AT_ONCE // width)
    for top in range(0, height, rows):
        some = slice(top, top + rows)
        product = plane[some].astype(np.uint32) * factors[some].astype(np.uint32)
        scaled[some] = (product + white // 2) // white
    return scaled
