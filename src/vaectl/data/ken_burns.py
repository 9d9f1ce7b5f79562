"""The Ken Burns effect: a view that pans, zooms and turns smoothly over a photograph makes a video of it.

Every movement is a sine in time, so that it has no corners and no end. Its numbers follow from a seed alone. Knows
pictures and numbers, and no file.
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
"""Of a pan: widths of the view for each frame. Slow and fast ones are equally likely, on a logarithmic scale."""
QUICKEST = 32.0
"""Frames of the shortest period."""
MOST_ZOOM = 1.4
"""Between the widest view and the narrowest one of a path."""
MOST_TURN = math.radians(8)
_FRAMES_AT_ONCE = 4


@dataclass(frozen=True)
class Oscillation:
    """centre + extent·sin(speed·t/extent + phase): never faster than `speed` for each frame."""

    centre: float
    extent: float
    speed: float
    phase: float

    @classmethod
    def drawn(cls, centre: float, extent: float, fastest: float, *key: int | str) -> Oscillation:
        speed = fastest * (SLOWEST / FASTEST) ** uniform("speed", *key)
        speed = min(speed, extent * 2 * math.pi / QUICKEST)
        return cls(centre, extent, speed, 2 * math.pi * uniform("phase", *key))

    def at(self, time: int) -> float:
        turns = self.speed * time / self.extent if self.extent > 0 else 0.0
        return self.centre + self.extent * math.sin(turns + self.phase)


@dataclass(frozen=True)
class View:
    """The square of the picture that a frame shows, in pixels of the picture."""

    x: float
    y: float
    side: float
    turn: float
    """Radians."""

    @property
    def reach(self) -> float:
        """From the centre to the left, right, top and bottom of the square, turned as it is."""
        return self.side / 2 * (abs(math.cos(self.turn)) + abs(math.sin(self.turn)))


@dataclass(frozen=True)
class Path:
    """Where a camera is at any time, counted in frames. Its view lies within the picture."""

    x: Oscillation
    y: Oscillation
    zoom: Oscillation
    """Of the logarithm of the side."""
    turn: Oscillation

    def at(self, time: int) -> View:
        return View(self.x.at(time), self.y.at(time), math.exp(self.zoom.at(time)), self.turn.at(time))


def drawn_path(width: int, height: int, resolution: int, crop_size: int, seed: int) -> Path:
    """The path that belongs to `seed`, over a picture of that size, for frames of `resolution` pixels.

    Its view is the part of such a frame that a crop of `crop_size` shows; it moves as the frame would.
    A pixel of the frame is never smaller than one of the picture, unless the picture is smaller than the frame.
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
    """Along a side of the picture of `size` pixels, on which the view takes up to `view`."""
    room = max(0.0, size - view)
    extent = room / 2 * uniform("extent", axis, seed)
    centre = view / 2 + extent + (room - 2 * extent) * uniform("centre", axis, seed)
    return Oscillation.drawn(centre, extent, fastest, axis, seed)


def ken_burns(picture: Tensor, times: Sequence[int], resolution: int, crop_size: int, seed: int) -> Tensor:
    """What the camera sees of `picture`, (3, H, W) uint8, at these times: (T, 3, crop_size, crop_size) uint8.

    That is a crop of frames of `resolution` pixels. The picture is first scaled down, antialiased, to about their size;
    then each frame is sampled with four points for each pixel, bilinear, and averaged.
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
    """The pixel at which what is seen begins (sign -1) or ends (1), with one to spare for interpolation."""
    return max(0, math.floor(min(edges)) - 1) if sign < 0 else min(size, math.ceil(max(edges)) + 1)


def _transform(view: View, left: int, top: int, width: int, height: int) -> list[list[float]]:
    """From the frame to the part of the picture that is there, -1 to 1 along each side of both (`affine_grid`)."""
    cosine, sine = math.cos(view.turn) * view.side, math.sin(view.turn) * view.side
    return [
        [cosine / width, -sine / width, 2 * (view.x - left) / width - 1],
        [sine / height, cosine / height, 2 * (view.y - top) / height - 1],
    ]
