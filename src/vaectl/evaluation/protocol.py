"""The protocol: the frames of a clip that are compared, and their size. Knows no model and no metric."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field

from vaectl.engine import HostOverhead
from vaectl.errors import VaectlError
from vaectl.io.json_values import plain
from vaectl.options.clips import NUM_FRAMES, RESOLUTION, Count, Side
from vaectl.video.clip import Clip, VideoInfo
from vaectl.video.color import RgbConversion
from vaectl.video.read import VideoReader, frames_at_once
from vaectl.video.transform import scale_and_crop, target_size


@dataclass(frozen=True)
class ClipProtocol:
    """Take every n-th frame from the first on; resize the shorter side to `resolution`; crop the centre."""

    num_frames: Annotated[int, Field(ge=1, le=2**31 - 1)] | Literal["all"]
    """Of a clip, or of each of its windows."""
    sample_rate: Annotated[int, Field(ge=1, le=2**31 - 1)]
    resolution: Annotated[int, Field(ge=16, le=16384)] | Literal["source"]
    """Pixels of the shorter side."""
    crop_size: Annotated[int, Field(ge=1, le=16384)] | None
    """Side of the square in pixels; None keeps the whole frame."""
    rgb_conversion: RgbConversion = "accurate"
    """How decoded frames become RGB. Manifests of earlier versions do not have it."""
    frame_rate: Annotated[Fraction, Field(gt=0)] | None = None
    """Frames per second of which `sample_rate` takes every n-th; None: those of the source."""
    all_windows: bool = False
    """Take all windows of `num_frames` frames, one after the other, not the first alone."""

    def step(self, source_rate: Fraction) -> int:
        """Return the distance of the frames in a source of `source_rate` frames per second.

        With a `frame_rate` it is the ratio of both, rounded (half to even) and at least 1, as in the evaluation of
        VidTok: no frame comes twice.
        """
        every = 1 if self.frame_rate is None else max(1, round(source_rate / self.frame_rate))
        return every * self.sample_rate

    @property
    def hash(self) -> str:
        """SHA-256, hexadecimal, without fields at their default: a field of a later version does not change it."""
        given = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        values = {name: value for name, value, default in given if value != default}
        return hashlib.sha256(json.dumps(plain(values), sort_keys=True).encode()).hexdigest()


class ClipOptions(Protocol):
    """Options that define a protocol, as `vaectl.options` declares them; None means the default."""

    @property
    def num_frames(self) -> Count | None: ...
    @property
    def sample_rate(self) -> int | None: ...
    @property
    def resolution(self) -> Side | None: ...
    @property
    def crop_size(self) -> int | None: ...
    @property
    def frame_rate(self) -> Fraction | None: ...
    @property
    def all_windows(self) -> bool | None: ...
    @property
    def rgb_conversion(self) -> RgbConversion | None: ...


def protocol_of(options: ClipOptions) -> ClipProtocol:
    """Return the protocol of `options`. `crop_size` None means the resolution, 0 no crop."""
    resolution = options.resolution or RESOLUTION
    square = None if resolution == "source" else resolution
    return ClipProtocol(
        options.num_frames or NUM_FRAMES,
        options.sample_rate or 1,
        resolution,
        square if options.crop_size is None else options.crop_size or None,
        options.rgb_conversion or "accurate",
        options.frame_rate,
        bool(options.all_windows),
    )


@dataclass(frozen=True)
class Selection:
    """The frames of a file that are compared: frames 0, step, 2·step, ... in windows of one length."""

    num_frames: int
    """Of each window."""
    windows: int
    step: int
    left_out: int
    """Frames after the last whole window, which are not compared."""

    @property
    def total(self) -> int:
        """Frames of all windows."""
        return self.num_frames * self.windows


def select(reader: VideoReader, protocol: ClipProtocol, step: int | None = None) -> Selection:
    """Return the frames of a file that are compared, `step` apart; None: as the protocol says.

    Raises VaectlError if the file has too few frames or cannot be read.
    """
    step = protocol.step(reader.info.frame_rate) if step is None else step
    size = protocol.num_frames
    most = None if size == "all" or protocol.all_windows else size
    count = len(reader.timestamps(0, most, step))
    if size == "all":
        return Selection(count, 1, step, 0)
    if count < size:
        raise VaectlError(
            f"{reader.info.path}: too short: gives {count} of the {size} frames of the protocol",
            f"lower `num_frames` or `sample_rate`{', raise `frame_rate`' * (step > protocol.sample_rate)}, or leave the"
            " clip out",
        )
    windows, left_out = divmod(count, size)
    return Selection(size, windows, step, left_out)


def frame_size(info: VideoInfo, protocol: ClipProtocol) -> tuple[int, int]:
    """Return the width and height of the frames that are compared. Raises VaectlError if the crop does not fit."""
    size = info.width, info.height
    if protocol.resolution != "source":
        size = target_size(*size, short_size=protocol.resolution)
    if protocol.crop_size is None:
        return size
    if protocol.crop_size > min(size):
        raise VaectlError(
            f"{info.path}: its frames are {size[0]}x{size[1]}, too small for a crop of {protocol.crop_size} pixels",
            "lower `crop_size`, or leave the clip out",
        )
    return protocol.crop_size, protocol.crop_size


def read_windows(reader: VideoReader, protocol: ClipProtocol, selection: Selection) -> Generator[Clip, None, None]:
    """Yield the windows of a file, (num_frames, 3, H, W) uint8 RGB, with their times in the file.

    Decodes the file once; one window is in memory. Raises VaectlError if a frame cannot be read, or is smaller than the
    crop.
    """
    info, size = reader.info, selection.num_frames
    width, height = frame_size(info, protocol)
    wanted = (0, selection.total, selection.step)
    rate = info.frame_rate / selection.step
    resolution = None if protocol.resolution == "source" else protocol.resolution
    window, times = torch.empty((size, 3, height, width), dtype=torch.uint8), reader.timestamps(*wanted)
    numbers = iter(range(selection.total))
    for batch in reader.clips(*wanted, batch_size=frames_at_once(info, FRAMES_AT_ONCE)):
        for frame in scale_and_crop(batch.frames, resolution, protocol.crop_size):
            number = next(numbers)
            window[number % size] = frame
            if (number + 1) % size == 0 and number + 1 < selection.total:
                yield Clip(window, times[number + 1 - size : number + 1], rate)
                window = torch.empty_like(window)
    yield Clip(window, times[-size:], rate)  # now that the file is closed


def read_clip(path: Path, protocol: ClipProtocol) -> Clip:
    """Read the frames that are compared, the first window alone. Raises as `select` and `read_windows` do."""
    return read_clip_and_facts(path, protocol)[0]


def read_clip_and_facts(path: Path, protocol: ClipProtocol) -> tuple[Clip, VideoInfo]:
    """Read the same as `read_clip`, and facts about the file."""
    with (
        VideoReader(path, rgb_conversion=protocol.rgb_conversion) as reader,
        closing(read_windows(reader, protocol, select(reader, protocol))) as windows,
    ):
        return next(windows), reader.info


FRAMES_AT_ONCE = 4
"""Frames that are in memory at the size of the file."""


def host_overhead(frames_BT3HW: torch.Tensor, stored: int) -> HostOverhead:
    """Return the host memory that a tiled run needs in addition to the network; source frames have `stored` pixels.

    One clip is being decoded, one is being written, eight are in memory.
    """
    height, width = frames_BT3HW.shape[3:]
    reading = HostOverhead.of(stored=stored, frame=0, shown=height * width)
    held = FRAMES_AT_ONCE * reading.per_frame + 8 * frames_BT3HW.numel()
    per_frame = HostOverhead.of(stored=0, frame=height * width, shown=0).per_frame
    return replace(reading, fixed=reading.fixed + held, per_frame=per_frame)
