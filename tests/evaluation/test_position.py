"""A metric by frame position: within a latent group, and from the first frame to the last."""

import json
from math import inf
from pathlib import Path

import pytest

from vaectl.evaluation.position import by_position
from vaectl.evaluation.results import ClipScores, Evaluation
from vaectl.metrics import FACTS, MetricFacts

PSNR, FLICKER = FACTS["psnr"], FACTS["flicker"]
FVD = FACTS["fvd"]


def evaluation(*clips: dict[str, tuple[float, ...]], group: int | None = 4, frames: int = 0) -> Evaluation:
    scores = [
        ClipScores(str(number), Path("in"), None, frames or len(values["psnr"]), 64, 48, values)
        for number, values in enumerate(clips)
    ]
    metrics = (PSNR, FLICKER, FVD) if "flicker" in clips[0] else (PSNR, FVD)
    return Evaluation(metrics, tuple(scores), {}, {}, {}, 1.0, 1.0, 1, temporal_compression=group)


def test_frame_0_stands_apart_and_each_group_begins_after_it():
    found = by_position(evaluation({"psnr": (40.0, *(31.0, 32.0, 33.0, 34.0), *(21.0, 24.0, 27.0, 30.0))}), "psnr")
    assert found.first == 40
    assert found.within_group == (26, 28, 30, 32)
    assert found.over_time == (40, 31, 32, 33, 34, 21, 24, 27, 30)
    assert (found.clips, found.exact) == ((1,) * 9, 0)


def test_clips_count_the_same_however_long_they_are_and_a_frame_is_averaged_over_those_that_have_it():
    found = by_position(evaluation({"psnr": (40.0, 30.0, 30.0, 30.0, 30.0, 20.0)}, {"psnr": (20.0, 10.0)}), "psnr")
    assert (found.first, found.within_group) == (30, ((25 + 10) / 2, 30, 30, 30))
    assert found.over_time == (30, 20, 30, 30, 30, 20)
    assert found.clips == (2, 2, 1, 1, 1, 1)


def test_the_mean_over_positions_is_the_mean_of_whole_groups():
    values = tuple(30 + (7 * frame % 5) / 3 for frame in range(33))
    of = evaluation({"psnr": values})
    within = by_position(of, "psnr").within_group
    assert within is not None
    assert sum(within) / 4 == pytest.approx(sum(values[1:]) / 32)


def test_exact_frames_are_left_out_and_counted():
    clips = [{"psnr": (inf, 30.0, inf, inf, 30.0, 20.0)}, {"psnr": (inf, 28.0, 31.0, inf, 32.0, inf)}]
    found = by_position(evaluation(*clips), "psnr")
    assert (found.first, found.within_group) == (inf, ((25 + 28) / 2, 31, inf, 31))
    assert found.over_time == (inf, 29, 31, inf, 31, 20)
    assert (found.clips, found.exact) == ((2, 2, 1, 2, 2, 1), 6)
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["first"] == "inf"


def test_positions_that_no_clip_has():
    found = by_position(evaluation({"psnr": (40.0, 30.0, 31.0)}), "psnr")
    assert found.within_group == (30, 31, None, None)
    assert by_position(evaluation({"psnr": (40.0,)}), "psnr").within_group == (None,) * 4
    assert by_position(evaluation({"psnr": (40.0, 30.0, 32.0)}, group=1), "psnr").within_group == (31,)
    assert by_position(evaluation({"psnr": (40.0, 30.0)}, group=None), "psnr").within_group is None


def test_a_metric_of_neighbours_belongs_to_the_second_frame():
    of = evaluation({"psnr": (1.0,) * 6, "flicker": (1.0, 2.0, 3.0, 4.0, 5.0)})
    found = by_position(of, "flicker")
    assert (found.first, found.within_group) == (None, (3, 2, 3, 4))
    assert (found.over_time, found.clips) == ((None, 1, 2, 3, 4, 5), (0, 1, 1, 1, 1, 1))


@pytest.mark.parametrize("metric", ["vmaf", "vmaf_neg", "xpsnr"])
def test_a_metric_of_motion_has_no_frame_0(metric):
    """libvmaf and FFmpeg's xpsnr count the first frame as one without motion, whatever the model does."""
    values = (60.0, 90.0, 91.0, 92.0, 93.0)
    scores = ClipScores("a", Path("in"), None, 5, 64, 48, {metric: values})
    facts = (MetricFacts(metric, "", "higher", False),)
    of = Evaluation(facts, (scores,), {}, {}, {}, 1.0, 1.0, 1, temporal_compression=4)
    found = by_position(of, metric)
    assert (found.first, found.within_group) == (None, (90, 91, 92, 93))
    assert (found.over_time, found.clips) == ((None, 90, 91, 92, 93), (0, 1, 1, 1, 1))
    assert scores.values[metric] == values


def test_the_json_has_every_metric_of_frames():
    positions = evaluation({"psnr": (1.0, 2.0), "flicker": (3.0,)}, group=2).as_json()["positions"]
    assert positions == {
        "psnr": {"first": 1, "within_group": [2, None], "over_time": [1, 2], "clips": [1, 1], "exact": 0},
        "flicker": {"first": None, "within_group": [3, None], "over_time": [None, 3], "clips": [0, 1], "exact": 0},
    }
