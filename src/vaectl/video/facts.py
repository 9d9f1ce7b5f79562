"""The facts about a file that FFmpeg reads, from its headers and its first frame. Decodes no other frame."""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vaectl.errors import VaectlError
from vaectl.video import isobmff, matroska
from vaectl.video.clip import ColorTags, VideoInfo
from vaectl.video.container import IMAGE_EXTENSIONS, fraction, frame_rate_of, is_image, open_video, picture_streams
from vaectl.video.crop import Crop
from vaectl.video.decode import first_frame
from vaectl.video.orientation import Orientation, orientation_of
from vaectl.video.stored import is_sited
from vaectl.video.tiff import read_tiff
from vaectl.video.truncation import is_cut_short
from vaectl.video.unsupported import is_missing_feature


class Layout(NamedTuple):
    """How to show a stored frame: crop it, convert its colours, and rotate it."""

    crop: Crop = Crop()
    is_sited: bool = True
    """See `vaectl.video.stored.is_sited`."""
    orientation: Orientation = Orientation()


def facts_and_layout(path: Path) -> tuple[VideoInfo, Layout]:
    """Return the facts about the video or image at `path`, and the layout of its frames.

    Raises UsageError if `path` is not a readable file, VaectlError if it contains no video.
    """
    info, layout, frame = with_first_frame(path)
    del frame
    gc.collect(1)  # frame and side data form a cycle: a huge picture would stay in memory
    return info, layout


def with_first_frame(path: Path) -> tuple[VideoInfo, Layout, VideoFrame]:
    """Like `facts_and_layout`; also return the first frame as stored."""
    if path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file() and (picture := read_tiff(path)) is not None:
        return _info_of_tiff(path, picture), Layout(), picture
    with open_video(path, threads=1) as opened:
        container, stream, _ = opened
        if is_image(container) and is_cut_short(path):
            raise VaectlError(f"{path}: the image is cut short", "get the file again")
        if container.format.name.startswith("mov,") and isobmff.is_encrypted(path):
            raise VaectlError(f"{path}: its video is encrypted", "remove the protection first")
        frame, problem = first_frame(path, opened)
        if problem and is_image(container):
            raise VaectlError(f"{path}: {problem}", "convert it to PNG, or get the file again")
        if frame is None and is_missing_feature(problem or ""):
            raise VaectlError(
                f"{path}: FFmpeg does not support it ({problem})", "convert it to H.264 with another program"
            )
        if frame is None:
            raise VaectlError(f"{path}: not one frame can be decoded", "play it to check, and get the file again")
        context = stream.codec_context
        sited = is_sited(context.name, container.format.name, context.extradata, still=is_image(container))
        layout = Layout(_crop(path, container, stream), sited, orientation_of(frame))
        return _info(path, container, stream, frame, layout), layout, frame


def _info_of_tiff(path: Path, picture: VideoFrame) -> VideoInfo:
    return VideoInfo(
        path=path,
        width=picture.width,
        height=picture.height,
        frame_rate=Fraction(1),
        num_frames_from_header=1,
        codec="tiff",
        pixel_format=picture.format.name,
        bit_depth=bit_depth(picture),
        color=ColorTags(),
        sample_aspect_ratio=Fraction(1),
        rotation=0,
        is_interlaced=False,
        is_image=True,
        has_audio=False,
    )


def _crop(path: Path, container: InputContainer, stream: VideoStream) -> Crop:
    """Crop of the container, which FFmpeg reports only to its own tools."""
    crops = {"mov,mp4,m4a,3gp,3g2,mj2": isobmff.crops, "matroska,webm": matroska.crops}.get(container.format.name)
    found = crops(path) if crops else []
    streams = list(container.streams.video)
    return found[streams.index(stream)] if len(found) == len(streams) else Crop()


def _info(path: Path, container: InputContainer, stream: VideoStream, frame: VideoFrame, layout: Layout) -> VideoInfo:
    still, crop, orientation = is_image(container), layout.crop, layout.orientation
    width, height = frame.width - crop.left - crop.right, frame.height - crop.top - crop.bottom
    aspect = fraction(stream.sample_aspect_ratio) or Fraction(1)
    if orientation.transpose:
        width, height, aspect = height, width, 1 / aspect
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        frame_rate=Fraction(1) if still else frame_rate_of(stream),
        num_frames_from_header=1 if still else _num_frames_from_header(stream),
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        bit_depth=bit_depth(frame),
        color=color_tags(frame),
        sample_aspect_ratio=aspect,
        rotation=orientation.rotation,
        is_interlaced=frame.interlaced_frame,
        is_image=still,
        has_audio=bool(container.streams.audio),
        other_videos=len(picture_streams(container)) - 1,
    )


def bit_depth(frame: VideoFrame) -> int:
    """Return the bits of a component."""
    return max(component.bits for component in frame.format.components)


def color_tags(frame: VideoFrame) -> ColorTags:
    """Return the colour tags of a decoded frame."""
    return ColorTags(
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
        matrix=frame.colorspace,
        full_range={1: False, 2: True}.get(frame.color_range),
    )


def _num_frames_from_header(stream: VideoStream) -> int | None:
    """Number of frames in the header; None if it is too low for the duration, as in fragmented MP4."""
    seconds = (stream.duration or 0) * (fraction(stream.time_base) or 0)
    return (
        stream.frames if stream.frames and stream.frames > seconds * frame_rate_of(stream) * Fraction(9, 10) else None
    )
