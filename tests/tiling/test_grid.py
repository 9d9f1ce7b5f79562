"""Tiles cover the frame once, are read with what they need, and are cut out where they lie."""

import torch
from hypothesis import given
from hypothesis import strategies as st

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
        covered[part.core(2)] += 1
    assert (covered == 1).all()


@given(size=SIZES, most=SIZES, margin=st.integers(0, 60), scale=st.sampled_from([1, 2, 8]))
def test_a_span_is_read_with_its_margin_or_up_to_the_border(size, most, margin, scale):
    for part in spans(size, most):
        read, before, after = part.read(margin, scale)
        assert read.start == (scale * part.start - margin if before else 0)
        assert read.stop == (scale * part.stop + margin if after else scale * size)
        assert before == (scale * part.start > margin)
        assert after == (scale * (size - part.stop) > margin)


@given(
    size=SIZES,
    most=SIZES,
    margin=st.integers(0, 20),
    scale=st.sampled_from([1, 2, 8]),
    data=st.data(),
)
def test_a_span_is_cut_out_of_what_was_read_whatever_margin_is_left(size, most, margin, scale, data):
    """With a network that trims some of the margin on inner sides and keeps its input's values otherwise."""
    positions = list(range(scale * size))
    for part in spans(size, most):
        read, before, after = part.read(scale * margin, scale)
        used = data.draw(st.integers(0, scale * margin))
        made = positions[read][used if before else 0 :]
        made = made[: len(made) - used] if after else made
        assert made[part.cut(len(made), before, after, scale)] == positions[scale * part.start : scale * part.stop]


def test_a_span_knows_a_margin_that_ends_at_the_border():
    assert Span(5, 8, 12).read(4, 1) == (slice(1, 12), True, False)
    assert Span(4, 8, 12).read(4, 1) == (slice(0, 12), False, False)
