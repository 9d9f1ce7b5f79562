"""Tiles cover the frame once, are read with their halo, and are cropped to their own positions."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from vaectl.models.context import HaloSides
from vaectl.tiling.grid import Span, grid, spans

SIZES = st.integers(1, 300)


@given(size=SIZES, most=SIZES)
def test_spans_follow_each_other_and_are_as_few_and_as_equal_as_they_can_be(size, most):
    parts = spans(size, most)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == size
    assert len(parts) == -(-size // most)
    lengths = {part.stop - part.start for part in parts}
    assert max(lengths) <= most
    assert max(lengths) - min(lengths) <= 1


@given(height=st.integers(1, 40), width=st.integers(1, 40), tile=st.integers(1, 50))
def test_tiles_cover_every_position_once(height, width, tile):
    covered = torch.zeros(2 * height, 2 * width)
    for part in grid(height, width, tile):
        covered[part.region(2)] += 1
    assert (covered == 1).all()


@given(size=SIZES, most=SIZES, halo=st.integers(0, 60), scale=st.sampled_from([1, 2, 8]))
def test_a_span_is_read_with_its_halo_or_up_to_the_border(size, most, halo, scale):
    for part in spans(size, most):
        before, after = part.inner(halo, scale)
        assert before == (scale * part.start > halo)
        assert after == (scale * (size - part.stop) > halo)
        for sides in ((before, after), (False, after), (before, False), (False, False)):
            read = part.read(halo, scale, *sides)
            assert read.start == (scale * part.start - halo if sides[0] else 0)
            assert read.stop == (scale * part.stop + halo if sides[1] else scale * size)


@given(size=SIZES, most=SIZES, halo=st.integers(0, 20), scale=st.sampled_from([1, 2, 3, 8]), data=st.data())
def test_a_span_is_cut_out_of_what_was_read_whatever_halo_is_left(size, most, halo, scale, data):
    """The network crops some of the halo on inner sides, and otherwise returns its input.

    A side may be read up to the border although its halo ends before it, because another input has a larger halo.
    """
    positions = list(range(scale * size))
    for part in spans(size, most):
        before, after = (inner and data.draw(st.booleans()) for inner in part.inner(scale * halo, scale))
        used = data.draw(st.integers(0, scale * halo))
        made = positions[part.read(scale * halo, scale, before, after)][used if before else 0 :]
        made = made[: len(made) - used] if after else made
        assert made[part.core(len(made), scale, before, after)] == positions[scale * part.start : scale * part.stop]
        left = data.draw(st.integers(0, scale * halo - used))
        expected = positions[part.read(left, scale, before, after)]
        assert made[part.crop(len(made), left, scale, before, after)] == expected


def test_a_span_knows_a_halo_that_ends_at_the_border():
    assert Span(5, 8, 12).inner(4, 1) == (True, False)
    assert Span(4, 8, 12).inner(4, 1) == (False, False)


def test_all_inputs_of_a_tile_have_their_halo_on_the_same_sides():
    (tile,) = (tile for tile in grid(9, 9, 3) if (tile.rows.start, tile.columns.start) == (3, 6))
    assert tile.halo_sides([(2, 1)]) == HaloSides(1, 1, 1, 0)
    assert tile.halo_sides([(2, 1), (6, 2)]) == HaloSides(0, 0, 1, 0)
    assert tile.halo_sides([(2, 1), (5, 2)]) == HaloSides(1, 1, 1, 0)
