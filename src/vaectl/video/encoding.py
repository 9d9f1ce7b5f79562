"""Encoding by file extension: container, codec, pixel format and settings, lossy and lossless.

Also converts RGB frames to encoder input. Knows no file and no time; `write` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vaectl.errors import UsageError
from vaectl.video.clip import ColorTags


@dataclass(frozen=True)
class Encoding:
    """How the frames of a file are encoded."""

    container: str
    codec: str
    pixel_format: str
    options: Mapping[str, str] = field(default_factory=dict)
    tick: Fraction = Fraction(0)
    """Tick of the container in seconds, to which times are rounded. 0: the writer chooses the tick, times are exact."""

    @property
    def is_image(self) -> bool:
        return self.container == "image2pipe"

    @property
    def is_rgb(self) -> bool:
        return not self.pixel_format.startswith("yuv")

    @property
    def keeps_pixel_shape(self) -> bool:
        """Whether the file stores a pixel aspect ratio. PyAV can write it only into the header of the codec."""
        return self.codec in ("libx264", "libx264rgb", "png", "mjpeg")


_MILLISECOND = Fraction(1, 1000)
# Visually lossless: 45.3, 46.8 and 40.8 dB on the clips bigbuckbunny, bikes and carphone, where 4:2:0 alone allows
# 54.7, 57.8 and 50.4 (VP9: 43.7, 45.9 and 41.6). A look-ahead of 20 frames, not 40, takes a
# third less memory. Compared with crf 12 and 40 frames: -0.07, +0.12 and +0.15 dB, and files larger by 0, 4 and 4 %.
# Chroma is the mean of a 2x2 block, so its location is the centre of the block (type 1), and H.264 stores that. VP9
# cannot store it, so there chroma is moved to the location that readers assume.
_H264 = {"preset": "medium", "crf": "11.5", "rc-lookahead": "20", "x264-params": "chromaloc=1"}
_H264_EXACT = {"preset": "medium", "qp": "0"}
_FFV1 = {"level": "3", "slicecrc": "1"}
_VP9 = {"crf": "10", "b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1"}
_VP9_EXACT = {"lossless": "1", "deadline": "good", "cpu-used": "3", "row-mt": "1"}

_ISO = {
    False: Encoding("mp4", "libx264", "yuv420p", _H264),
    True: Encoding("mp4", "libx264rgb", "rgb24", _H264_EXACT),
}
_QUICKTIME = {lossless: replace(encoding, container="mov") for lossless, encoding in _ISO.items()}
_PNG = Encoding("image2pipe", "png", "rgb24")
_BMP = Encoding("image2pipe", "bmp", "bgr24")
_TIFF = Encoding("image2pipe", "tiff", "rgb24")
_JPEG = {False: Encoding("image2pipe", "mjpeg", "yuvj444p", {"qmin": "1", "qmax": "1"})}

ENCODINGS: Mapping[str, Mapping[bool, Encoding]] = {
    ".mp4": _ISO,
    ".m4v": _ISO,
    ".mov": _QUICKTIME,
    ".mkv": {
        False: Encoding("matroska", "libx264", "yuv420p", _H264, _MILLISECOND),
        True: Encoding("matroska", "ffv1", "bgr0", _FFV1, _MILLISECOND),
    },
    ".webm": {
        False: Encoding("webm", "libvpx-vp9", "yuv420p", _VP9, _MILLISECOND),
        True: Encoding("webm", "libvpx-vp9", "gbrp", _VP9_EXACT, _MILLISECOND),
    },
    ".gif": {False: Encoding("gif", "gif", "pal8", tick=Fraction(1, 100))},
    ".png": {False: _PNG, True: _PNG},
    ".bmp": {False: _BMP, True: _BMP},
    ".tif": {False: _TIFF, True: _TIFF},
    ".tiff": {False: _TIFF, True: _TIFF},
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": {
        False: Encoding("image2pipe", "libwebp", "bgra", {"quality": "95"}),
        True: Encoding("image2pipe", "libwebp", "bgra", {"lossless": "1"}),
    },
}
"""Extension -> (lossless or not -> encoding)."""


def encoding_for(path: Path, width: int, height: int, *, lossless: bool, square_pixels: bool = True) -> Encoding:
    """Return the encoding for the extension of `path`. Raises UsageError if there is none."""
    choices = ENCODINGS.get(path.suffix.lower())
    if choices is None:
        raise UsageError(
            f"{path}: no encoder for {path.suffix or 'a name without extension'}", "use .mp4, .mkv or .png"
        )
    encoding = choices.get(lossless)
    if encoding is None:
        raise UsageError(f"{path}: {path.suffix} cannot be lossless", "use .mkv or .mp4 for video, .png for images")
    if encoding.codec == "libx264" and (width % 2 or height % 2):  # H.264 crops 4:2:0 in steps of two pixels
        return replace(encoding, pixel_format="yuv444p", options={**encoding.options, "x264-params": ""})
    # The FFV1 encoder cannot cut a column of pixels into slices, and PyAV cannot store its pixel aspect ratio.
    if encoding.codec == "ffv1" and (width == 1 or not square_pixels):
        return replace(ENCODINGS[".mp4"][True], container=encoding.container, tick=encoding.tick)
    return encoding


_MATRICES = frozenset({1, 4, 5, 6, 7, 9})
_MATCHING = {1: (1, 1), 5: (5, 6), 6: (6, 6)}
"""Matrix -> primaries and transfer of the same system, for pictures without them."""


def tags_for(encoding: Encoding, color: ColorTags, width: int, height: int) -> ColorTags:
    """Return the colour tags of the file: those of the picture, and for YCbCr the matrix of the encoding.

    A known matrix is kept. An unknown one becomes BT.709, or BT.601 below high definition, as players assume. Unknown
    primaries and transfer become those of the same system. JPEG is always BT.601.
    """
    if encoding.is_rgb:
        return ColorTags(color.primaries, color.transfer, 0, True)
    if encoding.codec == "mjpeg":
        return ColorTags(color.primaries, color.transfer, 5, True)
    matrix = color.matrix
    if matrix not in _MATRICES:
        matrix = 9 if color.primaries == 9 else 1 if width >= 1280 or height > 576 else 6
    primaries, transfer = _MATCHING.get(matrix, (2, 2))
    return ColorTags(
        primaries if color.primaries == 2 else color.primaries,
        transfer if color.transfer == 2 else color.transfer,
        matrix,
        False,
    )


# swscale's SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP, as numbers because PyAV names all of them only since
# version 18. Area is the mean of the pixels of a chroma sample. Without the two flags, rounding is coarse and chroma is
# taken from every second pixel.
_ACCURATE_MEAN = 0x20 | 0x40000 | 0x4000
_LIMITED, _FULL = 1, 2


def converter(encoding: Encoding, tags: ColorTags) -> Callable[[NDArray[np.uint8]], VideoFrame]:
    """Return a function from a (3, H, W) uint8 RGB array to a tagged frame for the encoder."""
    scaler = VideoReformatter()
    co_sited = _CoSited(tags) if encoding.codec == "libvpx-vp9" and not encoding.is_rgb else None

    def convert(rgb_CHW: NDArray[np.uint8]) -> VideoFrame:
        picture = _planar(rgb_CHW)
        picture.colorspace = tags.matrix  # PyAV 17 takes BT.2020 from the frame alone
        frame = (
            co_sited(picture)
            if co_sited
            else scaler.reformat(
                picture,
                format="bgra" if encoding.pixel_format == "pal8" else encoding.pixel_format,
                dst_colorspace={0: None, 6: 5}.get(tags.matrix, tags.matrix),  # PyAV knows both BT.601 codes as 5
                src_color_range=_FULL,
                dst_color_range=_FULL if tags.full_range else _LIMITED,
                interpolation=_ACCURATE_MEAN,
            )
        )
        if encoding.pixel_format == "pal8":
            frame = _with_palette(frame)
        frame.colorspace, frame.color_range = tags.matrix, _FULL if tags.full_range else _LIMITED
        frame.color_primaries, frame.color_trc = tags.primaries, tags.transfer
        return frame

    return convert


class _CoSited:
    """Converts RGB to limited range 4:2:0 with chroma located at every second pixel of a line. Holds a filter graph."""

    def __init__(self, tags: ColorTags) -> None:
        matrix = {1: "bt709", 4: "fcc", 5: "bt601", 6: "smpte170m", 7: "smpte240m", 9: "bt2020"}[tags.matrix]
        self._options = (
            f"out_color_matrix={matrix}:out_range=limited:out_chroma_loc=left"
            ":flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
        )
        self._graph: Graph | None = None

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        if self._graph is None:
            self._graph = graph = Graph()
            graph.link_nodes(
                graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)),
                graph.add("scale", self._options),
                graph.add("format", "yuv420p"),
                graph.add("buffersink"),
            ).configure()
        self._graph.push(frame)
        return cast(VideoFrame, self._graph.pull())


def _planar(rgb_CHW: NDArray[np.uint8]) -> VideoFrame:
    _, height, width = rgb_CHW.shape
    frame = VideoFrame(width, height, "gbrp")
    for plane, channel in zip(frame.planes, (1, 2, 0), strict=True):
        np.frombuffer(memoryview(plane), np.uint8).reshape(height, -1)[:, :width] = rgb_CHW[channel]
    return frame


def _with_palette(frame: VideoFrame) -> VideoFrame:
    """Reduce a frame to its best 256 colours, dithered."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    split, palette = graph.add("split"), graph.add("palettegen", "stats_mode=single")
    use, sink = graph.add("paletteuse"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    graph.push(frame)
    graph.push(None)
    return cast(VideoFrame, graph.pull())
