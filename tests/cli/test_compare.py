"""`vaectl compare`: its tables, files and errors."""

import csv
import json
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from tests.evaluation.results import PROTOCOL, evaluation
from vaectl.cli.app import main
from vaectl.evaluation.results import Cost

COST = Cost(5_500_000, (4, 8), 16, 0.125, 33.3, 22.2, 2**30, 2**31)
A = replace(evaluation("a", {"fvd": 60.0}, psnr=[30, 31, 32], ssim=[0.9, 0.9, 0.8]), cost=COST)
B = evaluation("b", {"fvd": 50.0}, psnr=[31, 32, 34], ssim=[0.8, 0.9, 0.8])


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for result in (A, B):
        (tmp_path / f"{result.name}.json").write_text(json.dumps(result.as_json()))
    return tmp_path


def rows_of(text):
    return [line.split() for line in text.splitlines()]


def test_a_row_for_each_candidate_and_for_each_difference(files, capsys):
    assert main(["compare", "a.json", "wan 2=b.json"]) == 0
    out, err = capsys.readouterr()
    rows = rows_of(out)
    assert ["a", "31.00", "0.8667*", "60.00"] in rows
    assert ["wan", "2", "32.33*", "0.8333", "50.00*"] in rows
    assert ["a", "5.5", "4x8x8", "16", "0.125", "33", "22", "1.0", "2.0"] in rows
    assert ["psnr", "↑", "wan", "2", "+1.33", "-0.10", "to", "+2.77", "100", "%", "0.250"] in rows
    assert "speed and peak memory: on cpu, float32, 2 frames of 64x64" in out
    assert "difference: candidate minus a, mean over 3 clips, paired" in out
    assert "with fewer than 6 clips, intervals and p-values mean little" in out
    assert "fvd: one number for all clips, so no interval and no test" in out
    assert "wan 2: folder /home/me/out, made by built-in model in float32, posterior mean" in out
    assert out.splitlines()[-1].startswith("measured on cpu: 1.5 s, ")
    assert err == ""


def test_what_is_known_of_each_candidate_is_a_line(files, capsys):
    read = PROTOCOL | {"clips": PROTOCOL["clips"] | {"all_windows": True}, "generated_video_dir": None}
    clips = [replace(clip, num_frames=3, frames_left_out=1, values={"psnr": (40.0, 30.0, inf)}) for clip in A.clips]
    first = replace(A, metrics=A.metrics[:1], set_values={}, clips=tuple(clips), protocol=read, temporal_compression=2)
    made = read | {"model": None, "generated_video_dir": "0.mkv"}
    file = replace(clips[0], generated=Path("0.mkv"))
    for name, each in (
        ("x", first),
        ("y", replace(first, name="b", seconds=9.0)),
        ("f", replace(first, clips=(file,), protocol=made)),
    ):
        (files / f"{name}.json").write_text(json.dumps(each.as_json()))
    assert main(["compare", "x.json", "y.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in (
        "windows: 3; frames left out after the last one of a clip: 3",
        "a: psnr: 3 of 9 frames are exact, so it is inf",
        "b: psnr by position in a group of 2: 30.00 inf; first frame 40.00; exact frames left out",
        "a: built-in model in float32, posterior mean",
        "a: measured on cpu: 1.5 s, decoding 0.5 s in parallel, peak memory 1.00 GiB",
        "b: measured on cpu: 9.0 s, decoding 0.5 s in parallel, peak memory 1.00 GiB",
    ):
        assert line in lines
    assert main(["compare", "f.json"]) == 0
    assert "a: file 0.mkv" in capsys.readouterr().out.splitlines()


def test_a_name_for_a_file_of_several_candidates_begins_theirs(files, capsys):
    assert main(["compare", "a.json", "b.json", "--json"]) == 0
    (files / "both.json").write_text(capsys.readouterr().out)
    assert main(["compare", "x=both.json", "a.json", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["candidates"]] == ["x/a", "x/b", "a"]


def test_files_that_were_written_are_named_and_a_single_result_has_no_best(files, capsys):
    assert main(["compare", "a.json", "--csv", "n.csv", "--latex", "t.tex"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == ["numbers of all frames: n.csv", "table: t.tex"]
    assert "*" not in out
    assert (files / "n.csv").read_text().startswith("clip,frame,psnr,ssim\n")


def test_files_and_json(files, capsys):
    assert main(["compare", "a.json", "b.json", "--csv", "n.csv", "--latex", "t.tex", "--markdown=t.md", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["candidates"]] == ["a", "b"]
    assert {each["latex"] for each in found["candidates"]} == {"t.tex"}
    with (files / "n.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["candidate", "clip", "frame", "psnr", "ssim"]
    assert rows[1] == ["a", "clip0", "1", "30.0", "0.9"]
    assert len(rows) == 12
    assert "\\textbf{32.33}" in (files / "t.tex").read_text()
    assert "**32.33**" in (files / "t.md").read_text()
    assert main(["compare", "a.json", "b.json", "--json", "--all-pairs"]) == 0
    (files / "both.json").write_text(capsys.readouterr().out)
    assert main(["compare", "both.json"]) == 0
    assert ["b", "32.33*", "0.8333", "50.00*"] in rows_of(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "RESULT... is missing"),
        (["a.json", "none.json"], "none.json: no such file"),
        (["x=a.json", "x=b.json"], "2 candidates are called x"),
        (["a.json", "b.json", "--csv", "a.json", "--overwrite"], "a.json: is an input of this run"),
        (["a.json", "b.json", "--latex", "t.md"], "t.md: --latex writes a table in LaTeX, not .md; name it t.tex"),
        (
            ["a.json", "b.json", "--latex", "t.txt", "--markdown", "t.txt"],
            "t.txt: --markdown and --latex name the",
        ),
        (["a.json", "short.json"], "other lacks 1 of 3 clips: clip2; pass --allow-missing to compare"),
        (["a.json", "frames.json"], "a and b were measured under different protocols: clips.num_frames 2 and 3; "),
    ],
)
def test_wrong_usage_is_one_line(files, capsys, arguments, said):
    short = replace(B, name="other", clips=B.clips[:2])
    frames = replace(B, protocol=PROTOCOL | {"clips": PROTOCOL["clips"] | {"num_frames": 3}})
    (files / "short.json").write_text(json.dumps(short.as_json()))
    (files / "frames.json").write_text(json.dumps(frames.as_json()))
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert not (files / "t.txt").exists()


def test_a_file_that_cannot_be_written_is_a_failed_run(files, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(__import__("vaectl.evaluation.outputs", fromlist=["WRITE"]).WRITE, "latex", full)
    assert main(["compare", "a.json", "b.json", "--latex", "t.tex"]) == 1
    out, err = capsys.readouterr()
    assert "32.33*" in out
    assert err == "error: t.tex: writing failed (No space left on device); free space or choose another place\n"
