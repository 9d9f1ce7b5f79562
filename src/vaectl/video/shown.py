"""Turn stored frames into the picture that a player shows: cropped, in RGB, upright."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vaectl.errors import VaectlError
from vaectl.video.clip import VideoInfo
from vaectl.video.color import RgbConversion, RgbConverter, SwscaleConverter
from vaectl.video.facts import Layout
from vaectl.video.stored import StoredFrames

Planes: TypeAlias = list[NDArray[np.uint8]]
"""Red, green and blue, each (H, W)."""
Show: TypeAlias = Callable[[VideoFrame], Planes]
"""Turns a stored frame into upright RGB."""


def upright_rgb(info: VideoInfo, layout: Layout, rgb_conversion: RgbConversion = "accurate", threads: int = 0) -> Show:
    """Return a function that turns the stored frames of one stream into upright RGB, one at a time.

    `threads` is the number of threads of the conversion, 0 for all cores. The planes may share memory with the frame.
    The function raises VaectlError for unsupported colours.
    """
    turned = layout.orientation.transpose
    width, height = (info.height, info.width) if turned else (info.width, info.height)
    convert = _swscale(layout, threads) if rgb_conversion == "swscale" else _accurate(info, layout, threads)

    def show(frame: VideoFrame) -> Planes:
        try:
            planes = convert(frame, width, height)
        except VaectlError as error:
            raise VaectlError(f"{info.path}: {error.problem}", error.remedy) from None
        return [layout.orientation.apply(plane) for plane in planes]

    return show


def _accurate(info: VideoInfo, layout: Layout, threads: int) -> Callable[[VideoFrame, int, int], Planes]:
    prepare = StoredFrames(layout.crop, is_sited=layout.is_sited)
    convert = RgbConverter(still=info.is_image, codec=info.codec, threads=threads)
    return lambda frame, width, height: convert(prepare(frame), width, height)


def _swscale(layout: Layout, threads: int) -> Callable[[VideoFrame, int, int], Planes]:
    """Convert the whole frame, then crop it: every pixel stays that of PyAV, which does not crop."""
    top, bottom, left, right = layout.crop
    convert = SwscaleConverter(threads)

    def cropped(frame: VideoFrame, width: int, height: int) -> Planes:
        planes = convert(frame, left + width + right, top + height + bottom)
        return [plane[top : top + height, left : left + width] for plane in planes]

    return cropped
