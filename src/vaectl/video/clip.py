"""What is known about a video, and the frames that were read from it. Plain values: no file is touched here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ColorTags:
    """How YCbCr samples map to light, as the code points of ITU-T H.273. 2 means unspecified.

    primaries and transfer describe the picture also after its conversion to RGB; matrix and full_range only the
    YCbCr samples of the file.
    """

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    full_range: bool | None = None

    @property
    def hdr(self) -> str | None:
        """The name of a high-dynamic-range transfer function, or None."""
        return {16: "PQ", 18: "HLG"}.get(self.transfer)


@dataclass(frozen=True)
class VideoInfo:
    """The facts of the video stream of a file that players show (or of a still image)."""

    path: Path
    width: int
    """Pixels of a frame as it is shown: after rotation."""
    height: int
    frame_rate: Fraction
    """Average frames per second; 1 for a still image."""
    num_frames_from_header: int | None
    """What the container claims; None where it does not say. `VideoReader.timestamps()` is exact."""
    codec: str
    """FFmpeg's name of the decoder."""
    pixel_format: str
    bit_depth: int
    color: ColorTags
    sample_aspect_ratio: Fraction
    """Width of a pixel over its height, as shown (after rotation); 1 where the file does not say."""
    rotation: int
    """Clockwise degrees (0, 90, 180, 270) by which the stored picture is turned to be shown; already applied."""
    is_interlaced: bool
    """Each frame holds two half-pictures of different times; they are given as they are stored."""
    is_image: bool
    has_audio: bool
    other_videos: int = 0
    """Video streams that the file holds besides the one that is read: the default one, else the largest."""


def others_left_out(info: VideoInfo) -> str:
    """What to say about a file with several video streams."""
    count = info.other_videos
    return (
        f"holds {count + 1} video streams; the one of {info.width}x{info.height} that players show is read, "
        f"{'the other' if count == 1 else f'the other {count}'} left out"
    )


@dataclass(frozen=True)
class Clip:
    """Consecutive frames in presentation order: a whole clip, or one batch of a stream."""

    frames: Tensor
    """(T, 3, H, W) uint8 RGB."""
    timestamps: tuple[Fraction, ...]
    """Presentation time of each frame in seconds, exact; the file's own times, which may start below or above 0."""
    frame_rate: Fraction
    """Average frames per second of the clip as it is here: the source's rate divided by the sample rate."""

    def __len__(self) -> int:
        return len(self.timestamps)

    def video(self) -> Tensor:
        """The frames as a model takes them: (1, 3, T, H, W) float32 in [-1, 1]."""
        return to_video(self.frames)

    def with_video(self, video_BCTHW: Tensor) -> Clip:
        """The same times with other frames, given as `video` gives them; rounded to the nearest of 256 levels."""
        return replace(self, frames=to_frames(video_BCTHW))


def to_video(frames_T3HW: Tensor) -> Tensor:
    """8-bit frames as a video of batch size 1, (1, 3, T, H, W) float32 in [-1, 1]."""
    return batch_to_video(frames_T3HW.unsqueeze(0))


def to_frames(video_BCTHW: Tensor) -> Tensor:
    """A video of batch size 1, in [-1, 1], as (T, 3, H, W) uint8; what lies outside is clamped."""
    return batch_to_frames(video_BCTHW).squeeze(0)


def batch_to_video(frames_BT3HW: Tensor) -> Tensor:
    """8-bit frames of several clips as a model takes them: (B, 3, T, H, W) float32 in [-1, 1]."""
    return frames_BT3HW.div(127.5).sub_(1).transpose(1, 2)


def batch_to_frames(video_BCTHW: Tensor) -> Tensor:
    """And back: (B, T, 3, H, W) uint8, rounded to the nearest level; what lies outside of [-1, 1] is clamped."""
    return (video_BCTHW.transpose(1, 2).float() + 1).mul_(127.5).round_().clamp_(0, 255).byte()
