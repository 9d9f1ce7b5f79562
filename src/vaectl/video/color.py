"""From a decoded frame to 8-bit RGB, exactly as its tags say. Knows single frames only: no file, no time, no rotation.

Rules where a file says nothing, as players have them. Matrix: BT.2020 when the primaries are; else BT.709 from 1280
pixels of width or more than 576 lines on, BT.601 below and for all still images. Range: limited for video, full for
still images and for gray in codecs that store samples as they are. Alpha is composited over black. RGB of 8 bits
passes through untouched; more than 8 bits are rounded to 8.
"""

from __future__ import annotations

import errno

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vaectl.errors import VaectlError
from vaectl.shortage import is_memory_shortage

# swscale's SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP: as numbers, because PyAV names the
# last three only from version 18 on. With them 8-bit results are the nearest level; without, several levels off.
_ACCURATE = 4 | 0x40000 | 0x2000 | 0x4000
_LIMITED, _FULL = 1, 2
_PIXELS_AT_ONCE = 2**20
"""Pixels that are computed with together, where numbers take more than a byte."""
_BT709, _BT601, _BT2020 = 1, 5, 9
_MATRICES = frozenset({1, 4, 5, 6, 7, 9})
# Codecs whose specification reads an absent range flag as limited, also for gray.
_LIMITED_GRAY_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video"})


def matrix_of(frame: VideoFrame, *, still: bool) -> int:
    """The H.273 code point of the matrix that turns the YCbCr samples of `frame` into RGB."""
    if frame.colorspace not in (0, 2, 3):
        return frame.colorspace
    if frame.color_primaries == _BT2020:
        return _BT2020
    return _BT709 if not still and (frame.width >= 1280 or frame.height > 576) else _BT601


def is_full_range(frame: VideoFrame, *, still: bool, codec: str) -> bool:
    """True where black is 0 and white the largest number, False where they are 16 and 235 (times 2^(bits-8))."""
    if _is_rgb(frame) or frame.format.name.startswith("yuvj"):
        return True
    if frame.color_range in (_LIMITED, _FULL):
        return frame.color_range == _FULL
    return still or (_is_gray(frame) and codec not in _LIMITED_GRAY_CODECS)


class RgbConverter:
    """Converts the frames of one stream. Holds swscale's tables between frames, nothing else.

    Args:
        still: the frames come from still images.
        codec: FFmpeg's name of the codec that they come from.
    """

    def __init__(self, *, still: bool, codec: str) -> None:
        self._still = still
        self._codec = codec
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame, width: int, height: int) -> list[NDArray[np.uint8]]:
        """Red, green and blue of `frame`, each (height, width) uint8; scaled where the frame has another size.

        The planes are views into memory of their own and stay valid. Raises VaectlError for a matrix or pixel format
        that is not supported.
        """
        full = is_full_range(frame, still=self._still, codec=self._codec)
        matrix = _BT709
        if not _is_rgb(frame) and not _is_gray(frame):
            matrix = matrix_of(frame, still=self._still)
            if matrix not in _MATRICES:
                raise VaectlError(f"its colour matrix (H.273: {matrix}) is not supported", "convert it to BT.709 first")
            frame.colorspace = matrix  # PyAV 17 takes BT.2020 from the frame alone
        deep = _needs_16_bits(frame, full)
        alpha = frame.format.has_palette or any(c.is_alpha for c in frame.format.components)
        try:
            picture = self._scaler.reformat(
                frame,
                width=width,
                height=height,
                format=("gbrap" if alpha else "gbrp") + ("16le" if deep else ""),
                src_colorspace=matrix,
                dst_colorspace=matrix,
                src_color_range=_FULL if full else _LIMITED,
                dst_color_range=_FULL,
                interpolation=_ACCURATE,
            )
        except av.error.FFmpegError as error:
            if is_memory_shortage(error) or error.errno == errno.EAGAIN:  # EAGAIN: no thread can be started
                raise MemoryError(str(error)) from None
            name = frame.format.name
            raise VaectlError(f"its pixel format {name} is not supported", "convert it to 8 or 16 bits first") from None
        dtype = np.uint16 if deep else np.uint8
        green, blue, red, *opacity = (_plane(picture, i, dtype) for i in range(len(picture.planes)))
        planes = [red, green, blue]
        white = int(np.iinfo(dtype).max)
        if not full and _is_gray(frame):  # swscale takes all gray for full range
            levels = ((np.arange(white + 1) / white * 255 - 16) * (white / 219)).clip(0, white).round().astype(dtype)
            planes = [levels[plane] for plane in planes]
        if opacity and np.min(opacity[0]) < white:
            planes = [_scaled(plane, opacity[0], white) for plane in planes]
        if deep:
            planes = [_scaled(plane, 255, white) for plane in planes]
        return [plane.astype(np.uint8, copy=False) for plane in planes]


def _is_rgb(frame: VideoFrame) -> bool:
    return frame.format.is_rgb or frame.format.has_palette


def _is_gray(frame: VideoFrame) -> bool:
    return not _is_rgb(frame) and len(frame.format.components) <= 2  # gray, alpha; is_chroma is False in 4:4:4


def _needs_16_bits(frame: VideoFrame, full: bool) -> bool:
    """True where swscale's way to 8 bits is wrong: it would be off by more than rounding, or overflow.

    Full range, RGB and gray of more than 8 bits lose a level. And limited range overflows to black where blue comes out
    twice as bright as white, which takes a blue difference (Cb) above 236, beyond what a camera or renderer makes.
    """
    bits = max(c.bits for c in frame.format.components)
    if full or _is_gray(frame):
        return bits > 8
    chroma = _plane(frame, min(1, len(frame.planes) - 1), np.uint16 if bits > 8 else np.uint8)
    return bool(np.max(chroma) > 236 << (bits - 8))


def _plane(frame: VideoFrame, index: int, dtype: type[np.uint8 | np.uint16]) -> NDArray[np.integer]:
    plane = frame.planes[index]
    samples: NDArray[np.integer] = np.frombuffer(memoryview(plane), dtype)
    return samples.reshape(plane.height, -1)[:, : plane.width]


def _scaled(plane: NDArray[np.integer], factor: NDArray[np.integer] | int, white: int) -> NDArray[np.integer]:
    """plane * factor / white to the nearest integer. Some rows at a time: a large picture would take gigabytes."""
    factors = np.broadcast_to(np.asarray(factor), plane.shape)
    scaled = np.empty(plane.shape, plane.dtype)
    height, width = plane.shape
    rows = max(1, _PIXELS_AT_ONCE // width)
    for top in range(0, height, rows):
        some = slice(top, top + rows)
        product = plane[some].astype(np.uint32) * factors[some].astype(np.uint32)
        scaled[some] = (product + white // 2) // white
    return scaled
