"""What a file of results may hold: numbers that a metric can be, as many as there are frames. Nothing is trusted."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from math import inf

import pytest
import torch

from tests.evaluation.results import PROTOCOL, evaluation
from vaectl.errors import UsageError
from vaectl.evaluation.results import Cost
from vaectl.evaluation.results_file import read_results
from vaectl.metrics import FACTS, METRICS, MetricSettings, build
from vaectl.metrics.fvd import FVD

VMAF = {"model": "vmaf_v0.6.1", "libvmaf": "3.0", "ffmpeg": "9", "ffmpeg_of": "PyAV", "frames": "YUV"}
SETTINGS = PROTOCOL | {
    "name": "wfvae",
    "changed": ["crop_size"],
    "hash": "ab" * 32,
    "clips": PROTOCOL["clips"] | {"frame_rate": "30000/1001", "all_windows": False, "rgb_conversion": "swscale"},
    "metrics": PROTOCOL["metrics"] | {"vmaf": VMAF},
}


def result(name):
    numbers = {"psnr": [30, (inf, 31)], "lpips": [0.2, 0.3], "vmaf": [90, 0]}
    found = evaluation(name, {"fvd": 60.0}, **numbers)
    cost = Cost(5_500_000, (4, 8), 16, 0.125, 33.3, 22.2, 2**30, 2**31, warm=True)
    return replace(found, protocol=SETTINGS, temporal_compression=4, cost=cost, left_out={"x": "x: broken"})


def test_a_file_of_zeros_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**29)
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"a\.json: cannot be read as JSON \(has zero bytes\)"):
        read_results(tmp_path / "a.json")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def changed(*steps):
    """Return the JSON of a result with the last of `steps` at the place that the others name."""
    *path, last, value = steps
    found = json.loads(json.dumps(result("a").as_json()))
    place = found
    for step in path:
        place = place[step]
    place[last] = value
    return found


CLIP, FRAMES = ("clips", 0), ("protocol", "clips")


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((*CLIP, "values", "psnr", [30.0]), "clips: clip0 has no valid numbers of psnr"),
        ((*CLIP, "values", "psnr", [1e308, 1e308]), "clips: clip0 has no valid numbers of psnr"),
        ((*CLIP, "values", "psnr", ["-inf", 30]), "clips: clip0 has no valid numbers of psnr"),
        ((*CLIP, "values", "lpips", ["inf", 0.2]), "clips: clip0 has no valid numbers of lpips"),
        ((*CLIP, "values", "vmaf", [-5, 50]), "clips: clip0 has no valid numbers of vmaf"),
        ((*CLIP, "values", "vmaf", ["inf", "inf"]), "clips: clip0 has no valid numbers of vmaf"),
        ((*CLIP, "width", -64), "clips.0.width: input should be greater than or equal to 1"),
        ((*CLIP, "real", 4), "clips.0.real: input should be a path"),
        (("summary", "fvd", "mean", "nan"), "summary: fvd cannot be nan"),
        (
            ("summary", "a\n\x1b[31m|&", {"unit": "", "better": "lower", "of_set": True, "mean": 1}),
            "a\\n\\x1b[31m|& is no",
        ),
        (("temporal_compression", 0), "temporal_compression: input should be greater than or equal to 1"),
        (("temporal_compression", 10**6), "temporal_compression: input should be less than or equal to 4096"),
        (("seconds", "nan"), "seconds: input should be a finite number"),
        (("stopped_before", -5), "stopped_before: input should be greater than or equal to 0"),
        (("cost", "parameters", 10**400), "cost.parameters: "),
        (("cost", "bits_per_pixel", "inf"), "cost.bits_per_pixel: "),
        (("cost", "compression", [4]), "(no cost.compression.1;"),
        (("protocol", [1]), "protocol: input should be an object"),
        (("protocol", "model", "path", ["a"]), "model.path: input should be a valid string"),
        (("protocol", "hash", None), "hash: input should be a valid string"),
        (("protocol", "odd", float("inf")), "protocol: has a number that is not finite"),
        (("protocol", "metrics", "vmaf", {"frames": "YUV"}), "metrics.vmaf: lacks one of model, libvmaf"),
        (("protocol", "metrics", "vmaf", "x"), "metrics.vmaf: lacks one of model, libvmaf"),
        ((*FRAMES, "sample_rate", "1"), "clips.sample_rate: input should be a valid integer"),
        ((*FRAMES, "frame_rate", "1/0"), "clips.frame_rate: input should be a rate, as in 30000/1001"),
    ],
)
def test_a_value_that_no_result_has_is_refused(tmp_path, steps, said):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(changed(*steps)).replace("Infinity", "1e999"))
    with pytest.raises(UsageError) as caught:
        read_results(file)
    assert str(caught.value).startswith(f"{file}: is not a result of vaectl eval (")
    assert said in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_file_does_not_decide_which_number_is_better(tmp_path):
    found = changed("summary", "psnr", {"unit": "lightyears", "better": "lower", "of_set": True, "mean": None})
    (tmp_path / "a.json").write_text(json.dumps(found))
    assert read_results(tmp_path / "a.json")[0].metrics == result("a").metrics


def test_the_facts_of_metrics_are_those_that_they_state():
    assert FACTS.keys() == METRICS.keys()
    built = build(("psnr", "ssim", "lpips", "flicker", "ms_ssim", "psnr_y"), MetricSettings(), torch.device("cpu"))
    for name, metric in {**built, "fvd": FVD}.items():
        of_set = name == "fvd"
        facts = FACTS[name]
        assert (facts.unit, facts.better, facts.of_set) == (metric.unit, metric.better, of_set)
