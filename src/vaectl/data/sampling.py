"""The position of a training sample in a video, as a pure function of the seed and the number of the sample.

All random numbers are hashes of their purpose, so the order of calls, the number of workers, the platform and library
versions do not matter. Knows no file.
"""

from __future__ import annotations

from dataclasses import dataclass

from vaectl.rng import hash64, uniform


@dataclass(frozen=True)
class Sampling:
    """The shape of training samples, and how to cut them from videos."""

    num_frames: int
    resolution: int
    """Pixels: the shorter side of a frame is resized to this."""
    crop_size: int | None = None
    """Pixels: the side of the square crop; None: `resolution`."""
    sample_rate: int = 1
    """Distance in frames from one frame of the sample to the next."""
    dynamic_sample: bool = False
    """Draw the distance from 1 to `sample_rate`, or to what the length of the video allows."""
    random_crop: bool = False
    """Draw the position of the crop, instead of the centre."""
    flip: bool = False
    """Mirror samples left to right, with a probability of one half."""
    animate_images: bool = False
    """Move a camera over videos of one frame, so that they are long enough."""
    seed: int = 0

    @property
    def side(self) -> int:
        """The side of the frames of a sample, in pixels."""
        return self.crop_size or self.resolution

    @property
    def frames_needed(self) -> int:
        """The number of frames that a video must have."""
        return span(self.num_frames, 1 if self.dynamic_sample else self.sample_rate)

    def suits(self, num_frames: int) -> bool:
        """Return whether a sample can be cut from a video of `num_frames` frames."""
        return num_frames >= self.frames_needed or (num_frames == 1 and self.animate_images)


@dataclass(frozen=True)
class Draw:
    """The position of a sample in a video of any size and length, as numbers in [0, 1)."""

    rate: float
    start: float
    top: float
    left: float
    flip: float
    camera: int = 0
    """The seed of the camera path over an image."""


@dataclass(frozen=True)
class Place:
    """The position of a sample in one video."""

    start: int
    sample_rate: int
    at: tuple[float, float]
    """The position of the crop, as `scale_and_crop` takes it."""
    flip: bool


def span(num_frames: int, sample_rate: int) -> int:
    """Return the number of frames from the first to the last of `num_frames`, every `sample_rate`-th one."""
    return (num_frames - 1) * sample_rate + 1


def draw(*key: int | str) -> Draw:
    """Return the draw that belongs to `key`."""
    rate, start, top, left, flip = (uniform(name, *key) for name in ("rate", "start", "top", "left", "flip"))
    return Draw(rate, start, top, left, flip, hash64("camera", *key))


def place(draw: Draw, sampling: Sampling, num_frames: int) -> Place:
    """Return the position for `draw` in a video of `num_frames` frames, at least `sampling.frames_needed`."""
    rate = sampling.sample_rate
    if sampling.dynamic_sample:
        longest = (num_frames - 1) // (sampling.num_frames - 1) if sampling.num_frames > 1 else rate
        rate = 1 + int(draw.rate * min(rate, longest))
    start = int(draw.start * (num_frames - span(sampling.num_frames, rate) + 1))
    at = (draw.top, draw.left) if sampling.random_crop else (0.5, 0.5)
    return Place(start, rate, at, sampling.flip and draw.flip < 0.5)
