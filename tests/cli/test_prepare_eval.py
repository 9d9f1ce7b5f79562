"""`vaectl prepare-eval`: the command lines that people have, and how the command shows what the job did."""

import json
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from vaectl.cli.app import main
from vaectl.errors import VaectlError
from vaectl.evaluation.manifest import Manifest, ManifestClip, ManifestModel
from vaectl.evaluation.prepare import PrepareResult
from vaectl.evaluation.protocol import ClipProtocol

PATHS = ["prepare-eval", "--real-video-dir", "in", "--generated-video-dir", "out"]
PUBLISHED = """
    --real_video_dir in --generated_video_dir out --ckpt model --num_frames 17 --resolution 336 --sample_rate 2
    --sample_fps 30 --crop_size 256 --batch_size 4 --num_workers 3 --subset_size 100 --tile_overlap_factor 0.25
    --enable_tiling --output_origin --model_name WFVAE --device cuda
"""


@pytest.fixture
def job(monkeypatch):
    """Let a function stand in for the job."""

    def stand_in(function):
        monkeypatch.setitem(sys.modules, "vaectl.evaluation.prepare", SimpleNamespace(prepare=function))

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
@pytest.mark.parametrize("ckpt", ["--ckpt", "--from_pretrained"])
def test_a_published_command_line_is_taken_as_it_is(job, dashes, ckpt):
    words = PUBLISHED.replace("--ckpt", ckpt).split()
    if dashes:
        words = [word.replace("_", "-") if word.startswith("--") else word for word in words]
    options = options_of(job, ["prepare-eval", *words])
    assert (options.real_video_dir, options.generated_video_dir, options.model) == (
        Path("in"),
        Path("out"),
        Path("model"),
    )
    assert (options.num_frames, options.resolution, options.sample_rate, options.crop_size) == (17, 336, 2, 256)
    assert (options.sample_fps, options.batch_size, options.num_workers) == (Fraction(30), 4, 3)
    assert (options.subset_size, options.tile_overlap_factor, options.model_name) == (100, 0.25, "WFVAE")
    assert (options.enable_tiling, options.output_origin, options.device) == (True, True, "cuda")


def test_the_defaults_are_those_of_the_published_tables(job):
    options = options_of(job, PATHS)
    assert (options.num_frames, options.resolution, options.sample_rate, options.crop_size) == (33, 256, 1, None)
    assert (options.dtype, options.format, options.subset_size, options.sample) == ("float32", "mkv", 0, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prepare-eval"], "--real-video-dir is missing; --generated-video-dir is missing"),
        ([*PATHS, "--num_frames", "0"], "--num-frames: must be at least 1, not 0"),
        ([*PATHS, "--crop_size", "300"], "--crop-size 300 does not fit into a --resolution of 256; make it smaller"),
        ([*PATHS, "--format", "avi"], "--format: must be 'mkv' or 'mp4', not 'avi'"),
        ([*PATHS, "--tile_overlap_factor", "2"], "--tile-overlap-factor: must be at most 1"),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments, said):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


def result_of(*clips: ManifestClip) -> PrepareResult:
    manifest = Manifest(
        {"vaectl": "1"},
        ManifestModel("model", "WFVAEModel", "ab" * 32, "cpu", "float32"),
        ClipProtocol(33, 2, 256, 256),
        {},
        "/in",
        clips,
    )
    failed = sum(clip.status == "failed" for clip in clips)
    return PrepareResult(manifest, len(clips) - failed, 4, failed, 12.5, 3 * 2**29, Path("out/manifest.json"))


GOOD = ManifestClip("a", "a.mp4", (1, 2), "a.mkv", status="ok", frames=33, width=256, height=256)
BAD = ManifestClip("b", "b.mp4", (1, 2), "b.mkv", status="failed", reason="in/b.mp4: broken")


def test_what_was_made_is_shown(job, capsys):
    job(lambda *_: result_of(GOOD))
    assert main(PATHS) == 0
    out, err = capsys.readouterr()
    assert [line.split(maxsplit=1) for line in map(str.strip, out.splitlines())] == [
        ["clips", "1 made, 4 kept from before"],
        ["frames", "33 of each clip (one in 2), 256x256"],
        ["model", "model on cpu in float32"],
        ["written", "out"],
        ["manifest", "out/manifest.json"],
        ["time", "12.5 s, peak memory 1.50 GiB"],
    ]
    assert err == ""


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_clips_that_failed_are_told_and_the_exit_code_says_so(job, capsys, form):
    job(lambda *_: result_of(GOOD, BAD))
    assert main([*PATHS, *form]) == 1
    out, err = capsys.readouterr()
    assert err == "error: in/b.mp4: broken\nerror: clips left out: 1; out/manifest.json says why\n"
    if form:
        result = json.loads(out, parse_constant=pytest.fail)
        assert (result["made"], result["kept"], result["failed"]) == (1, 4, 1)
        assert result["manifest"] == "out/manifest.json"
        assert result["clips"][1]["reason"] == "in/b.mp4: broken"


def test_only_the_main_process_shows_anything(job, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    job(lambda *_: result_of(GOOD, BAD))
    assert main(PATHS) == 1
    assert capsys.readouterr() == ("", "")


def test_the_program_prepares_a_real_clip(vaectl, samples, tmp_path):
    arguments = ["--real_video_dir", str(samples), "--generated_video_dir", str(tmp_path / "out"), "--subset_size", "1"]
    done = vaectl("prepare-eval", *arguments, "--num_frames", "5", "--resolution", "32", "--device", "cpu", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["made"], result["clips"][0]["name"]) == (1, "bigbuckbunny")
    assert (tmp_path / "out" / "bigbuckbunny.mkv").is_file()
