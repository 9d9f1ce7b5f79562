"""The facts about a video, and frames read from it. Plain values: opens no file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from vaectl.arrays import beyond, describe
from vaectl.errors import UsageError, shown
from vaectl.numbers import read_fraction

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ColorTags:
    """How YCbCr samples map to light: code points of ITU-T H.273. 2 means unspecified.

    `primaries` and `transfer` also describe the picture after its conversion to RGB. `matrix` and `full_range` describe
    only the YCbCr samples of the file.
    """

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    full_range: bool | None = None

    @property
    def hdr(self) -> str | None:
        """Name of the HDR transfer function; None for standard dynamic range."""
        return {16: "PQ", 18: "HLG"}.get(self.transfer)


@dataclass(frozen=True)
class VideoInfo:
    """The facts about a still image, or about the video stream of a file that players show."""

    path: Path
    width: int
    """Pixels of a frame as shown, after rotation."""
    height: int
    frame_rate: Fraction
    """Average frames per second; 1 for a still image."""
    num_frames_from_header: int | None
    """As the container claims; None if it does not say. `VideoReader.timestamps()` is exact."""
    codec: str
    """FFmpeg's name of the decoder."""
    pixel_format: str
    bit_depth: int
    color: ColorTags
    sample_aspect_ratio: Fraction
    """Pixel width divided by height, as shown (after rotation); 1 if the file does not say."""
    rotation: int
    """Clockwise rotation from the stored to the shown picture: 0, 90, 180 or 270 degrees. Already applied."""
    is_interlaced: bool
    """Whether each frame holds two fields of different times. Frames are returned as stored, not deinterlaced."""
    is_image: bool
    has_audio: bool
    other_videos: int = 0
    """Number of further video streams. The default stream is read, else the largest."""


def others_left_out(info: VideoInfo) -> str:
    """Return a message about a file with several video streams."""
    count = info.other_videos
    return (
        f"holds {count + 1} video streams; the one of {info.width}x{info.height} that players show is read, "
        f"{'the other' if count == 1 else f'the other {count}'} left out"
    )


@dataclass(frozen=True, eq=False)
class Clip:
    """Consecutive frames in presentation order: a whole clip, or one batch of a stream."""

    frames: Tensor
    """(T, 3, H, W) uint8 RGB."""
    timestamps: tuple[Fraction, ...]
    """Exact presentation time of each frame in seconds, as in the file: the first may be below or above 0."""
    frame_rate: Fraction
    """Average frames per second of this clip: the rate of the source divided by the sample rate."""

    @classmethod
    def from_frames(cls, frames_T3HW: Tensor, fps: float | Fraction | str) -> Clip:
        """Make a clip of frames (T, 3, H, W) uint8, the first at 0 s, at `fps` frames per second. Raises UsageError."""
        rate = frame_rate_of(fps)
        shape = tuple(getattr(frames_T3HW, "shape", ()))
        if str(getattr(frames_T3HW, "dtype", "")) != "torch.uint8" or len(shape) != 4 or shape[1] != 3:
            raise UsageError(f"a clip takes a tensor of uint8 (T, 3, H, W), not {describe(frames_T3HW)}")
        if 0 in shape:
            raise UsageError(f"a clip must have at least 1 frame and 1 pixel, not {describe(frames_T3HW)}")
        return cls(frames_T3HW, tuple(number / rate for number in range(len(frames_T3HW))), rate)

    def __len__(self) -> int:
        return len(self.timestamps)

    def __repr__(self) -> str:
        height, width = self.frames.shape[-2:]
        rate = float(self.frame_rate)
        return f"Clip({len(self)} frames, {width}x{height}, {rate:.5g} fps, {len(self) / rate:.2f} s)"

    def video(self) -> Tensor:
        """Return the frames as model input: (1, 3, T, H, W) float32 in [-1, 1]."""
        return to_video(self.frames)

    def with_video(self, video_BCTHW: Tensor) -> Clip:
        """Replace the frames by `video_BCTHW`, in the format of `video`, rounded to the nearest of 256 levels.

        The frames stay on their device. Raises UsageError for anything but a float tensor of this number of frames, and
        for NaN or values far outside [-1, 1].
        """
        wanted = f"needs a video (1, 3, {len(self)}, H, W) in [-1, 1], not {describe(video_BCTHW)}"
        shape = tuple(getattr(video_BCTHW, "shape", ()))
        is_float = str(getattr(video_BCTHW, "dtype", "")).startswith(("torch.float", "torch.bfloat"))
        if not is_float or len(shape) != 5 or shape[:3] != (1, 3, len(self)) or 0 in shape:
            raise UsageError(wanted)
        if fault := beyond(float(video_BCTHW.detach().float().abs().amax())):
            raise UsageError(f"{wanted}{fault}")
        return replace(self, frames=to_frames(video_BCTHW).to(self.frames.device))


def frame_rate_of(fps: float | Fraction | str) -> Fraction:
    """Return a number of frames per second as a fraction: 25, 29.97 or "30000/1001". Raises UsageError for others."""
    try:
        rate = read_fraction(str(fps))
    except ValueError:
        rate = Fraction(0)
    if not Fraction(1, 1000) <= rate <= 1000:
        raise UsageError(f"`fps={shown(str(fps))}` is no frame rate", "give 1/1000 to 1000 frames per second")
    return rate


def to_video(frames_T3HW: Tensor) -> Tensor:
    """Convert 8-bit frames to a video of batch size 1: (1, 3, T, H, W) float32 in [-1, 1]."""
    return batch_to_video(frames_T3HW.unsqueeze(0))


def to_frames(video_BCTHW: Tensor) -> Tensor:
    """Convert a video of batch size 1 in [-1, 1] to (T, 3, H, W) uint8. Values outside are clamped."""
    return batch_to_frames(video_BCTHW).squeeze(0)


def batch_to_video(frames_BT3HW: Tensor) -> Tensor:
    """Convert the 8-bit frames of several clips to model input: (B, 3, T, H, W) float32 in [-1, 1]."""
    return frames_BT3HW.div(127.5).sub_(1).transpose(1, 2)


def batch_to_frames(video_BCTHW: Tensor) -> Tensor:
    """Convert back to (B, T, 3, H, W) uint8, rounded to the nearest level. Values outside [-1, 1] are clamped."""
    return (video_BCTHW.transpose(1, 2).float() + 1).mul_(127.5).round_().clamp_(0, 255).byte()
