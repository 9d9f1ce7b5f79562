"""Measure the loss of a codec: decode packets as they are encoded, and compare with the input. Knows no file."""

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
    """Accumulates the PSNR between the input frames of an encoder and its decoded packets.

    Holds each input frame until its decoded frame arrives, after the encoder's delay.
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
        """Add an input frame of the encoder, (3, H, W) uint8, in presentation order."""
        self._given.append(rgb_CHW)

    def decode(self, packets: Iterable[Packet[VideoStream] | None]) -> None:
        """Decode packets of the encoder and compare; None marks the end."""
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
        """Return the mean PSNR of the frames in dB; inf if all are exact.

        An exact frame has no finite PSNR, so among others it counts as if one sample were off by one level.
        Raises RuntimeError if frames are missing.
        """
        if self._given or not self._errors:
            raise RuntimeError(f"{len(self._given)} frames were encoded and not decoded")
        if not any(self._errors):
            return math.inf
        return sum(10 * math.log10(255**2 / max(error, self._floor)) for error in self._errors) / len(self._errors)
