"""Results of different runs: read back as they were written, and compared only if their protocols and clips agree."""

import json
from dataclasses import replace
from math import inf

import pytest

import vaectl
from tests.evaluation.results import PROTOCOL, evaluation
from tests.jobs import Listener
from vaectl.errors import UsageError
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.paper import remarks
from vaectl.evaluation.results import Cost
from vaectl.evaluation.results_file import read_results

COST = Cost(5_500_000, (4, 8), 16, 0.125, 33.3, 22.2, 2**30, 2**31)
A = replace(
    evaluation("a", {"fvd": 60.0}, psnr=[30, (inf, 31)], lpips=[0.2, 0.3]),
    cost=COST,
    temporal_compression=4,
    left_out={"x": "x: broken"},
    failures=("x: broken",),
)
B = evaluation("b", {"fvd": 50.0}, psnr=[31, 32], lpips=[0.1, 0.2])


def saved(path, result):
    path.write_text(json.dumps(result.as_json()))
    return path


def with_protocol(found, **entries):
    return replace(found, protocol=PROTOCOL | entries)


def refused(results, **options):
    with pytest.raises(UsageError) as caught:
        vaectl.compare(results, **options)
    return str(caught.value)


# Reading


def test_results_are_read_as_they_were_written(tmp_path):
    (found,) = read_results(saved(tmp_path / "a.json", A))
    assert found == A
    windows = replace(B, clips=tuple(replace(clip, windows=2, frames_left_out=1) for clip in B.clips))
    assert read_results(saved(tmp_path / "windows.json", windows)) == [windows]
    assert read_results(saved(tmp_path / "both.json", Comparison((A, B)))) == [A, B]


def test_results_of_windows_and_of_all_frames_are_read_as_they_were_written(tmp_path):
    frames = {**PROTOCOL["clips"], "num_frames": "all", "frame_rate": "30", "all_windows": False}
    clip = replace(A.clips[1], windows=2, frames_left_out=1)
    found = replace(with_protocol(A, clips=frames), clips=(A.clips[0], clip))
    assert read_results(saved(tmp_path / "a.json", found)) == [found]
    torn = replace(found, clips=(replace(clip, windows=3),))
    with pytest.raises(UsageError, match="has windows of different lengths"):
        read_results(saved(tmp_path / "b.json", torn))


def test_results_of_the_first_version_are_read_and_named_by_their_file(tmp_path):
    old = A.as_json()
    for key in ("name", "cost", "temporal_compression", "markdown", "latex"):
        del old[key]
    for summary in old["summary"].values():
        del summary["interval"]
    (tmp_path / "wan.json").write_text(json.dumps(old))
    (found,) = read_results(tmp_path / "wan.json")
    assert found == replace(A, name="", cost=None, temporal_compression=None)
    assert [each.name for each in vaectl.compare([tmp_path / "wan.json", B]).evaluations] == ["wan", "b"]


def test_keys_of_later_versions_are_ignored(tmp_path):
    later = A.as_json() | {"rank": 7}
    (tmp_path / "a.json").write_text(json.dumps(later))
    assert read_results(tmp_path / "a.json") == [A]


def damaged(**changes):
    return json.dumps(A.as_json() | changes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read as JSON"),
        (damaged()[:200], "cannot be read as JSON"),
        ("[1]", "is not a result of vaectl eval (input should be"),
        ('{"builtin": {}}', "is not a result of vaectl eval (no summary)"),
        ('{"candidates": []}', "is not a result of vaectl eval (candidates: "),
        ('{"candidates": [3]}', "is not a result of vaectl eval ("),
        (damaged(clips=[]), "(clips: is empty; vaectl 0.1.0 wrote it"),
        (damaged(clips=A.as_json()["clips"] * 2), "(clips: two have the same name"),
        (
            damaged(clips=[A.as_json()["clips"][0] | {"values": {"psnr": [1]}}]),
            "(clips: clip0 lacks the metrics of the summary",
        ),
        (
            damaged(clips=[A.as_json()["clips"][0] | {"values": {"psnr": [], "lpips": [1]}}]),
            "(clips: clip0 has no valid numbers of psnr",
        ),
        (damaged(protocol={"versions": {"vaectl": "9.0\n"}}), "vaectl 9.0\\n wrote it, this is "),
        (damaged(summary={"psnr": {"mean": 1}}), "(no summary.psnr.unit; vaectl 0.1.0 wrote it"),
        (damaged(seconds="soon"), "(seconds: "),
        (damaged(protocol=PROTOCOL | {"clips": PROTOCOL["clips"] | {"frame_rate": "fast"}}), "(clips."),
        (damaged(protocol=PROTOCOL | {"clips": {"num_frames": "many"}}), "(clips."),
    ],
)
def test_a_file_that_is_no_result_is_refused_in_one_line(tmp_path, content, said):
    (tmp_path / "r.json").write_text(content)
    message = refused([tmp_path / "r.json", B])
    assert message.startswith(f"{tmp_path / 'r.json'}: ")
    assert said in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(tmp_path))


# Names


def test_names_are_those_given_then_those_of_the_results_then_those_of_the_files(tmp_path):
    first, second = saved(tmp_path / "first.json", A), saved(tmp_path / "second.json", A)
    assert [each.name for each in vaectl.compare({"x": first, "y": second}).evaluations] == ["x", "y"]
    assert [each.name for each in vaectl.compare([first, B]).evaluations] == ["a", "b"]
    assert [each.name for each in vaectl.compare([first, second]).evaluations] == ["first", "second"]
    both = saved(tmp_path / "both.json", Comparison((A, B)))
    assert [each.name for each in vaectl.compare([both, first]).evaluations] == ["both/a", "b", "first"]
    assert [each.name for each in vaectl.compare({"x": both, "y": both}).evaluations] == ["x/a", "x/b", "y/a", "y/b"]


def test_candidates_without_a_name_of_their_own_are_refused(tmp_path):
    assert refused([A, A]) == "2 candidates are called a; name each, as in name=result"
    assert refused([replace(A, name=""), B]).startswith("a candidate has no name; ")
    both = saved(tmp_path / "both.json", Comparison((A, B)))
    assert refused([B, both, both]) == "2 candidates are called both/a; name each, as in name=result"
    assert refused([]).startswith("there are no results to compare")
    assert refused("a.json").startswith("`results` is one result")


# Protocols


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            with_protocol(B, clips=PROTOCOL["clips"] | {"num_frames": 17, "crop": "none"}),
            "clips.num_frames 2 and 17; clips.crop 64x64 from the middle and none",
        ),
        (with_protocol(B, metrics=PROTOCOL["metrics"] | {"lpips": {"net": "vgg"}}), "metrics.lpips.net alex and vgg"),
        (
            with_protocol(B, clips=PROTOCOL["clips"] | {"rgb_conversion": "swscale"}),
            "clips.rgb_conversion accurate and swscale",
        ),
        (
            with_protocol(B, clips=PROTOCOL["clips"] | {"frame_rate": "30", "all_windows": True}),
            "clips.frame_rate None and 30; clips.all_windows False and True",
        ),
        (with_protocol(B, clips="in memory, as they are"), "clips none and in memory, as they are"),
    ],
)
def test_another_protocol_is_refused_with_both_values(other, said):
    message = refused([A, other])
    assert message.startswith("a and b were measured under different protocols: ")
    assert said in message
    assert message.endswith("; measure them with the same options")


def test_a_protocol_by_name_is_the_same_as_its_options():
    frames = {**PROTOCOL["clips"], "frame_rate": None, "all_windows": False}
    named = with_protocol(B, clips=frames, name="wfvae", changed=[], hash="0123")
    assert len(vaectl.compare([A, named]).evaluations) == 2
    for key, value in ("frame_rate", "30"), ("all_windows", True):
        said = refused([A, with_protocol(B, clips=frames | {key: value})])
        assert f"clips.{key} " in said


def test_what_belongs_to_a_candidate_may_differ():
    other = with_protocol(
        B,
        generated_video_dir="elsewhere",
        real_video_dir="copy",
        model={"path": "wan"},
        clips=PROTOCOL["clips"]
        | {"generated": "by the model, in memory", "subset_size": 2, "rgb_conversion": "accurate"},
    )
    listener = Listener()
    assert len(vaectl.compare([A, other], progress=listener).evaluations) == 2
    assert listener.warnings == []


def test_settings_of_a_metric_that_one_candidate_lacks_may_differ():
    other = with_protocol(evaluation("b", psnr=[31, 32]), metrics={**PROTOCOL["metrics"], "lpips": {"net": "vgg"}})
    assert [row.metric for row in vaectl.compare([A, other]).differences] == ["psnr"]


def test_files_of_weights_count_by_their_content():
    a, b, c = (
        with_protocol(found, metrics=PROTOCOL["metrics"] | {"lpips": {"weights": f"{path}, SHA-256 {content}"}})
        for found, path, content in ((A, "x/vgg", "12"), (B, "y/vgg", "12"), (replace(B, name="c"), "y/vgg", "34"))
    )
    assert len(vaectl.compare([a, b]).evaluations) == 2
    assert "metrics.lpips.weights 12 and 34" in refused([a, c])


def test_other_versions_and_devices_are_a_warning():
    other = with_protocol(
        B, versions={"vaectl": "0.2.0", "torch": "2.13.0"}, metrics=PROTOCOL["metrics"] | {"device": "cuda"}
    )
    listener = Listener()
    vaectl.compare([A, other], progress=listener)
    (warning,) = listener.warnings
    assert warning == (
        "a and b were measured with different versions or devices: vaectl 0.1.0 and 0.2.0; device cpu and cuda"
    )


def test_another_ffmpeg_is_a_warning_and_another_model_of_vmaf_is_not():
    facts = {"model": "vmaf_v0.6.1", "libvmaf": "3.0.0", "ffmpeg": "7.1", "ffmpeg_of": "/usr/bin/ffmpeg"}
    elsewhere = facts | {"ffmpeg": "9.0", "ffmpeg_of": "PyAV 19.0.2", "libvmaf": "3.1.0"}
    a, b, c = (
        with_protocol(evaluation(name, vmaf=[31, 32]), metrics={"device": "cpu", "vmaf": each})
        for name, each in (("a", facts), ("b", elsewhere), ("c", facts | {"model": "vmaf_4k_v0.6.1"}))
    )
    listener = Listener()
    vaectl.compare([a, b], progress=listener)
    (warning,) = listener.warnings
    assert warning.endswith(": libvmaf 3.0.0 and 3.1.0; ffmpeg 7.1 and 9.0; ffmpeg_of /usr/bin/ffmpeg and PyAV 19.0.2")
    assert "metrics.vmaf.model vmaf_v0.6.1 and vmaf_4k_v0.6.1" in refused([a, c])


# Clips


def test_clips_that_one_candidate_lacks_are_refused_or_left_out():
    more = evaluation("more", {"fvd": 40.0}, psnr=[31, 32, 33], lpips=[0.1, 0.2, 0.3])
    message = refused([more, B])
    assert message.startswith("b lacks 1 of 3 clips: clip2; pass `allow_missing`")
    listener = Listener()
    found = vaectl.compare([more, B], allow_missing=True, progress=listener)
    assert [len(each.clips) for each in found.evaluations] == [2, 2]
    assert [each.set_values for each in found.evaluations] == [{}, {"fvd": 50.0}]
    assert [each.measured for each in found.evaluations] == [["psnr", "lpips"], ["psnr", "lpips", "fvd"]]
    least = replace(B, clips=B.clips[:1])
    found = vaectl.compare([more, replace(B, clips=(*B.clips, replace(B.clips[0], name="x")))], allow_missing=True)
    assert [metric.name for metric in found.metrics] == ["psnr", "lpips"]
    assert not any("fvd" in line for line in remarks(found))
    only = replace(more, metrics=more.metrics[-1:], clips=tuple(replace(clip, values={}) for clip in more.clips))
    assert refused([only, least], allow_missing=True).startswith("more: has only fvd, which is of all its clips; ")
    assert listener.warnings == [
        "left out: 1 of 3 clips, which not all candidates have",
        "more: fvd left out, because it is of all its clips",
    ]


def test_clips_are_paired_by_name():
    turned = replace(B, clips=B.clips[::-1])
    found = vaectl.compare([A, turned])
    assert [clip.name for clip in found.evaluations[1].clips] == ["clip0", "clip1"]
    assert found.differences == vaectl.compare([A, B]).differences


def test_no_common_clip_and_another_size_are_refused():
    others = replace(B, clips=tuple(replace(clip, name=f"other{clip.name}") for clip in B.clips))
    assert refused([A, others], allow_missing=True).startswith("a lacks 2 of 4 clips: otherclip0, otherclip1")
    larger = replace(B, clips=(replace(B.clips[0], width=128), B.clips[1]))
    assert refused([A, larger]).startswith(
        "clip0 was measured at different sizes: 2 frames of 128x64 and 2 frames of 64x64"
    )
