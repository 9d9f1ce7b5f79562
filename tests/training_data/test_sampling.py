"""What is drawn for a sample, as numbers."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vaectl.data import Sampling
from vaectl.data.sampling import Draw, Place, draw, place, span
from vaectl.rng import permuted

SIZES = st.integers(1, 2000)


@given(SIZES, st.integers())
def test_a_permutation_has_each_number_once(size: int, key: int) -> None:
    assert sorted(permuted(i, size, key) for i in range(size)) == list(range(size))


def test_permutations_differ_and_mix() -> None:
    size = 5000
    first, second = ([permuted(i, size, "epoch", key) for i in range(size)] for key in (0, 1))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 10
    # Neighbours end up a third of the size apart, on average: the mean distance of two random places.
    apart = sum(abs(a - b) for a, b in pairwise(first)) / size
    assert abs(apart / (size / 3) - 1) < 0.05
    moved = sum(abs(i - a) for i, a in enumerate(first)) / size
    assert abs(moved / (size / 3) - 1) < 0.05


@given(st.integers(0, 2**40), st.integers(1, 9), st.integers(1, 5), st.booleans(), st.integers(0, 60))
def test_no_sample_reaches_beyond_its_video(number: int, frames: int, rate: int, dynamic: bool, spare: int) -> None:
    sampling = Sampling(frames, 64, sample_rate=rate, dynamic_sample=dynamic, random_crop=True, flip=True)
    length = sampling.frames_needed + spare
    where = place(draw(0, number), sampling, length)
    assert where.start >= 0
    assert where.start + span(frames, where.sample_rate) <= length
    assert 1 <= where.sample_rate <= rate
    assert dynamic or where.sample_rate == rate


@given(st.integers(1, 9), st.integers(1, 5), st.booleans())
def test_the_last_frame_can_be_drawn_and_the_shortest_video_be_used(frames: int, rate: int, dynamic: bool) -> None:
    sampling = Sampling(frames, 64, sample_rate=rate, dynamic_sample=dynamic)
    most = 1 - 2**-53
    last = place(Draw(most, most, 0, 0, 0), sampling, 100)
    assert last.start + span(frames, last.sample_rate) == 100
    assert place(Draw(most, most, 0, 0, 0), sampling, sampling.frames_needed).start == 0


def test_what_is_not_asked_for_is_left_alone() -> None:
    at_will = Draw(0.9, 0.5, 0.1, 0.2, 0.3)
    assert place(at_will, Sampling(5, 64, sample_rate=2), 109) == Place(50, 2, (0.5, 0.5), False)
    asked = Sampling(5, 64, sample_rate=2, dynamic_sample=True, random_crop=True, flip=True)
    assert place(at_will, asked, 109) == Place(50, 2, (0.1, 0.2), True)
    assert place(at_will, asked, 8) == Place(2, 1, (0.1, 0.2), True)  # for rate 2 it is too short


def test_draws_are_even() -> None:
    draws = [draw(7, number) for number in range(4000)]
    for name in ("rate", "start", "top", "left", "flip"):
        values = [getattr(each, name) for each in draws]
        assert abs(sum(values) / len(values) - 0.5) < 0.02, name
        assert abs(sum(value < 0.25 for value in values) / len(values) - 0.25) < 0.03, name
    assert abs(sum((a.top - 0.5) * (a.left - 0.5) for a in draws)) / len(draws) < 0.005


def test_draws_are_the_same_in_every_process() -> None:
    """Numbers written down once: a run goes on with the same samples on another machine, with another Python."""
    assert draw(0, 1) == Draw(
        0.010812041330043098,
        0.8476527107671161,
        0.20495703324471404,
        0.13354538265418314,
        0.18427095038458707,
        1383300444989200006,
    )
    assert [permuted(i, 10, "epoch", 0, 0) for i in range(10)] == [1, 7, 8, 6, 4, 5, 0, 9, 3, 2]
    code = "from vaectl.data.sampling import draw; print(draw(0, 1))"
    run = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "5"}, capture_output=True, text=True)
    assert run.stdout.strip() == str(draw(0, 1))
