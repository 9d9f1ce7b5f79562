"""The pictures of a clip in a report: a small video of all sides, and the worst frame with heat maps of its errors.

The sides of a clip are the original and the generated clip of each candidate, in this order.

Knows nothing of metrics and pages.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
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
VIDEO_PIXELS = 24_000_000
"""Limit for all frames of all sides: long clips, and those of many candidates, are shown smaller."""
PICTURE_PIXELS = 1_500_000
"""Limit for all pictures of a frame; at their largest, those of two candidates fit."""
COLUMNS = 4
"""Maximum number of sides next to each other in a video; decoders limit its width."""
TOPS = (4, 8, 16, 32, 64, 128, 255)
"""Possible ends of the scale of a heat map, in 8-bit levels."""
_COLORS = ((8, 8, 18), (38, 26, 94), (118, 35, 129), (205, 66, 92), (247, 150, 76), (253, 243, 184))


@dataclass(frozen=True)
class Media:
    """The pictures of one clip, as data URIs."""

    name: str
    video: str
    """H.264, lossy; the sides row by row, each padded to an even width and height."""
    columns: int
    """Sides in a row of the video."""
    width: int
    """Width of one side in pixels."""
    height: int
    frame_rate: float
    num_frames: int
    """Of the video."""
    frame: int
    """Number of the frame in the pictures below."""
    picture_width: int
    picture_height: int
    real: str
    generated: tuple[str, ...]
    """Of each candidate."""
    errors: tuple[str, ...]
    """Of each candidate."""
    top: int
    """The error at the end of the scale of all heat maps, in 8-bit levels."""
    beyond: bool
    """Whether some errors are larger than `top`."""
    first: int = 0
    """Number of the first frame of the video; above 0 for a later window of a clip."""

    @property
    def size(self) -> int:
        """Number of characters in the page."""
        return len(self.video) + len(self.real) + sum(map(len, self.generated + self.errors))


def picture(
    name: str, real_T3HW: Tensor, generated: Sequence[Tensor], frame_rate: Fraction, frame: int | None
) -> Media:
    """Make the pictures of an original and of the clips `generated` from it, (T, 3, H, W) uint8 RGB on any device.

    `frame` is the index of the frame with the heat maps; None picks the frame with the largest sum of errors. Raises
    VaectlError or OSError if temporary files cannot be written.
    """
    num_frames, _, height, width = real_T3HW.shape
    sides = [real_T3HW, *generated]
    if frame is None:
        sums = [sum(int((a.int() - b.int()).abs().sum()) for b in others) for a, *others in zip(*sides, strict=True)]
        frame = sums.index(max(sums))
    preview_width, preview_height = _reduced(width, height, VIDEO_PIXELS / (num_frames * len(sides)))
    picture_width, picture_height = _reduced(width, height, PICTURE_PIXELS / (2 * len(sides) - 1))
    real, *others = (side[frame].cpu() for side in sides)
    errors, top, beyond = heat_maps(real, others)
    return Media(
        name=name,
        video=_video(sides, frame_rate, (preview_width, preview_height)),
        columns=min(len(sides), COLUMNS),
        width=preview_width,
        height=preview_height,
        frame_rate=float(frame_rate),
        num_frames=num_frames,
        frame=frame,
        picture_width=picture_width,
        picture_height=picture_height,
        real=image(real, picture_width, picture_height),
        generated=tuple(image(frame, picture_width, picture_height) for frame in others),
        errors=tuple(image(error, picture_width, picture_height) for error in errors),
        top=top,
        beyond=beyond,
    )


def _reduced(width: int, height: int, pixels: float) -> tuple[int, int]:
    """Return the size of a picture that is within `LONGEST_SIDE` and within so many pixels."""
    shrink = min(1.0, LONGEST_SIDE / max(width, height), math.sqrt(pixels / (width * height)))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def heat_maps(real_3HW: Tensor, generated: Sequence[Tensor]) -> tuple[list[Tensor], int, bool]:
    """Return absolute errors in colour, (3, H, W) uint8 for each of `generated`, on one scale.

    Also returns the end of the scale, and whether some errors are larger. The error of a pixel is the largest of its
    three channels. The scale covers at least 98 % of the pixels of the better half of `generated`, so that one that is
    much worse does not darken the others.
    """
    error_NHW = (real_3HW.int() - torch.stack(list(generated)).int()).abs().amax(dim=1)
    below = [error_HW.flatten().bincount(minlength=256).cumsum(0) for error_HW in error_NHW]
    tops = sorted(next(top for top in TOPS if int(counts[top]) * 50 >= int(counts[-1]) * 49) for counts in below)
    top = tops[(len(tops) - 1) // 2]
    colors = color_scale()[(error_NHW.clamp(max=top) * 255 // top).long()]
    return list(colors.permute(0, 3, 1, 2)), top, int(error_NHW.max()) > top


def color_scale() -> Tensor:
    """Return the colours from no error to the largest, (256, 3) uint8 RGB, increasing in brightness."""
    anchors_CN = torch.tensor(_COLORS, dtype=torch.float32).T
    return F.interpolate(anchors_CN[None], 256, mode="linear", align_corners=True)[0].T.round().byte()


def image(frame_3HW: Tensor, width: int, height: int) -> str:
    """Encode a frame (uint8 RGB) at a size as the data URI of a PNG: lossless at its own size."""
    small = resize_exactly(frame_3HW[None], width, height)
    with temporary_folder() as folder:
        path = folder / "frame.png"
        write_video(path, Clip(small, (Fraction(0),), Fraction(1)))
        return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"


def _video(sides: Sequence[Tensor], frame_rate: Fraction, size: tuple[int, int]) -> str:
    """Encode the sides, `COLUMNS` in a row, as one video, so that no player can let them drift apart."""
    width, height = size
    even = (0, width % 2, 0, height % 2)  # browsers play only 4:2:0
    columns = min(len(sides), COLUMNS)
    empty = torch.zeros(-len(sides) % columns, 3, height + height % 2, width + width % 2)
    with temporary_folder() as folder:
        path = folder / "preview.mp4"
        width, height = columns * empty.shape[3], -(-len(sides) // columns) * empty.shape[2]
        with VideoWriter(path, width=width, height=height, frame_rate=frame_rate) as writer:
            for number, frames in enumerate(zip(*sides, strict=True)):
                cells_N3HW = F.pad(resize_exactly(torch.stack(frames), *size).float(), even, "replicate")
                rows = torch.split(torch.cat([cells_N3HW, empty.to(cells_N3HW.device)]), columns)
                grid_3HW = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
                writer.write(Clip(grid_3HW[None].byte(), (number / frame_rate,), frame_rate))
        return f"data:video/mp4;base64,{b64encode(path.read_bytes()).decode()}"
