"""The pictures of a clip in a report: a small video of both sides, and the worst frame with a heat map of its errors.

Knows nothing of metrics and pages.
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
"""Maximum side of a picture in pixels."""
VIDEO_PIXELS = 12_000_000
"""Limit for all frames of one side: long clips are shown smaller."""
TOPS = (4, 8, 16, 32, 64, 128, 255)
"""Possible ends of the scale of a heat map, in 8-bit levels."""
_COLORS = ((8, 8, 18), (38, 26, 94), (118, 35, 129), (205, 66, 92), (247, 150, 76), (253, 243, 184))


@dataclass(frozen=True)
class Media:
    """The pictures of one clip, as data URIs."""

    name: str
    video: str
    """H.264, lossy; the original on the left, the generated clip on the right, each padded to even sides."""
    width: int
    """Width of one side in pixels."""
    height: int
    frame_rate: float
    frame: int
    """Index of the frame in the pictures below, which are at full size or reduced to `LONGEST_SIDE`."""
    real: str
    generated: str
    error: str
    top: int
    """The error at the end of the scale of the heat map, in 8-bit levels."""
    beyond: bool
    """Whether some errors are larger than `top`."""

    @property
    def size(self) -> int:
        """Number of characters in the page."""
        return len(self.video) + len(self.real) + len(self.generated) + len(self.error)


def picture(name: str, real_T3HW: Tensor, generated_T3HW: Tensor, frame_rate: Fraction, frame: int | None) -> Media:
    """Make the pictures of a pair of clips, both (T, 3, H, W) uint8 RGB on any device.

    `frame` is the index of the frame with the heat map; None picks the frame with the largest sum of errors. Raises
    VaectlError or OSError if temporary files cannot be written.
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
    """Return absolute errors in colour, (3, H, W) uint8; the end of the scale; and whether some errors are larger.

    The error of a pixel is the largest of its three channels. The scale covers at least 98 % of the pixels.
    """
    error_HW = (real_3HW.int() - generated_3HW.int()).abs().amax(dim=0)
    below = error_HW.flatten().bincount(minlength=256).cumsum(0)
    top = next(top for top in TOPS if int(below[top]) * 50 >= error_HW.numel() * 49)
    colors = color_scale()[(error_HW.clamp(max=top) * 255 // top).long()]
    return colors.permute(2, 0, 1), top, int(error_HW.max()) > top


def color_scale() -> Tensor:
    """Return the colours from no error to the largest, (256, 3) uint8 RGB, increasing in brightness."""
    anchors_CN = torch.tensor(_COLORS, dtype=torch.float32).T
    return F.interpolate(anchors_CN[None], 256, mode="linear", align_corners=True)[0].T.round().byte()


def image(frame_3HW: Tensor) -> str:
    """Encode a frame (uint8 RGB) as the data URI of a PNG: lossless, unless it is larger than `LONGEST_SIDE`."""
    height, width = frame_3HW.shape[1:]
    shrink = min(1.0, LONGEST_SIDE / max(width, height))
    small = resize_exactly(frame_3HW[None], max(1, round(width * shrink)), max(1, round(height * shrink)))
    with temporary_folder() as folder:
        path = folder / "frame.png"
        write_video(path, Clip(small, (Fraction(0),), Fraction(1)))
        return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"


def _video(real_T3HW: Tensor, generated_T3HW: Tensor, frame_rate: Fraction, size: tuple[int, int]) -> str:
    width, height = size
    even = (0, width % 2, 0, height % 2)  # browsers play only 4:2:0
    with temporary_folder() as folder:
        path = folder / "preview.mp4"
        both_width, even_height = 2 * (width + width % 2), height + height % 2
        with VideoWriter(path, width=both_width, height=even_height, frame_rate=frame_rate) as writer:
            for number, pair in enumerate(zip(real_T3HW, generated_T3HW, strict=True)):
                sides = [F.pad(resize_exactly(side[None], width, height).float(), even, "replicate") for side in pair]
                both = torch.cat(sides, dim=3).byte()
                writer.write(Clip(both, (number / frame_rate,), frame_rate))
        return f"data:video/mp4;base64,{b64encode(path.read_bytes()).decode()}"
