"""Where tiles lie, and what they need around them: integers only.

A tile is a rectangle of latent positions; its pixels are eight times as many each way. It is read with a margin of its
neighbours on its inner sides, and what a network makes of the margin is cut off again. A tile so close to the border
that its margin would cross it is read up to the border, where nothing is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from vaectl.models.context import Sides


@dataclass(frozen=True)
class Span:
    """A tile along one axis: the latent positions [start, stop) of `size`."""

    start: int
    stop: int
    size: int

    def read(self, margin: int, scale: int) -> tuple[slice, bool, bool]:
        """The positions to read, `scale` to a latent one, and whether a margin lies before and after the tile."""
        first, end = scale * self.start - margin, scale * self.stop + margin
        return slice(max(first, 0), min(end, scale * self.size)), first > 0, end < scale * self.size

    def cut(self, length: int, before: bool, after: bool, scale: int) -> slice:
        """Where the tile lies in a result of `length` positions that was read so, whatever margin is left."""
        known = scale * ((self.stop if after else self.size) - (self.start if before else 0))
        left = (length - known) // max(1, before + after)
        first = left if before else scale * self.start
        return slice(first, first + scale * (self.stop - self.start))


@dataclass(frozen=True)
class Tile:
    rows: Span
    columns: Span

    def core(self, scale: int = 1) -> tuple[slice, slice]:
        """The tile itself, `scale` positions to a latent one: an index into height and width."""
        rows, columns = self.rows, self.columns
        return (
            slice(scale * rows.start, scale * rows.stop),
            slice(scale * columns.start, scale * columns.stop),
        )

    def read(self, frames: Tensor, margin: int, scale: int) -> tuple[Tensor, Sides]:
        """The tile of `frames` (..., H, W) with its margin, and the sides that have one."""
        rows, above, below = self.rows.read(margin, scale)
        columns, left, right = self.columns.read(margin, scale)
        return frames[..., rows, columns], Sides(above, below, left, right)

    def cut(self, result: Tensor, inner: Sides, scale: int) -> Tensor:
        """The tile alone, from what a network made of it and its margin."""
        rows = self.rows.cut(result.shape[-2], bool(inner.top), bool(inner.bottom), scale)
        columns = self.columns.cut(result.shape[-1], bool(inner.left), bool(inner.right), scale)
        return result[..., rows, columns]


def spans(size: int, most: int) -> list[Span]:
    """[0, size) in the fewest parts of at most `most` positions, all of nearly the same length."""
    parts = -(-size // most)
    edges = [i * size // parts for i in range(parts + 1)]
    return [Span(start, stop, size) for start, stop in pairwise(edges)]


def grid(height: int, width: int, tile: int) -> list[Tile]:
    """Tiles that cover a latent of `height` x `width` positions, row by row; of at most `tile` positions each way."""
    return [Tile(rows, columns) for rows in spans(height, tile) for columns in spans(width, tile)]
