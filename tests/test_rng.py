"""The numbers that are drawn by a key: saved runs and `eval --sample` rely on them, so they never change."""

import pytest

from vaectl.rng import generator_for, hash64, seed_of, uniform


def test_seeds_never_change():
    assert seed_of(1234, "step", 5, 0) == 7752415460354996000
    assert seed_of(0, "weights") == 2934036865011653446


def test_draws_of_training_samples_never_change():
    assert hash64("camera", 0, 1) == 1383300444989200006
    assert hash64(3, 17, "epoch") == 4097178764558521228
    assert uniform("rate", 0, 1) == 0.010812041330043098


@pytest.mark.parametrize(
    ("name", "seed"),
    [("a.avi", 8467108151847426220), ("b/ü", 5119256509842359003), ("\udcff", 5664916932241541370)],
)
def test_noise_of_a_clip_never_changes(name, seed):
    assert generator_for(3, name).initial_seed() == seed
