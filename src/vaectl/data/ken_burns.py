"""The Ken Burns effect: a view that pans, zooms and turns over an image makes a video of it.

Every movement is a sine in time, so it is smooth and endless. Its parameters depend only on a seed. Knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vaectl.rng import uniform

FASTEST, SLOWEST = 1 / 32, 1 / 4096
"""Speed of a pan in widths of the view per frame. It is drawn on a logarithmic scale."""
QUICKEST = 32.0
"""Shortest period of a movement in frames."""
MOST_ZOOM = 1.4
"""Largest ratio between the widest and the narrowest view of a path."""
MOST_TURN = math.radians(8)
"""Largest rotation in radians."""
_FRAMES_AT_ONCE = 4


@dataclass(frozen=True)
class Oscillation:
    """centre + extent·sin(speed·t/extent + phase), with at most `speed` per frame."""

    centre: float
    extent: float
    speed: float
    phase: float

    @classmethod
    def drawn(cls, centre: float, extent: float, fastest: float, *key: int | str) -> Oscillation:
        """Return the oscillation that belongs to `key`, of at most `fastest` per frame."""
        speed = fastest * (SLOWEST / FASTEST) ** uniform("speed", *key)
        speed = min(speed, extent * 2 * math.pi / QUICKEST)
        return cls(centre, extent, speed, 2 * math.pi * uniform("phase", *key))

    def at(self, time: int) -> float:
        """Return the value at a time in frames."""
        turns = self.speed * time / self.extent if self.extent > 0 else 0.0
        return self.centre + self.extent * math.sin(turns + self.phase)


@dataclass(frozen=True)
class View:
    """The square of the image that a frame shows, in pixels of the image."""

    x: float
    y: float
    side: float
    turn: float
    """Radians."""

    @property
    def reach(self) -> float:
        """The distance from the centre to each side of the bounding box of the rotated square."""
        return self.side / 2 * (abs(math.cos(self.turn)) + abs(math.sin(self.turn)))


@dataclass(frozen=True)
class Path:
    """The movement of a camera. Its view is always within the image."""

    x: Oscillation
    y: Oscillation
    zoom: Oscillation
    """The logarithm of the side."""
    turn: Oscillation

    def at(self, time: int) -> View:
        """Return the view at a time in frames."""
        return View(self.x.at(time), self.y.at(time), math.exp(self.zoom.at(time)), self.turn.at(time))


def drawn_path(width: int, height: int, resolution: int, crop_size: int, seed: int) -> Path:
    """Return the path that belongs to `seed`, over an image of this size, for frames of `resolution` pixels.

    The view is a crop of `crop_size` pixels from a frame, and moves as the frame would. The image is not enlarged,
    unless it is smaller than the frame.
    """
    largest_turn = MOST_TURN * uniform("turn", seed) ** 2
    bounds = math.cos(largest_turn) + math.sin(largest_turn)
    most = min(width, height) / bounds
    least = min(most, resolution * MOST_ZOOM)
    widest = least + (most - least) * uniform("side", seed)
    shown = widest * crop_size / resolution
    zoom = math.log(MOST_ZOOM) / 2 * uniform("zoom", seed)
    across, down = (
        _pan(size, shown * bounds, FASTEST * widest, axis, seed) for size, axis in ((width, "x"), (height, "y"))
    )
    return Path(
        across,
        down,
        Oscillation.drawn(math.log(shown) - zoom, zoom, FASTEST / 2, "zoom", seed),
        Oscillation.drawn(0.0, largest_turn, FASTEST / 2, "turn", seed),
    )


def _pan(size: int, view: float, fastest: float, axis: str, seed: int) -> Oscillation:
    """Return the movement along a side of `size` pixels, for a view of up to `view` pixels."""
    room = max(0.0, size - view)
    extent = room / 2 * uniform("extent", axis, seed)
    centre = view / 2 + extent + (room - 2 * extent) * uniform("centre", axis, seed)
    return Oscillation.drawn(centre, extent, fastest, axis, seed)


def ken_burns(picture: Tensor, times: Sequence[int], resolution: int, crop_size: int, seed: int) -> Tensor:
    """Return the frames (T, 3, crop_size, crop_size) uint8 of `picture`, (3, H, W) uint8, at these times in frames.

    They are crops of frames of `resolution` pixels. The picture is first scaled down to about their size, antialiased.
    Each pixel is then the mean of four bilinear samples.
    """
    _, height, width = picture.shape
    path = drawn_path(width, height, resolution, crop_size, seed)
    views = [path.at(time) for time in times]
    left, right = (_beyond(sign, [view.x + sign * view.reach for view in views], width) for sign in (-1, 1))
    top, bottom = (_beyond(sign, [view.y + sign * view.reach for view in views], height) for sign in (-1, 1))
    seen = picture[None, :, top:bottom, left:right]
    scale = min(1.0, 1.5 * crop_size / min(view.side for view in views))
    size = tuple(max(1, math.ceil(scale * side)) for side in seen.shape[2:])
    if size != seen.shape[2:]:
        seen = F.interpolate(seen, size, mode="bilinear", antialias=True)
    seen = seen.float()
    frames = []
    for first in range(0, len(views), _FRAMES_AT_ONCE):
        some = [
            _transform(view, left, top, right - left, bottom - top) for view in views[first : first + _FRAMES_AT_ONCE]
        ]
        grid = F.affine_grid(torch.tensor(some), [len(some), 3, 2 * crop_size, 2 * crop_size], align_corners=False)
        fine = F.grid_sample(seen.expand(len(some), -1, -1, -1), grid, padding_mode="border", align_corners=False)
        frames.append(F.avg_pool2d(fine, 2).round_().clamp_(0, 255).byte())
    return torch.cat(frames)


def _beyond(sign: int, edges: Sequence[float], size: int) -> int:
    """Return the first (sign -1) or last (1) pixel that any view needs, with one more for interpolation."""
    return max(0, math.floor(min(edges)) - 1) if sign < 0 else min(size, math.ceil(max(edges)) + 1)


def _transform(view: View, left: int, top: int, width: int, height: int) -> list[list[float]]:
    """Return the matrix from the frame to this part of the picture, for `affine_grid`: both from -1 to 1."""
    cosine, sine = math.cos(view.turn) * view.side, math.sin(view.turn) * view.side
    return [
        [cosine / width, -sine / width, 2 * (view.x - left) / width - 1],
        [sine / height, cosine / height, 2 * (view.y - top) / height - 1],
    ]
