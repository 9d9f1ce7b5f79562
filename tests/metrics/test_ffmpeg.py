"""Which FFmpeg runs a filter, and what happens when it fails."""

import os
import signal
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from tests.jobs import Listener
from tests.metrics.reference import CPU, disturbed, noise, smooth
from vaectl.errors import VaectlError
from vaectl.metrics import MetricSettings, codec, ffmpeg
from vaectl.metrics.ffmpeg import FFmpeg, find, programs

CLIP = noise(4, 3, 64, 64)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program `ffmpeg` with this script on PATH, alone; gives its path."""

    def start(script):
        file = tmp_path / "ffmpeg"
        file.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        programs.cache_clear()
        return str(file)

    yield start
    programs.cache_clear()


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
    assert next(find("xpsnr")).program is None


def test_without_any_one_line_has_the_command_that_installs_one(program, monkeypatch):
    path = program("sys.exit(1)")
    monkeypatch.setattr("av.filter.filters_available", set())
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(VaectlError) as caught:
        list(find("libvmaf"))
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
        ("print('[a @ 0x5] no\\ntwo', file=sys.stderr); sys.exit(8)", r"the filter libvmaf failed \(no\)"),
        ("sys.exit(8)", r"the filter libvmaf failed \(exit code 8\)"),
        ("sys.stdin.buffer.read()", "its filter libvmaf reported nothing"),
        ("os.kill(os.getpid(), 35)", "was killed by signal 35 in the filter libvmaf"),
        ("print('\\n' * 3000)", "prints endlessly in the filter libvmaf"),
        ("sys.stdin.close(); time.sleep(60)", r"does not answer for 0\.5 s in the filter libvmaf"),
    ],
)
def test_a_program_that_fails_is_one_line(program, script, message, monkeypatch):
    path = program(script)
    monkeypatch.setattr(ffmpeg, "MOST_BYTES", 2000)
    with pytest.raises(VaectlError, match=f"^{path}: {message}") as caught:
        FFmpeg(path, "", path).compare("libvmaf", "", CLIP, CLIP, 0.5)
    assert "\n" not in str(caught.value)


NO_NUMBERS = ["'no'", "'[]'", "'{\"frames\":[]}'", '\'{"frames":[{"metrics":{"vmaf":NaN}}]}\'', "'[' * 5000"]
STRANGE = [f"print({report})" for report in NO_NUMBERS] + ["os.write(1, b'\\xff\\xfe')", "os.kill(os.getpid(), 35)"]


@pytest.fixture
def libvmaf(monkeypatch):
    """Chooses a libvmaf anew, without that of PyAV."""
    monkeypatch.setattr("av.filter.filters_available", set())
    codec.libvmaf.cache_clear()
    yield codec.libvmaf
    codec.libvmaf.cache_clear()


@pytest.mark.parametrize("script", STRANGE)
def test_a_program_with_a_strange_report_is_passed_over(program, libvmaf, script):
    path = program(f"{LISTS}\nif '-lavfi' in sys.argv: {script}")
    chosen = libvmaf()
    assert chosen.ffmpeg.origin.startswith("imageio-ffmpeg ")
    (reason,) = chosen.passed_over
    assert reason.startswith(f"{path}: ")


def test_a_program_that_hangs_is_asked_once_and_named(program, libvmaf, tmp_path, monkeypatch):
    path = program(f"open({str(tmp_path / 'asked')!r}, 'a').write('x'); os.system('/bin/sleep 60')")
    monkeypatch.setattr(ffmpeg, "PROBE_SECONDS", 0.5)
    begun, listener = time.monotonic(), Listener()
    metric = codec.vmaf(MetricSettings(progress=listener), CPU)
    assert metric.ffmpeg.origin.startswith("imageio-ffmpeg ")
    assert listener.notes == [f"{path}: does not answer for 0.5 s; it is not used"]
    assert [each.origin for each in find("xpsnr")] == [metric.ffmpeg.origin]
    assert (tmp_path / "asked").read_text() == "x"
    assert time.monotonic() - begun < 30


def test_a_list_of_filters_that_is_not_text_is_read(program):
    path = program(LISTS + "if '-filters' in sys.argv: sys.stdout.flush(); os.write(1, b'\\xff\\xfe')")
    assert path in [each.origin for each in find("libvmaf")]


def test_the_variable_that_names_a_wrong_program_is_in_the_message(program, libvmaf, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")
    programs.cache_clear()
    with pytest.raises(VaectlError) as caught:
        libvmaf()
    assert str(caught.value).endswith(
        ", IMAGEIO_FFMPEG_EXE=/nonexistent/ffmpeg cannot be run (No such file or directory)); unset IMAGEIO_FFMPEG_EXE"
    )


def test_pyav_that_fails_is_one_line():
    with pytest.raises(VaectlError, match=r"^PyAV .*: its filter psnr failed \("):
        FFmpeg("PyAV", "", None).compare("psnr", "no_such_option=1", CLIP, CLIP)


def test_ctrl_c_ends_a_program_that_reads_nothing(program, tmp_path):
    file = tmp_path / "pid"
    path = program(f"open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)")

    def interrupt():
        while not file.exists() or not file.read_text():
            time.sleep(0.01)
        time.sleep(0.2)  # the pipe is full, and the main thread waits in `write`
        os.kill(os.getpid(), signal.SIGINT)

    thread = Thread(target=interrupt)
    thread.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        FFmpeg(path, "", path).compare("libvmaf", "", noise(8, 3, 256, 256), noise(8, 3, 256, 256))
    thread.join()
    assert time.monotonic() - begun < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


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
