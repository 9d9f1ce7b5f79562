"""The positions of tiles and the sizes of their halos: integers only.

A tile is a rectangle of latent positions; `scale` is the number of positions of a value per latent position. A tile is
read with a halo of its neighbours on its inner sides, and the result of the halo is cropped. If the halo would cross
the border of the frame, the tile is read up to the border, where nothing is cropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from vaectl.models.context import HaloSides

Slices = tuple[slice, slice]


@dataclass(frozen=True)
class Span:
    """A tile along one axis: latent positions [start, stop) of `size`. `before`, `after`: 1 where the side is inner."""

    start: int
    stop: int
    size: int

    def inner(self, halo: int, scale: int) -> tuple[bool, bool]:
        """Return whether the halo ends inside the frame, before the tile and after it: those sides are inner."""
        return scale * self.start > halo, scale * (self.size - self.stop) > halo

    def read(self, halo: int, scale: int, before: int, after: int) -> slice:
        """Return the positions to read: with the halo on inner sides, up to the border on the others."""
        start = scale * self.start - halo if before else 0
        return slice(start, scale * self.stop + halo if after else scale * self.size)

    def crop(self, length: int, halo: int, scale: int, before: int, after: int) -> slice:
        """Crop a result of `length` positions, which has the same halo on all inner sides, to a smaller `halo`."""
        without_halo = self.read(0, scale, before, after)
        all_halos = length - (without_halo.stop - without_halo.start)
        excess = all_halos // max(1, before + after) - halo
        return slice(excess if before else 0, length - excess if after else length)

    def core(self, length: int, scale: int, before: int, after: int) -> slice:
        """Crop the same result to the tile itself. Without an inner side before it, the result starts at the border."""
        start = self.crop(length, 0, scale, before, after).start if before else scale * self.start
        return slice(start, start + scale * (self.stop - self.start))


@dataclass(frozen=True)
class Tile:
    """A rectangle of latent positions."""

    rows: Span
    columns: Span

    @property
    def whole(self) -> bool:
        """Whether the tile covers the whole frame."""
        return all(span.stop - span.start == span.size for span in (self.rows, self.columns))

    def region(self, scale: int) -> Slices:
        """Return the tile itself, without halo, as an index into height and width."""
        rows, columns = (slice(scale * span.start, scale * span.stop) for span in (self.rows, self.columns))
        return rows, columns

    def halo_sides(self, halos: Iterable[tuple[int, int]]) -> HaloSides:
        """Return the sides that are inner for all of these values, given by halo and scale."""
        every = [(*self.rows.inner(*each), *self.columns.inner(*each)) for each in halos]
        return HaloSides(*(all(side) for side in zip(*every, strict=True)))

    def read(self, halo: int, scale: int, sides: HaloSides) -> Slices:
        """Return the tile with its halo, as an index into height and width."""
        return self.rows.read(halo, scale, *sides[:2]), self.columns.read(halo, scale, *sides[2:])

    def crop(self, x: Tensor, halo: int, scale: int, sides: HaloSides) -> Tensor:
        """Crop a result `x` (..., H, W) of layers to `halo` positions on inner sides."""
        rows = self.rows.crop(x.shape[-2], halo, scale, *sides[:2])
        return x[..., rows, self.columns.crop(x.shape[-1], halo, scale, *sides[2:])]

    def core(self, x: Tensor, scale: int, sides: HaloSides) -> Tensor:
        """Crop the same result to the tile itself."""
        rows = self.rows.core(x.shape[-2], scale, *sides[:2])
        return x[..., rows, self.columns.core(x.shape[-1], scale, *sides[2:])]


def spans(size: int, most: int) -> list[Span]:
    """Split [0, size) into the fewest spans of at most `most` positions, all of nearly the same length."""
    parts = -(-size // most)
    edges = [i * size // parts for i in range(parts + 1)]
    return [Span(start, stop, size) for start, stop in pairwise(edges)]


def grid(height: int, width: int, tile: int) -> list[Tile]:
    """Split a latent of `height` x `width` positions into tiles of at most `tile` positions each way, row by row."""
    return [Tile(rows, columns) for rows in spans(height, tile) for columns in spans(width, tile)]


def windows(num_frames: int, most: int) -> list[int]:
    """Return the lengths of the windows of a clip, of at most `most` frames each."""
    return [min(most, num_frames - start) for start in range(0, num_frames, most)]
