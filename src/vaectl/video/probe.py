"""The facts of a video, from its headers and its first frame. Reads one frame and no more."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vaectl.errors import VaectlError
from vaectl.video.clip import ColorTags, VideoInfo
from vaectl.video.container import fraction, frame_rate_of, is_image, open_video
from vaectl.video.intact import is_cut_short
from vaectl.video.orient import Orientation, orientation_of


def probe(path: Path | str, threads: int = 0) -> VideoInfo:
    """The facts of the video or image at `path`, decoding with `threads` threads, 0 for one on each core.

    Raises UsageError for a path that is no readable file, VaectlError for one that holds no video.
    """
    return probe_with_orientation(Path(path), threads)[0]


def probe_with_orientation(path: Path, threads: int = 0) -> tuple[VideoInfo, Orientation]:
    """`probe`, and how the stored frames are to be turned."""
    with open_video(path, threads) as (container, stream):
        if is_image(container) and is_cut_short(path):
            raise VaectlError(f"{path}: the image is cut short; get the file again")
        try:
            frame = next(container.decode(stream), None)
        except av.error.FFmpegError:
            frame = None
        if frame is None:
            raise VaectlError(f"{path}: not one frame can be decoded; play it to check, and get the file again")
        orientation = orientation_of(frame)
        return _info(path, container, stream, frame, orientation), orientation


def _info(
    path: Path, container: InputContainer, stream: VideoStream, frame: VideoFrame, orientation: Orientation
) -> VideoInfo:
    still = is_image(container)
    width, height = frame.width, frame.height
    aspect = fraction(stream.sample_aspect_ratio) or Fraction(1)
    if orientation.transpose:
        width, height, aspect = height, width, 1 / aspect
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        frame_rate=Fraction(1) if still else frame_rate_of(stream),
        frame_count=1 if still else _claimed_frames(stream),
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        bit_depth=max(component.bits for component in frame.format.components),
        color=ColorTags(
            primaries=frame.color_primaries,
            transfer=frame.color_trc,
            matrix=frame.colorspace,
            full_range={1: False, 2: True}.get(frame.color_range),
        ),
        sample_aspect_ratio=aspect,
        rotation=orientation.rotation,
        is_interlaced=frame.interlaced_frame,
        is_image=still,
        has_audio=bool(container.streams.audio),
    )


def _claimed_frames(stream: VideoStream) -> int | None:
    """The number of frames in the header, unless its duration says that it counts only a part, as in fragmented MP4."""
    seconds = (stream.duration or 0) * (fraction(stream.time_base) or 0)
    return (
        stream.frames if stream.frames and stream.frames > seconds * frame_rate_of(stream) * Fraction(9, 10) else None
    )
