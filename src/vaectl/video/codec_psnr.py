"""What a codec loses: decodes packets as they are encoded and compares with what was given. Knows no file."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vaectl.video.color import RgbConverter
from vaectl.video.crop import Crop
from vaectl.video.stored import StoredFrames, is_sited


class CodecPSNR:
    """Accumulates the PSNR between frames given to an encoder and what its packets decode to.

    Holds a frame only until its decoded twin comes, which is for the delay of the encoder.
    """

    def __init__(self, encoder: VideoCodecContext, *, still: bool) -> None:
        codec = encoder.codec.canonical_name
        decoder = av.CodecContext.create(codec, "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.extradata = encoder.extradata
        decoder.width, decoder.height = encoder.width, encoder.height
        self._decoder = decoder
        self._to_rgb = RgbConverter(still=still, codec=codec)
        self._stored = StoredFrames(Crop(), is_sited=is_sited(codec, "", None, still=still))
        self._given: deque[NDArray[np.uint8]] = deque()
        self._errors: list[float] = []
        self._floor = 0.0

    def give(self, rgb_CHW: NDArray[np.uint8]) -> None:
        """A frame goes to the encoder; frames come in presentation order."""
        self._given.append(rgb_CHW)

    def decode(self, packets: Iterable[Packet[VideoStream] | None]) -> None:
        """Packets came from the encoder; None after the last."""
        for packet in packets:
            for frame in self._decoder.decode(packet):
                given = self._given.popleft().astype(np.int32)
                _, height, width = given.shape
                planes = self._to_rgb(self._stored(frame), width, height)
                self._floor = 1 / given.size
                self._errors.append(
                    sum(float(np.mean((channel - plane) ** 2)) for channel, plane in zip(given, planes, strict=True))
                    / 3
                )

    def psnr(self) -> float:
        """Mean over the frames of the PSNR in dB; inf when all are exact.

        An exact frame among others counts as if one sample were off by one level: it has no finite PSNR of its own.
        Raises RuntimeError when frames are missing.
        """
        if self._given or not self._errors:
            raise RuntimeError(f"{len(self._given)} frames were encoded and not decoded")
        if not any(self._errors):
            return math.inf
        return sum(10 * math.log10(255**2 / max(error, self._floor)) for error in self._errors) / len(self._errors)
