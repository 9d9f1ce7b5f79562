"""Intervals of means over clips and paired tests: against SciPy, by hand, and by measured coverage."""

import time
from itertools import product

import numpy as np
import pytest
from benchmarks.coverage import SKEWED, measure
from scipy import stats

from vaectl.evaluation.statistics import (
    EXACT,
    FEW,
    MANY,
    caveats,
    coverage,
    holm,
    interval_method,
    mean_intervals,
    sign_flip_test,
)

RANDOM = np.random.default_rng(7)


@pytest.mark.parametrize("count", [2, 3, FEW - 1, MANY + 1])
def test_few_and_very_many_clips_have_the_interval_of_student(count):
    values = RANDOM.exponential(size=(count, 2))
    low, high = mean_intervals(values)
    expected = stats.t.interval(0.95, count - 1, values.mean(axis=0), stats.sem(values))
    assert interval_method(count) == "student-t"
    assert (low, high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_the_bootstrap_is_that_of_scipy_by_another_way():
    """Resamples drawn here, one after the other; ends agree as well as 20,000 random resamples allow."""
    values = RANDOM.exponential(size=15)
    mean, error = values.mean(), stats.sem(values)
    drawn = RANDOM.choice(values, (20_000, 15))
    t = (drawn.mean(axis=1) - mean) / stats.sem(drawn, axis=1)
    low, high = mean_intervals(values[:, None])
    upper, lower = np.quantile(t, [0.025, 0.975])
    assert interval_method(15) == "bootstrap-t"
    assert (low[0], high[0]) == pytest.approx((mean - lower * error, mean - upper * error), rel=0.05)
    assert high[0] - mean > 1.2 * (mean - low[0])  # skewed as the numbers are


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 20, 50, 100])
def test_the_coverage_is_at_least_93_percent_of_normal_numbers_and_as_stated_of_skewed_ones(count):
    draws = 1000 if count >= FEW else 10_000
    assert measure("normal", count, "vaectl", draws) >= 0.93
    assert 100 * measure(SKEWED, count, "vaectl", draws) == pytest.approx(coverage(count), abs=2)


def test_an_outlier_cannot_stretch_an_interval_without_end():
    values = np.zeros((8, 1))
    values[3] = 1
    low, high = mean_intervals(values)
    assert 0.125 < high[0] < 1.2
    assert low[0] <= 0.125


def test_equal_numbers_have_an_interval_without_width():
    low, high = mean_intervals(np.full((9, 1), 0.25))
    assert (low[0], high[0]) == (0.25, 0.25)


@pytest.mark.parametrize("count", [12, 40])
def test_an_interval_depends_on_its_own_column_alone_and_never_changes(count):
    values = RANDOM.normal(size=(count, 3))
    alone = mean_intervals(values[:, 1:2]), sign_flip_test(values[:, 1:2])
    together = mean_intervals(values), sign_flip_test(values)
    assert alone[0][0][0] == pytest.approx(together[0][0][1], rel=1e-12)
    assert alone[0][1][0] == pytest.approx(together[0][1][1], rel=1e-12)
    assert alone[1][0] == together[1][1]


def test_the_exact_test_counts_all_signs():
    differences = RANDOM.normal(0.5, size=7)
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=7)]
    expected = np.mean([each >= abs(differences.sum()) - 1e-12 for each in sums])
    assert sign_flip_test(differences[:, None])[0] == expected
    assert sign_flip_test(np.full((5, 1), 0.1))[0] == 2 / 2**5  # never below 0.05 with 5 clips
    assert sign_flip_test(np.zeros((8, 1)))[0] == 1


@pytest.mark.parametrize("count", [EXACT, EXACT + 1, 60])
def test_the_test_agrees_with_that_of_scipy(count):
    differences = RANDOM.normal(0.3, size=count)
    expected = stats.permutation_test(
        (differences,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=9999, rng=1
    ).pvalue
    assert sign_flip_test(differences[:, None])[0] == pytest.approx(expected, abs=0.02)


def test_corrected_p_values():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_few_clips_and_low_coverage_are_said():
    assert list(caveats(1)) == []
    assert list(caveats(3)) == [
        "95 % intervals by Student's t; with fewer than 6 clips, intervals and p-values mean little; of very skewed"
        " numbers, intervals of 3 clips cover about 84 %",
    ]
    assert "cover about 92 %" in next(caveats(20))
    assert list(caveats(200)) == ["95 % intervals by the bootstrap-t method"]


def test_ten_candidates_and_a_thousand_clips_take_about_a_second():
    differences = RANDOM.normal(size=(1000, 5 * 45))
    begun = time.process_time()
    mean_intervals(differences)
    sign_flip_test(differences)
    assert time.process_time() - begun < 5  # 0.5 s on an idle machine
