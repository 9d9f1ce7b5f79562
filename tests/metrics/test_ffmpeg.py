"""Which FFmpeg runs a filter, and what happens when it fails."""

import os
import sys
import time
from pathlib import Path

import pytest

from tests.metrics.reference import disturbed, noise, smooth
from vaectl.errors import VaectlError
from vaectl.metrics import codec, ffmpeg
from vaectl.metrics.ffmpeg import FFmpeg, find

CLIP = noise(4, 3, 64, 64)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program `ffmpeg` with this script on PATH, alone; gives its path."""

    def start(script):
        file = tmp_path / "ffmpeg"
        file.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        find.cache_clear()
        return str(file)

    yield start
    find.cache_clear()


LISTS = """
if "-filters" in sys.argv: print(" ... libvmaf           VV->V      Calculate the VMAF between two video streams.")
if "-version" in sys.argv: print("ffmpeg version 7.1-static Copyright (c) the FFmpeg developers")
"""


def test_pyav_comes_first_then_the_path_then_the_package(program, monkeypatch):
    path = program(LISTS)
    monkeypatch.setattr("av.filter.filters_available", {"libvmaf"})
    pyav, on_path, package = find("libvmaf")
    assert (pyav.origin.split()[0], pyav.program) == ("PyAV", None)
    assert on_path == FFmpeg(path, "7.1-static", path)
    assert package.origin.startswith("imageio-ffmpeg ")


def test_an_ffmpeg_without_the_filter_is_passed_over(program, monkeypatch):
    program("print(' ... vmafmotion V->V Calculate the VMAF Motion score.')")
    monkeypatch.setattr("av.filter.filters_available", {"xpsnr"})
    assert [each.origin.split()[0] for each in find("libvmaf")] == ["imageio-ffmpeg"]
    assert find("xpsnr")[0].program is None


def test_without_any_one_line_has_the_command_that_installs_one(program, monkeypatch):
    path = program("sys.exit(1)")
    monkeypatch.setattr("av.filter.filters_available", set())
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(VaectlError) as caught:
        find("libvmaf")
    assert str(caught.value).startswith("no FFmpeg here has the filter libvmaf (looked at PyAV ")
    assert str(caught.value).endswith(f", {path}); run pip install imageio-ffmpeg (the extra vaectl[vmaf])")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "sys.stdin.buffer.read(); os.kill(os.getpid(), signal.SIGSEGV)",
            "was killed by SIGSEGV in the filter libvmaf",
        ),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL in the filter libvmaf"),
        ("print('one\\ntwo', file=sys.stderr); sys.exit(8)", r"the filter libvmaf failed \(two\)"),
        ("sys.exit(8)", r"the filter libvmaf failed \(exit code 8\)"),
        ("sys.stdin.buffer.read()", "its filter libvmaf reported nothing"),
    ],
)
def test_a_program_that_fails_is_one_line(program, script, message):
    path = program(script)
    with pytest.raises(VaectlError, match=f"^{path}: {message}") as caught:
        FFmpeg(path, "", path).compare("libvmaf", "", CLIP, CLIP)
    assert "\n" not in str(caught.value)


def test_pyav_that_fails_is_one_line():
    with pytest.raises(VaectlError, match=r"^PyAV .*: its filter psnr failed \("):
        FFmpeg("PyAV", "", None).compare("psnr", "no_such_option=1", CLIP, CLIP)


def test_ctrl_c_ends_the_program(program, tmp_path, monkeypatch):
    path = program(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")

    def interrupt(_frame):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(ffmpeg, "_rgb", interrupt)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        FFmpeg(path, "", path).compare("libvmaf", "", CLIP, CLIP)
    assert time.monotonic() - begun < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_report_larger_than_a_pipe_does_not_block():
    (package,) = [each for each in find("libvmaf") if each.origin.startswith("imageio-ffmpeg")]
    clip = smooth(600, 3, 16, 16)
    report = package.compare("psnr", "", clip, disturbed(clip, 5))
    assert len(report) > 2**17
    assert len(codec._psnr_y(report)) == 600


def test_no_file_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for each in find("libvmaf"):
        each.compare("libvmaf", "log_fmt=json", CLIP, CLIP)
    assert not list(Path.cwd().iterdir())
