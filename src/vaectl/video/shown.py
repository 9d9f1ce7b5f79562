"""Turn stored frames into the picture that a player shows: cropped, in RGB, upright."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vaectl.errors import VaectlError
from vaectl.video.clip import VideoInfo
from vaectl.video.color import RgbConverter
from vaectl.video.facts import Layout
from vaectl.video.stored import StoredFrames


def upright_rgb(info: VideoInfo, layout: Layout) -> Callable[[VideoFrame], list[NDArray[np.uint8]]]:
    """Return a function for the frames of one stream: stored frame -> red, green and blue, each (H, W) uint8.

    The planes do not share memory with the frame. The function raises VaectlError for unsupported colours.
    """
    turned = layout.orientation.transpose
    width, height = (info.height, info.width) if turned else (info.width, info.height)
    prepare = StoredFrames(layout.crop, is_sited=layout.is_sited)
    convert = RgbConverter(still=info.is_image, codec=info.codec)

    def show(frame: VideoFrame) -> list[NDArray[np.uint8]]:
        try:
            planes = convert(prepare(frame), width, height)
        except VaectlError as error:
            raise VaectlError(f"{info.path}: {error.problem}", error.remedy) from None
        return [layout.orientation.apply(plane) for plane in planes]

    return show
