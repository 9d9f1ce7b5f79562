"""Which clip of a file a training sample is: numbers that follow from the seed and the number of the sample alone.

Everything is drawn with a hash of what it is for, so nothing depends on an order of calls, on the number of workers, on
the platform, or on the version of a library. Knows no file.
"""

from __future__ import annotations

from dataclasses import dataclass

from vaectl.rng import hash64, uniform


@dataclass(frozen=True)
class Sampling:
    """What a training sample looks like."""

    num_frames: int
    resolution: int
    """Pixels: the shorter side of a frame is brought to it."""
    crop_size: int | None = None
    """Pixels: the side of the square that is cut out of the frame; None: that of its shorter side."""
    sample_rate: int = 1
    """Distance in frames from one frame of the sample to the next."""
    dynamic_sample: bool = False
    """Draw that distance between 1 and `sample_rate`, as far as the video is long enough."""
    random_crop: bool = False
    """Draw where the square lies instead of taking the centre."""
    flip: bool = False
    """Mirror every second sample, drawn, left to right."""
    animate_images: bool = False
    """Let a camera move over videos of one frame, so that they are long enough for every sample."""
    seed: int = 0

    @property
    def side(self) -> int:
        """Of the sample's frames, in pixels."""
        return self.crop_size or self.resolution

    @property
    def frames_needed(self) -> int:
        """How many frames a video has to have."""
        return span(self.num_frames, 1 if self.dynamic_sample else self.sample_rate)

    def suits(self, num_frames: int) -> bool:
        """Whether a sample can be cut from a video of so many frames."""
        return num_frames >= self.frames_needed or (num_frames == 1 and self.animate_images)


@dataclass(frozen=True)
class Draw:
    """The place of a sample in a video of any size and length: each number in [0, 1)."""

    rate: float
    start: float
    top: float
    left: float
    flip: float
    camera: int = 0
    """The seed of its path, where it moves over an image."""


@dataclass(frozen=True)
class Place:
    """The place of a sample in one video."""

    start: int
    sample_rate: int
    at: tuple[float, float]
    """Of the square, as `scale_and_crop` takes it."""
    flip: bool


def span(num_frames: int, sample_rate: int) -> int:
    """How many frames there are from the first to the last of `num_frames` that are `sample_rate` apart."""
    return (num_frames - 1) * sample_rate + 1


def draw(*key: int | str) -> Draw:
    """The draw that belongs to `key`."""
    rate, start, top, left, flip = (uniform(name, *key) for name in ("rate", "start", "top", "left", "flip"))
    return Draw(rate, start, top, left, flip, hash64("camera", *key))


def place(draw: Draw, sampling: Sampling, num_frames: int) -> Place:
    """What `draw` means in a video of `num_frames` frames, at least `sampling.frames_needed`."""
    rate = sampling.sample_rate
    if sampling.dynamic_sample:
        longest = (num_frames - 1) // (sampling.num_frames - 1) if sampling.num_frames > 1 else rate
        rate = 1 + int(draw.rate * min(rate, longest))
    start = int(draw.start * (num_frames - span(sampling.num_frames, rate) + 1))
    at = (draw.top, draw.left) if sampling.random_crop else (0.5, 0.5)
    return Place(start, rate, at, sampling.flip and draw.flip < 0.5)
