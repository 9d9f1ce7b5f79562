"""What a report shows of a clip: a small video of both sides, and the worst frame with its errors in colour.

Knows frames and files, and nothing of metrics and pages.
"""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F

from vaectl.io.leftovers import temporary_folder
from vaectl.video import Clip, VideoWriter, write_video
from vaectl.video.transform import resize_exactly

LONGEST_SIDE = 512
"""Pixels of a picture, at most."""
VIDEO_PIXELS = 12_000_000
"""Of all frames of one side together: long clips are shown smaller."""
TOPS = (4, 8, 16, 32, 64, 128, 255)
"""Where the scale of a heat map may end, in 8-bit levels."""
_COLORS = ((8, 8, 18), (38, 26, 94), (118, 35, 129), (205, 66, 92), (247, 150, 76), (253, 243, 184))


@dataclass(frozen=True)
class Media:
    """The pictures of one clip, as data URIs."""

    name: str
    video: str
    """H.264, lossy; the original on the left of the generated clip, each filled up to an even number of pixels."""
    width: int
    """Pixels of one side."""
    height: int
    frame_rate: float
    frame: int
    """The frame, from 0, that the pictures below show: at its own size, or reduced to `LONGEST_SIDE`."""
    real: str
    generated: str
    error: str
    top: int
    """The error (8-bit levels) at the end of the heat map's scale."""
    beyond: bool
    """Whether some errors are larger."""

    @property
    def size(self) -> int:
        """Characters in the page."""
        return len(self.video) + len(self.real) + len(self.generated) + len(self.error)


def picture(name: str, real_T3HW: Tensor, generated_T3HW: Tensor, frame_rate: Fraction, frame: int | None) -> Media:
    """The pictures of a pair of clips, both (T, 3, H, W) uint8 RGB on any device.

    `frame` is the one that is shown beside its errors; None for the one with the largest sum of errors. Raises
    VaectlError or OSError where temporary files cannot be written.
    """
    num_frames, _, height, width = real_T3HW.shape
    if frame is None:
        sums = [int((a.int() - b.int()).abs().sum()) for a, b in zip(real_T3HW, generated_T3HW, strict=True)]
        frame = sums.index(max(sums))
    shrink = min(1.0, LONGEST_SIDE / max(width, height), math.sqrt(VIDEO_PIXELS / (num_frames * width * height)))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    real, generated = real_T3HW[frame].cpu(), generated_T3HW[frame].cpu()
    error, top, beyond = heat_map(real, generated)
    return Media(
        name=name,
        video=_video(real_T3HW, generated_T3HW, frame_rate, size),
        width=size[0],
        height=size[1],
        frame_rate=float(frame_rate),
        frame=frame,
        real=image(real),
        generated=image(generated),
        error=image(error),
        top=top,
        beyond=beyond,
    )


def heat_map(real_3HW: Tensor, generated_3HW: Tensor) -> tuple[Tensor, int, bool]:
    """Absolute errors in colour, (3, H, W) uint8; the error at the end of the scale; whether some are larger.

    Of the three channels the largest error counts. The scale ends where all but one in 50 pixels lie.
    """
    error_HW = (real_3HW.int() - generated_3HW.int()).abs().amax(dim=0)
    below = error_HW.flatten().bincount(minlength=256).cumsum(0)
    top = next(top for top in TOPS if int(below[top]) * 50 >= error_HW.numel() * 49)
    colors = color_scale()[(error_HW.clamp(max=top) * 255 // top).long()]
    return colors.permute(2, 0, 1), top, int(error_HW.max()) > top


def color_scale() -> Tensor:
    """From no error to the largest: (256, 3) uint8 RGB, ever brighter."""
    anchors_CN = torch.tensor(_COLORS, dtype=torch.float32).T
    return F.interpolate(anchors_CN[None], 256, mode="linear", align_corners=True)[0].T.round().byte()


def image(frame_3HW: Tensor) -> str:
    """A frame (uint8 RGB) as the data URI of a PNG: exact, unless it is larger than `LONGEST_SIDE`."""
    height, width = frame_3HW.shape[1:]
    shrink = min(1.0, LONGEST_SIDE / max(width, height))
    small = resize_exactly(frame_3HW[None], max(1, round(width * shrink)), max(1, round(height * shrink)))
    with temporary_folder() as folder:
        path = folder / "frame.png"
        write_video(path, Clip(small, (Fraction(0),), Fraction(1)))
        return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"


def _video(real_T3HW: Tensor, generated_T3HW: Tensor, frame_rate: Fraction, size: tuple[int, int]) -> str:
    width, height = size
    even = (0, width % 2, 0, height % 2)  # browsers play 4:2:0 only
    with temporary_folder() as folder:
        path = folder / "preview.mp4"
        both_width, even_height = 2 * (width + width % 2), height + height % 2
        with VideoWriter(path, width=both_width, height=even_height, frame_rate=frame_rate) as writer:
            for number, pair in enumerate(zip(real_T3HW, generated_T3HW, strict=True)):
                sides = [F.pad(resize_exactly(side[None], width, height).float(), even, "replicate") for side in pair]
                both = torch.cat(sides, dim=3).byte()
                writer.write(Clip(both, (number / frame_rate,), frame_rate))
        return f"data:video/mp4;base64,{b64encode(path.read_bytes()).decode()}"
