"""Clocks that store frame times exactly, and the tag for exact times in Matroska."""

from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaectl.video.timestamps import clock, format_frame_times, true_times

TICKS = st.sampled_from(
    [Fraction(1, 25), Fraction(1001, 30000), Fraction(1, 90000), Fraction(1, 1000), Fraction(1, 15360)]
)
STEPS = st.lists(st.integers(1, 5000), min_size=1, max_size=40)


def times_of(tick: Fraction, steps: list[int], start: Fraction = Fraction(0)) -> list[Fraction]:
    return [start + tick * n for n in accumulate(steps, initial=0)]


@given(TICKS, STEPS, st.fractions(-10, 10))
def test_all_times_are_whole_ticks_of_the_clock(tick: Fraction, steps: list[int], start: Fraction) -> None:
    times = times_of(tick, steps, start)
    found = clock(times, Fraction(25))
    assert all(((time - start) / found).denominator == 1 for time in times)
    assert found >= tick


@pytest.mark.parametrize(
    "rate", [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(1, 2), Fraction(14985, 503)]
)
def test_a_constant_rate_gets_its_own_time_base(rate: Fraction) -> None:
    assert clock([i / rate for i in range(9)], Fraction(10)) == 1 / rate
    assert clock([i / rate for i in (0, 1, 4, 5, 9)], Fraction(10)) == 1 / rate
    assert clock([Fraction(7)], rate) == 1 / rate


def test_times_without_a_common_clock_get_a_fine_one() -> None:
    times = [Fraction(0), Fraction(1, 65537), Fraction(1, 2), Fraction(2, 3), Fraction(99991, 100003)]
    assert clock(times, Fraction(25)) == Fraction(1, 10**6)
    assert clock([*times, Fraction(10**6)], Fraction(25)) == Fraction(1, (2**31 - 1) // 10**6)


def test_the_tag_reads_as_documented() -> None:
    assert format_frame_times([i * Fraction(1001, 30000) for i in range(132)]) == "1001/30000: 1x131"
    steps = [3003, 3003, 6006, 3003]
    assert format_frame_times(times_of(Fraction(1, 90000), steps, Fraction(5))) == "1001/30000: 1x2 2 1"


@given(TICKS, STEPS, st.fractions(-10, 10))
def test_the_tag_gives_back_times_that_were_rounded(tick: Fraction, steps: list[int], start: Fraction) -> None:
    times = times_of(tick, steps, start)
    stored = [Fraction(round((time - start) * 1000), 1000) for time in times]
    assert true_times(stored, format_frame_times(times)) == [time - start for time in times]


@pytest.mark.parametrize(
    "tag",
    [None, "", ":", "1/25", "1/0: 1x3", "1/25: 1x4", "1/25: 1 1", "1/25: 1x2 1.5", "1/25: 1 0 2", "1/25: 2x3", "x: y"],
)
def test_a_tag_that_does_not_fit_is_not_believed(tag: str | None) -> None:
    stored = times_of(Fraction(1, 25), [1, 1, 1])
    assert true_times(stored, tag) == stored
