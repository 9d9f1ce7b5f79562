"""How `vaectl reconstruct` shows what the job found, and the command on a real clip."""

import json
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest

from vaectl.cli.app import main
from vaectl.reconstruction import ClipResult, RunResult

PATHS = ["reconstruct", "--video-path", "in", "--rec-path", "out"]
GOOD = ClipResult(Path("in/a.mp4"), Path("out/a.mp4"), 50, 320, 240, 31.234, 44.5, 4.0)
EXACT = ClipResult(Path("in/b.mp4"), Path("out/b.mkv"), 1, 17, 19, inf, inf, 0.0)
BAD = ClipResult(Path("in/[c].mp4"), Path("out/[c].mp4"), psnr=nan, error="in/[c].mp4: broken; get it again")


def run(*clips):
    return lambda _options, _progress: RunResult(clips, 3 * 2**29, "cpu", "float32", 12.5, "built-in model")


def test_the_table_has_a_row_for_each_clip_and_a_line_for_the_run(job, capsys):
    job(run(GOOD, EXACT))
    assert main(PATHS) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert ["out/a.mp4", "50", "320x240", "31.23", "44.50", "4.0", "12.5"] in rows
    assert ["out/b.mkv", "1", "17x19", "inf", "inf", "0.0"] in rows
    assert out.endswith("built-in model on cpu in float32: 12.5 s, peak memory 1.50 GiB\n")
    assert err == ""


def test_the_record_of_the_run_is_named(job, capsys):
    job(lambda *_: replace(run(GOOD)(*_), record=Path("out/vaectl.json")))
    assert main(PATHS) == 0
    assert capsys.readouterr().out.endswith("\noptions and results of this run: out/vaectl.json\n")
    assert main([*PATHS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["record"] == "out/vaectl.json"


def test_a_failed_clip_is_told_and_the_exit_code_says_so(job, capsys):
    job(run(GOOD, BAD))
    assert main(PATHS) == 1
    out, err = capsys.readouterr()
    assert ["in/[c].mp4", "failed"] in [line.split() for line in out.splitlines()]
    assert err == "error: in/[c].mp4: broken; get it again\n"


def test_long_paths_are_whole_in_a_pipe(job, capsys):
    job(run(ClipResult(Path("in"), Path("d/" * 100 + "a.mp4"), 5, 64, 64, 30.0, None, 1.0)))
    assert main(PATHS) == 0
    assert "d/" * 100 + "a.mp4 " in capsys.readouterr().out


def test_json_is_one_object_that_any_reader_takes(job, capsys):
    job(run(GOOD, EXACT, BAD))
    assert main([*PATHS, "--json"]) == 1
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (result["peak_memory"], result["device"], result["model"]) == (3 * 2**29, "cpu", "built-in model")
    good, exact, bad = result["clips"]
    assert good == {
        "source": "in/a.mp4",
        "target": "out/a.mp4",
        "frames": 50,
        "width": 320,
        "height": 240,
        "psnr": 31.234,
        "codec_psnr": 44.5,
        "seconds": 4.0,
        "error": None,
        "frames_per_second": 12.5,
    }
    assert (exact["psnr"], exact["frames_per_second"]) == ("inf", None)
    assert (bad["psnr"], bad["error"]) == (None, "in/[c].mp4: broken; get it again")


def test_the_program_reconstructs_a_real_clip(vaectl, samples, tmp_path):
    target = tmp_path / "rec.mp4"
    clip = str(samples / "carphone_pristine.mp4")
    done = vaectl(
        "reconstruct",
        "--video_path",
        clip,
        "--rec_path",
        str(target),
        "--num_frames",
        "5",
        "--height",
        "64",
        "--width",
        "64",
        "--dtype",
        "float32",
        "--json",
    )
    assert (done.returncode, done.stderr) == (0, "")
    (result,) = json.loads(done.stdout)["clips"]
    assert (result["frames"], result["width"], result["height"]) == (5, 64, 64)
    assert result["psnr"] > 18
    assert target.stat().st_size > 0
    again = vaectl("reconstruct", "--video_path", clip, "--rec_path", str(target))
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "inputs", "target"),
    [
        (["a", "b"], ["a"], "b"),
        (["a", "b", "c"], ["a", "b"], "c"),
        (["a", "--rec-path", "b"], ["a"], "b"),
        (["--rec-path", "c", "a", "b"], ["a", "b"], "c"),
        (["--video-path", "a", "--video_path", "b", "--rec-path", "c"], ["a", "b"], "c"),
        (["--num-frames", "3", "a", "--json", "b"], ["a"], "b"),
        (["--", "-a", "--b"], ["-a"], "--b"),
        (["~/a", "b/"], [str(Path.home() / "a")], "b"),
    ],
)
def test_the_last_of_several_arguments_is_the_target(run_options, words, inputs, target):
    options = run_options("reconstruct", *words)
    assert (options.video_path, options.rec_path) == (tuple(map(Path, inputs)), Path(target))


def test_arguments_go_before_the_configuration(run_options, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('video_path = "a"\nrec_path = "b"\n')
    options = run_options("reconstruct", "--config", str(file))
    assert (options.video_path, options.rec_path) == ((Path("a"),), Path("b"))
    options = run_options("reconstruct", "--config", str(file), "c")
    assert (options.video_path, options.rec_path) == ((Path("c"),), Path("b"))
    options = run_options("reconstruct", "--config", str(file), "c", "d")
    assert (options.video_path, options.rec_path) == ((Path("c"),), Path("d"))
