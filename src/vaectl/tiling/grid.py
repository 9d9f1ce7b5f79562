"""Where tiles are, and how large their halos are: integers only.

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
    """A tile along one axis: the latent positions [start, stop) of `size`."""

    start: int
    stop: int
    size: int

    def inner(self, halo: int, scale: int) -> tuple[bool, bool]:
        """Whether the halo ends before the border: on the side before the tile, and after it."""
        return scale * self.start > halo, scale * (self.size - self.stop) > halo

    def read(self, halo: int, scale: int, before: int, after: int) -> slice:
        """The positions to read: on inner sides with the halo, on the others up to the border."""
        return slice(
            scale * self.start - halo if before else 0, scale * self.stop + halo if after else scale * self.size
        )

    def crop(self, length: int, halo: int, scale: int, before: int, after: int) -> slice:
        """Crop `length` positions, which have some halo on inner sides, to `halo` positions there."""
        known = scale * ((self.stop if after else self.size) - (self.start if before else 0))
        spare = (length - known) // max(1, before + after) - halo
        return slice(spare if before else 0, length - spare if after else length)

    def core(self, length: int, scale: int, before: int, after: int) -> slice:
        """Crop the same positions to the tile itself."""
        first = self.crop(length, 0, scale, before, after).start if before else scale * self.start
        return slice(first, first + scale * (self.stop - self.start))


@dataclass(frozen=True)
class Tile:
    rows: Span
    columns: Span

    @property
    def whole(self) -> bool:
        """Whether it is the whole frame."""
        return all(span.stop - span.start == span.size for span in (self.rows, self.columns))

    def region(self, scale: int) -> Slices:
        """The tile itself: an index into height and width."""
        rows, columns = (slice(scale * span.start, scale * span.stop) for span in (self.rows, self.columns))
        return rows, columns

    def halo_sides(self, halos: Iterable[tuple[int, int]]) -> HaloSides:
        """The sides on which every one of these values, given by halo and scale, is read with its halo."""
        every = [(*self.rows.inner(*each), *self.columns.inner(*each)) for each in halos]
        return HaloSides(*(all(side) for side in zip(*every, strict=True)))

    def read(self, halo: int, scale: int, sides: HaloSides) -> Slices:
        """The tile with its halo: an index into height and width."""
        return self.rows.read(halo, scale, *sides[:2]), self.columns.read(halo, scale, *sides[2:])

    def crop(self, x: Tensor, halo: int, scale: int, sides: HaloSides) -> Tensor:
        """Crop the result `x` (..., H, W) of layers to `halo` positions on inner sides."""
        rows = self.rows.crop(x.shape[-2], halo, scale, *sides[:2])
        return x[..., rows, self.columns.crop(x.shape[-1], halo, scale, *sides[2:])]

    def core(self, x: Tensor, scale: int, sides: HaloSides) -> Tensor:
        """Crop the same `x` to the tile itself."""
        rows = self.rows.core(x.shape[-2], scale, *sides[:2])
        return x[..., rows, self.columns.core(x.shape[-1], scale, *sides[2:])]


def spans(size: int, most: int) -> list[Span]:
    """[0, size) in the fewest parts of at most `most` positions, all of nearly the same length."""
    parts = -(-size // most)
    edges = [i * size // parts for i in range(parts + 1)]
    return [Span(start, stop, size) for start, stop in pairwise(edges)]


def grid(height: int, width: int, tile: int) -> list[Tile]:
    """Tiles that cover a latent of `height` x `width` positions, row by row; of at most `tile` positions each way."""
    return [Tile(rows, columns) for rows in spans(height, tile) for columns in spans(width, tile)]


def windows(num_frames: int, most: int) -> list[int]:
    """The lengths of the windows of a clip, of at most `most` frames."""
    return [min(most, num_frames - start) for start in range(0, num_frames, most)]
