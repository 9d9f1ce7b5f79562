"""Several candidates: paired differences, and what of them has no test."""

import json
from math import inf

import pytest

from tests.evaluation.results import evaluation
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.paper import remarks

A = evaluation("a", {"fvd": 60.0}, psnr=[30, 31, 29, 33, 35, 30, 31], ssim=[0.9] * 7)
B = evaluation("b", {"fvd": 50.0}, psnr=[31, 32, 30, 34, 35, 29, 33], ssim=[0.9] * 7)
C = evaluation("c", {"fvd": 55.0}, psnr=[20, 22, 21, 25, 21, 27, 22], ssim=[0.8] * 7)


def test_differences_are_paired_by_clip_and_against_the_first():
    psnr, ssim = Comparison((A, B)).differences
    assert (psnr.metric, psnr.candidate, psnr.against) == ("psnr", "b", "a")
    assert psnr.mean == pytest.approx(5 / 7)
    assert psnr.low < psnr.mean < psnr.high
    assert psnr.win_rate == pytest.approx(5.5 / 7)  # better 5 times, equal once
    assert psnr.p == psnr.p_corrected == 24 / 128  # |sum| is 7 or 5 in 2 * (1 + 5) of 2**6 ways; the 0 has both signs
    assert (ssim.mean, ssim.low, ssim.high, ssim.win_rate, ssim.p) == (0, 0, 0, 0.5, 1)


def test_lower_is_better_wins():
    low, high = evaluation("low", lpips=[0.1] * 6), evaluation("high", lpips=[0.2] * 6)
    (row,) = Comparison((high, low)).differences
    assert (row.mean, row.win_rate, row.p) == (pytest.approx(-0.1), 1, 2 / 2**6)


def test_p_values_are_corrected_for_the_comparisons_of_a_metric():
    rows = [row for row in Comparison((A, B, C)).differences if row.metric == "psnr"]
    assert [(row.candidate, row.against) for row in rows] == [("b", "a"), ("c", "a")]
    assert [row.p for row in rows] == [24 / 128, 2 / 128]
    assert [row.p_corrected for row in rows] == [24 / 128, 4 / 128]


def test_all_pairs():
    rows = Comparison((A, B, C), all_pairs=True).differences
    assert [(row.candidate, row.against) for row in rows[:3]] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert rows[2].mean == pytest.approx(rows[1].mean - rows[0].mean)
    assert [row.p_corrected for row in rows[:3]] == [24 / 128, 6 / 128, 6 / 128]


def test_the_same_input_has_the_same_numbers():
    assert Comparison((A, B)).differences == Comparison((A, B)).differences


def test_frames_exact_in_both_count_as_equal():
    a = evaluation("a", psnr=[(inf, 30), (30, 30), (30, 30)])
    b = evaluation("b", psnr=[(inf, 32), (31, 31), (31, 31)])
    (row,) = Comparison((a, b)).differences
    assert (row.mean, row.win_rate) == (pytest.approx(1), 1)
    assert row.p == 0.25


def test_frames_exact_in_one_have_no_test_and_this_is_said():
    a = evaluation("a", psnr=[30, 30, 30])
    b = evaluation("b", psnr=[(inf, 32), (31, 31), (29, 29)])
    (row,) = Comparison((a, b)).differences
    assert (row.mean, row.low, row.high, row.p, row.p_corrected) == (inf, None, None, None, None)
    assert row.win_rate == pytest.approx(2 / 3)
    assert "psnr: no interval and no test where a frame is exact in one candidate only" in remarks(Comparison((a, b)))
    c = evaluation("c", psnr=[(32, inf), (inf, 31), 29])
    (row,) = Comparison((b, c)).differences
    assert (row.mean, row.win_rate) == (None, pytest.approx((0.5 + 1 + 0.5) / 3))
    json.dumps(Comparison((b, c)).as_json(), allow_nan=False)


def test_one_clip_has_a_difference_and_no_interval():
    (row,) = Comparison((evaluation("a", psnr=[30]), evaluation("b", psnr=[31]))).differences
    assert (row.mean, row.low, row.high, row.win_rate, row.p) == (1, None, None, 1, None)


def test_intervals_of_differences_stay_within_what_a_difference_can_be():
    a, b = evaluation("a", ssim=[-0.9, 0.9, 1]), evaluation("b", ssim=[0.9, 1, -1])
    (row,) = Comparison((a, b)).differences
    assert (row.low, row.high) == (-2, 2)


def test_metrics_of_sets_and_metrics_of_one_candidate_have_no_difference():
    more = evaluation("b", {"fvd": 50.0}, psnr=[31] * 7, lpips=[0.1] * 7)
    comparison = Comparison((A, more))
    assert {row.metric for row in comparison.differences} == {"psnr"}
    assert [metric.name for metric in comparison.metrics] == ["psnr", "ssim", "fvd", "lpips"]
    assert "fvd: one number for all clips, so no interval and no test" in remarks(comparison)


def test_json_of_one_candidate_is_its_evaluation_and_of_several_has_all():
    assert Comparison((A,)).as_json() == A.as_json()
    found = json.loads(json.dumps(Comparison((A, B)).as_json(), allow_nan=False))
    assert found["candidates"] == [json.loads(json.dumps(each.as_json())) for each in (A, B)]
    significance = found["significance"]
    assert (significance["clips"], significance["interval"]) == (7, "bootstrap-t")
    assert significance["differences"][0]["p"] == 24 / 128


def test_candidates_with_other_clips_or_equal_names_are_a_mistake():
    with pytest.raises(ValueError, match="different clips"):
        Comparison((A, evaluation("b", psnr=[1])))
    with pytest.raises(ValueError, match="same name"):
        Comparison((A, A))


def test_intervals_of_means_stay_within_what_a_metric_can_be():
    found = evaluation("a", psnr=[1, 60, 2], ssim=[0.5, 0.99, 1], lpips=[0, 0.5, 0.01])
    assert (found.summary("ssim").high, found.summary("lpips").low, found.summary("psnr").low) == (1, 0, 0)
    assert found.as_json()["summary"]["ssim"]["interval"] == "student-t"
