"""The published protocol: the frames of a clip that are compared, and their size. Knows no model and no metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import torch
from pydantic import Field

from vaectl.engine import HostOverhead
from vaectl.errors import VaectlError
from vaectl.video.clip import Clip, VideoInfo
from vaectl.video.color import RgbConversion
from vaectl.video.read import VideoReader, frames_at_once
from vaectl.video.transform import scale_and_crop


@dataclass(frozen=True)
class ClipProtocol:
    """Take frames 0, sample_rate, 2·sample_rate, ...; resize the shorter side to `resolution`; crop the centre."""

    num_frames: Annotated[int, Field(ge=1, le=2**31 - 1)]
    sample_rate: Annotated[int, Field(ge=1, le=2**31 - 1)]
    resolution: Annotated[int, Field(ge=16, le=16384)]
    """Pixels of the shorter side."""
    crop_size: Annotated[int, Field(ge=1, le=16384)] | None
    """Side of the square in pixels; None keeps the whole frame."""
    rgb_conversion: RgbConversion = "accurate"
    """How decoded frames become RGB. Manifests of earlier versions do not have it."""


class ClipOptions(Protocol):
    """Options that define a protocol, as `vaectl.options.clips` declares them."""

    @property
    def num_frames(self) -> int: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def resolution(self) -> int: ...
    @property
    def crop_size(self) -> int | None: ...
    @property
    def rgb_conversion(self) -> RgbConversion: ...


def protocol_of(options: ClipOptions) -> ClipProtocol:
    """Return the protocol of `options`. `crop_size` None means the resolution, 0 no crop."""
    crop = options.resolution if options.crop_size is None else options.crop_size or None
    return ClipProtocol(options.num_frames, options.sample_rate, options.resolution, crop, options.rgb_conversion)


def read_clip(path: Path, protocol: ClipProtocol) -> Clip:
    """Read the frames that are compared, (num_frames, 3, H, W) uint8 RGB, with their times in the file.

    Raises VaectlError if the file has too few frames or cannot be read.
    """
    return read_clip_and_facts(path, protocol)[0]


def read_clip_and_facts(path: Path, protocol: ClipProtocol) -> tuple[Clip, VideoInfo]:
    """Read the same as `read_clip`, and facts about the file."""
    wanted = (0, protocol.num_frames, protocol.sample_rate)
    with VideoReader(path, rgb_conversion=protocol.rgb_conversion) as reader:
        times = reader.timestamps(*wanted)
        if len(times) < protocol.num_frames:
            raise VaectlError(
                f"{path}: too short: gives {len(times)} of the {protocol.num_frames} frames of the protocol",
                "lower `num_frames` or `sample_rate`, or leave the clip out",
            )
        frames = [
            scale_and_crop(batch.frames, protocol.resolution, protocol.crop_size)
            for batch in reader.clips(*wanted, batch_size=frames_at_once(reader.info, FRAMES_AT_ONCE))
        ]
        return Clip(torch.cat(frames), times, reader.info.frame_rate / protocol.sample_rate), reader.info


FRAMES_AT_ONCE = 4
"""Frames that are in memory at the size of the file."""


def host_overhead(frames_BT3HW: torch.Tensor, stored: int) -> HostOverhead:
    """Return the host memory that a tiled run needs in addition to the network; source frames have `stored` pixels.

    One clip is being decoded, one is being written, eight are in memory.
    """
    height, width = frames_BT3HW.shape[3:]
    reading = HostOverhead.of(stored=stored, frame=0, shown=height * width)
    held = FRAMES_AT_ONCE * reading.per_frame + 8 * frames_BT3HW.numel()
    return HostOverhead(reading.fixed + held, HostOverhead.of(stored=0, frame=height * width, shown=0).per_frame)
