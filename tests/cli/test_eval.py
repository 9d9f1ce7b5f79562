"""`vaectl eval`: the command lines that people have, and how the command shows what the job found."""

import json
import sys
from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest

from vaectl.cli.app import main
from vaectl.errors import VaectlError
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.outputs import Interrupted
from vaectl.evaluation.results import ClipScores, Cost, Evaluation
from vaectl.metrics import FACTS
from vaectl.options.candidates import Candidate

PATHS = ["eval", "--real-video-dir", "in", "--generated-video-dir", "out"]
PUBLISHED = """
    --batch_size 2 --real_video_dir in --generated_video_dir out --device cpu --sample_fps 24 --crop_size 256
    --resolution 288 --num_frames 17 --sample_rate 2 --subset_size 100 --num_workers 8 --metric ssim
    --fvd_method styleganv --mp
"""


@pytest.fixture
def job(monkeypatch):
    """Let a function stand in for the job."""

    def stand_in(function):
        def of_one(*arguments):
            return Comparison((function(*arguments),))

        module = SimpleNamespace(evaluate=of_one)
        monkeypatch.setitem(sys.modules, "vaectl.evaluation.evaluate", module)

    return stand_in


def options_of(job, arguments):
    handed = []

    def keep(options, _progress):
        handed.append(options)
        raise VaectlError("that is all")

    job(keep)
    assert main(arguments) == 1
    return handed[0]


@pytest.mark.parametrize("dashes", [False, True])
def test_a_published_command_line_is_taken_as_it_is(job, capsys, dashes):
    words = PUBLISHED.split()
    if dashes:
        words = [word.replace("_", "-") if word.startswith("--") else word for word in words]
    options = options_of(job, ["eval", *words])
    assert (options.real_video_dir, options.candidates) == (
        Path("in"),
        (Candidate("out", Path("out"), is_model=False),),
    )
    assert (options.num_frames, options.resolution, options.sample_rate, options.crop_size) == (17, 288, 2, 256)
    assert (options.batch_size, options.num_workers, options.subset_size) == (2, 8, 100)
    assert (options.metric, options.fvd_method, options.device) == (("ssim",), "styleganv", "cpu")
    assert options_of(job, [*PATHS, "--cost"]).cost
    said = capsys.readouterr().err
    assert "note: --cost has no effect: no model runs (--model)" in said
    assert "note: --mp has no effect" in said
    assert "note: --sample-fps has no effect" in said


@pytest.mark.parametrize(
    "typed", [["--metric", "fvd,psnr"], ["--metric", "fvd", "--metric", "psnr"], ["--metric", "fvd, psnr,fvd"]]
)
def test_metrics_are_repeated_or_stand_between_commas(job, typed):
    assert options_of(job, [*PATHS, *typed]).metric == ("fvd", "psnr")


def test_metrics_can_be_a_list_in_a_file(job, tmp_path):
    (tmp_path / "eval.toml").write_text(
        'metric = ["flicker", "psnr"]\nreal_video_dir = "in"\nfrom_pretrained = "model"'
    )
    options = options_of(job, ["eval", "--config", str(tmp_path / "eval.toml")])
    assert (options.metric, options.candidates) == (
        ("flicker", "psnr"),
        (Candidate("model", Path("model"), is_model=True),),
    )


def test_the_defaults_are_left_to_what_was_prepared(job):
    options = options_of(job, PATHS)
    assert (options.num_frames, options.resolution, options.sample_rate, options.crop_size) == (None,) * 4
    assert (options.dtype, options.model_dtype) == (None, "float32")
    assert (options.metric, options.lpips_net) == (("psnr", "ssim", "lpips"), "alex")
    assert options.cost is None
    assert options_of(job, [*PATHS, "--cost"]).cost is True
    assert options_of(job, [*PATHS, "--no-cost"]).cost is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["eval"], "--real-video-dir is missing"),
        (PATHS[:3], "--generated-video-dir is missing; give it, or --model"),
        ([*PATHS, "--model", "a/out"], "in: no such file"),
        ([*PATHS, "--model", "out=a"], "two candidates are called out; name each, as in NAME=PATH"),
        ([*PATHS, "--model", "=a"], "--model: give a name before the equals sign, or ./=a for the path"),
        ([*PATHS, "--metric", "pnsr"], "--metric: there is no metric 'pnsr'; did you mean psnr?"),
        ([*PATHS, "--metric", "psnr,"], "--metric: there is no metric ''; there are psnr, "),
        ([*PATHS, "--fvd_method", "videogpt"], "--fvd-method: must be styleganv"),
        ([*PATHS, "--crop_size", "300"], "--crop-size 300 does not fit into a --resolution of 256; make it smaller"),
        ([*PATHS, "--lpips-net", "squeeze"], "--lpips-net: must be 'alex' or 'vgg', not 'squeeze'"),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments, said):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


PSNR, LPIPS = FACTS["psnr"], FACTS["lpips"]
FVD = FACTS["fvd"]
GOOD = ClipScores("a", Path("in/a"), Path("out/a"), 2, 64, 48, {"psnr": (30.0, 32.0), "lpips": (0.1, 0.2)})
POOR = ClipScores("deep/[b]", Path("in/b"), None, 2, 64, 48, {"psnr": (20.0, 21.0), "lpips": (0.3, 0.4)})
EXACT = ClipScores("c", Path("in/c"), Path("out/c"), 2, 64, 48, {"psnr": (inf, 50.0), "lpips": (0.0, 0.0)})
PROTOCOL = {
    "clips": {"num_frames": 2, "sample_rate": 3, "resize": "shorter side to 48", "crop": "none"},
    "model": {"path": "model", "weights": "raw", "dtype": "float32", "posterior": "mean"},
    "metrics": {"device": "cpu"},
}


def found(*clips, **facts):
    known = {"metrics": (PSNR, LPIPS, FVD), "set_values": {"fvd": 54.321}, "left_out": {}, **facts}
    return Evaluation(clips=clips, protocol=PROTOCOL, seconds=12.5, decode_seconds=3.0, peak_memory=3 * 2**29, **known)


def test_a_row_for_each_metric_and_for_each_clip_and_how_it_was_measured(job, capsys):
    job(lambda *_: found(GOOD, POOR))
    assert main(PATHS) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert ["a", "2", "64x48", "31.00", "0.1500"] in rows
    assert ["deep/[b]", "2", "64x48", "20.50", "0.3500"] in rows
    assert ["psnr", "(dB)", "↑", "25.75", "0.00", "to", "92.46", "20.50", "deep/[b]"] in rows
    assert ["fvd", "↓", "54.32"] in rows
    assert "frames: 2 (one in 3); shorter side to 48; crop none" in out
    assert "model: model (raw weights) in float32, posterior mean" in out
    assert "measured on cpu: 12.5 s, decoding 3.0 s in parallel, peak memory 1.50 GiB" in out
    assert err == ""


def test_files_that_were_written_are_named(job, capsys):
    job(lambda *_: found(GOOD, csv=Path("n.csv"), report=Path("deep/r.html")))
    assert main(PATHS) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "numbers of all frames: n.csv",
        "report: deep/r.html (open it in a browser)",
    ]
    assert main([*PATHS, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["csv"], result["report"]) == ("n.csv", "deep/r.html")


def test_exact_frames_are_reported(job, capsys):
    job(lambda *_: found(GOOD, EXACT))
    assert main(PATHS) == 0
    out = capsys.readouterr().out
    assert "psnr: 1 of 4 frames are exact, so it is inf" in out
    assert ["psnr", "(dB)", "↑", "inf", "31.00", "a"] in [line.split() for line in out.splitlines()]


def test_what_ffmpeg_computed_is_stated(job, capsys):
    of_frames = FACTS["vmaf"], FACTS["psnr_y"]
    facts = {"ffmpeg": "7.1", "ffmpeg_of": "PyAV 19.0.2", "frames": "YUV 4:2:0"}
    metrics = {"vmaf": {"model": "vmaf_v0.6.1", "libvmaf": "3.2.0", **facts}, "psnr_y": facts, "device": "cpu"}
    clips = [
        replace(clip, values={"vmaf": values, "psnr_y": values})
        for clip, values in ((GOOD, (49.0, 99.0)), (POOR, (0.0, 1.0)))
    ]
    evaluation = found(*clips, metrics=of_frames, set_values={})
    job(lambda *_: replace(evaluation, protocol=PROTOCOL | {"metrics": metrics}))
    assert main(PATHS) == 0
    lines = capsys.readouterr().out.splitlines()
    # 2 / (1/50 + 1/100) - 1 = 65.67 and 2 / (1/1 + 1/2) - 1 = 0.33
    assert "vmaf: harmonic mean 33.00, model vmaf_v0.6.1, libvmaf 3.2.0 of PyAV 19.0.2" in lines
    assert "vmaf, psnr_y: of frames in YUV 4:2:0" in lines
    assert main([*PATHS, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["summary"]["vmaf"]["harmonic_mean"] == pytest.approx(33.0)
    assert [clip["harmonic_mean"]["vmaf"] for clip in result["clips"]] == pytest.approx([65 + 2 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("group", "values", "line"),
    [
        (2, (40.0, 30.0, 31.5, 30.5, 31.5), "psnr by position in a group of 2: 30.25 31.50; first frame 40.00"),
        (
            2,
            (inf, 30.0, 31.5),
            "psnr by position in a group of 2: 30.00 31.50; first frame inf; exact frames left out",
        ),
        (2, (40.0, 30.0), None),
        (1, (40.0, 30.0), None),
        (None, (40.0, 30.0), None),
    ],
    ids=str,
)
def test_psnr_by_position_is_shown_where_it_says_something(job, capsys, group, values, line):
    clip = replace(GOOD, num_frames=len(values), values={"psnr": values, "lpips": (0.1,) * len(values)})
    job(lambda *_: found(clip, temporal_compression=group))
    assert main(PATHS) == 0
    lines = [text for text in capsys.readouterr().out.splitlines() if "by position" in text]
    assert lines == ([line] if line else [])


def test_the_cost_is_three_lines(job, capsys):
    cost = Cost(5_451_204, (4, 8), 16, 24 / 11)
    job(lambda *_: found(GOOD, cost=cost))
    assert main(PATHS) == 0
    latent = "latent: 4x8x8 to 16 channels, 2.18 bits a pixel; 5.5M parameters"
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith(("latent", "encode"))] == [latent]
    measured = replace(
        cost,
        encode_frames_per_second=123.4,
        decode_frames_per_second=0.234,
        encode_peak_memory=2**28,
        decode_peak_memory=3 * 2**29,
    )
    job(lambda *_: found(GOOD, cost=measured))
    assert main([*PATHS, "--no-cost"]) == 0
    out = capsys.readouterr().out
    measured = "encode: 120 frames/s, 256 MiB; decode: 0.23 frames/s, 1.50 GiB"
    assert f"{latent}\n{measured}\nspeed and peak memory: float32, 2 frames of 64x48\n" in out


def test_many_clips_have_no_table_of_their_own(job, capsys):
    job(lambda *_: found(*[GOOD] * 21))
    assert main(PATHS) == 0
    assert "64x48" not in capsys.readouterr().out


def test_clips_left_out_are_reported(job, capsys):
    job(lambda *_: found(GOOD, left_out={"b": "out/b: too short; lower `num_frames`"}))
    assert main(PATHS) == 0
    out, err = capsys.readouterr()
    assert "left out: 1 of 2 clips\n  out/b: too short; lower --num-frames\n" in out
    assert err == ""


def test_failures_are_told_and_the_exit_code_says_so(job, capsys):
    reasons = {str(number): f"out/{number}: broken" for number in range(12)}
    job(lambda *_: found(GOOD, left_out=reasons, failures=tuple(reasons.values())))
    assert main(PATHS) == 1
    out, err = capsys.readouterr()
    assert "left out: 12 of 13 clips\n" in out
    assert err.splitlines()[0] == "error: out/0: broken"
    assert err.splitlines()[10:] == ["error: 2 more like these; --json lists them all"]


def test_json_is_one_object_that_any_reader_takes(job, capsys):
    job(lambda *_: found(GOOD, EXACT, left_out={"b": "broken"}, failures=("broken",)))
    assert main([*PATHS, "--json"]) == 1
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert result["summary"]["psnr"] == {
        "mean": "inf",
        "low": None,
        "high": None,
        "interval": None,
        "worst": "a",
        "unit": "dB",
        "better": "higher",
        "of_set": False,
    }
    assert result["summary"]["fvd"]["mean"] == 54.321
    assert (result["left_out"], result["failures"], result["stopped_before"]) == ({"b": "broken"}, ["broken"], 0)
    assert result["clips"][0]["values"] == {"psnr": [30.0, 32.0], "lpips": [0.1, 0.2]}
    assert result["clips"][1]["mean"] == {"psnr": "inf", "lpips": 0.0}
    assert result["protocol"] == PROTOCOL


def test_what_ctrl_c_left_is_shown(job, capsys):
    def stopped(*_):
        raise Interrupted(Comparison((found(GOOD, set_values={}, stopped_before=7),)))

    job(stopped)
    main([*PATHS])
    out = capsys.readouterr().out
    assert "stopped: 7 more clips were not compared" in out
    assert ["fvd", "↓", "none"] in [line.split() for line in out.splitlines()]


def test_the_program_measures_a_real_pair(vaectl, samples, tmp_path):
    done = vaectl(
        *("eval", "--real_video_dir", str(samples / "carphone_pristine.mp4"), "--generated_video_dir"),
        *(str(samples / "carphone_distorted.mp4"), "--num_frames", "3", "--resolution", "144", "--crop_size", "0"),
        *("--metric", "psnr,ssim,lpips", "--device", "cpu"),
        OMP_NUM_THREADS="1",
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["psnr", "(dB)", "↑", "23.75", "23.75", "carphone_pristine"] in rows
    assert ["ssim", "↑", "0.7115", "0.7115", "carphone_pristine"] in rows
    assert ["lpips", "↓", "0.2313", "0.2313", "carphone_pristine"] in rows
