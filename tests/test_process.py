"""The real program as a process: signals, a disk that is full, files it may not touch, and memory."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs import files
from tests.video.media import encode
from vaectl.model_names import WEIGHTS
from vaectl.models.checkpoint import BUILTIN

THREADS = {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}


def start(*arguments: str, code: str = "", here: Path, **options) -> subprocess.Popen[str]:
    """`vaectl reconstruct` in a process of its own, after `code`."""
    program = f"{code}\nimport sys\nfrom vaectl.cli.app import main\nsys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, "reconstruct", *arguments],
        cwd=here,
        env=os.environ | THREADS,
        text=True,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def wait_for(condition, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "it ended early: " + process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.01)


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_of_a_clip_leaves_nothing_and_is_prompt(tmp_path, samples, number, code):
    (tmp_path / "out.mp4").write_text("precious")
    kept = files(tmp_path)
    clip = str(samples / "bigbuckbunny.mp4")  # in full size a piece takes seconds
    process = start("--video-path", clip, "--rec-path", "out.mp4", "--overwrite", here=tmp_path)
    wait_for(lambda: len(list(tmp_path.iterdir())) > 1, process)
    time.sleep(0.5)
    process.send_signal(number)
    begun = time.monotonic()
    assert finish(process) == (code, "", "error: interrupted\n")
    assert time.monotonic() - begun < 3
    assert files(tmp_path) == kept


def test_ctrl_c_while_the_libraries_load(tmp_path, samples):
    clip = str(samples / "bigbuckbunny.mp4")
    process = start("--video-path", clip, "--rec-path", "out.mp4", here=tmp_path)
    wait_for(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), process)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert finish(process) == (130, "", "error: interrupted\n")
    assert time.monotonic() - begun < 10
    assert files(tmp_path) == {}


SWALLOWED = """
import os, signal, sys, time
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "vaectl.reconstruction":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)
            except KeyboardInterrupt:
                pass
sys.meta_path.insert(0, Finder())
"""


def test_ctrl_c_that_a_library_swallows_while_it_loads(tmp_path, samples):
    """PyTorch 2.4 does, while it looks for NumPy."""
    clip = str(samples / "bigbuckbunny.mp4")
    process = start("--video-path", clip, "--rec-path", "out.mp4", code=SWALLOWED, here=tmp_path)
    assert finish(process) == (130, "", "error: interrupted\n")
    assert files(tmp_path) == {}


# Output


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    encode(tmp_path / "in.mp4", 60, size=(128, 128))
    (tmp_path / "out.mkv").write_text("precious")
    kept = files(tmp_path)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    arguments = ["--video-path", "in.mp4", "--rec-path", "out.mkv", "--lossless", "--overwrite"]
    status, out, err = finish(start(*arguments, here=tmp_path, preexec_fn=limit))
    assert (status, out) == (1, "")
    assert re.fullmatch(r"error: out\.mkv: .*; free space or choose another.*\n", err)
    assert files(tmp_path) == kept


@pytest.mark.parametrize(("output", "status", "said"), [("full", 1, "No space left on device"), ("closed", 1, None)])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_results_that_nobody_takes(tmp_path, form, output, status, said):
    encode(tmp_path / "in.mp4", 1, size=(32, 32))
    if output == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, descriptor = os.pipe()
        os.close(reading)
    arguments = ["--video-path", "in.mp4", "--rec-path", "out.mp4", *form]
    code, _, err = finish(start(*arguments, here=tmp_path, stdout=descriptor))
    os.close(descriptor)
    assert code == status
    assert err == (f"error: standard output: {said}; check its permissions and free space\n" if said else "")
    assert (tmp_path / "out.mp4").exists()


# Permission

AS_NOBODY = """
import os, shlex, pydantic, rich.traceback, vaectl.reconstruction, vaectl.cli.app, vaectl.cli.console
if os.geteuid() == 0:  # whom no permission stops
    os.setuid(65534)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can enter, with a clip."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    encode(folder / "clip.mp4", 1, size=(32, 32))
    yield folder
    for path in folder.iterdir():
        path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("--video-path secret.mp4 --rec-path out.mp4", 2, "secret.mp4: no permission to read it; change"),
        ("--video-path closed --rec-path out", 2, "closed: the folder cannot be listed (Permission denied)"),
        ("--video-path closed/a.mp4 --rec-path out.mp4", 2, "closed/a.mp4: Permission denied; check the path"),
        ("--video-path clip.mp4 --rec-path closed/a.mp4", 2, "closed/a.mp4: Permission denied; check the path"),
        ("--video-path clip.mp4 --rec-path fixed/a.mp4", 2, "fixed/a.mp4: cannot write there (Permission denied)"),
        ("--video-path clip.mp4 --rec-path out.mp4 --model closed", 2, "closed/config.json: no permission to read"),
        ("--video-path clip.mp4 --rec-path out.mp4 --model model", 2, f"model/{WEIGHTS}.safetensors: no permission"),
    ],
)
def test_what_may_not_be_touched(public, arguments, status, said):
    encode(public / "secret.mp4", 1, size=(32, 32)).chmod(0)
    for name, mode in (("closed", 0), ("fixed", 0o555)):
        (public / name).mkdir()
        (public / name).chmod(mode)
    shutil.copytree(BUILTIN, public / "model")
    (public / "model" / f"{WEIGHTS}.safetensors").chmod(0)
    kept = sorted(public.iterdir())
    code, out, err = finish(start(*arguments.split(), code=AS_NOBODY, here=public))
    assert (code, out) == (status, "")
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert "this is a bug" not in err
    assert sorted(public.iterdir()) == kept


# Memory

STEADY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""Memory that is freed goes back to the system at once, so that the peak is what was in use."""

RECONSTRUCT = """
import sys
from pathlib import Path
from vaectl import engine, reconstruction
from vaectl.options import ReconstructOptions
from vaectl.progress import Silent
engine.window_frames = lambda *_: 4
source = Path(sys.argv[1])
options = ReconstructOptions(video_path=(source,), rec_path=source.with_suffix(".mkv"), lossless=True, device="cpu")
frames = reconstruction.reconstruct(options, Silent()).clips[0].num_frames
"""
READ = """
import sys
from pathlib import Path
from vaectl.video import VideoReader
frames = sum(len(clip) for clip in VideoReader(Path(sys.argv[1])).clips())
"""


@pytest.mark.parametrize("code", [RECONSTRUCT, READ])
def test_memory_does_not_grow_with_the_length(tmp_path, code):
    peaks = []
    for count in (40, 400):
        clip = encode(tmp_path / f"{count}.mp4", count, size=(64, 64))
        measure = "import resource; print([frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])"
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\n{measure}", str(clip)],
            env=os.environ | THREADS | STEADY,
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
        frames, peak = json.loads(done.stdout)
        assert frames == count
        peaks.append(peak)
    held = 360 * 3 * 64 * 64 // 1024  # the smallest way to hold a clip: 8 bits, once
    assert peaks[1] - peaks[0] < held * 0.7


WITHIN = """
import sys
held = bytearray(b"x" * (int(sys.argv[2]) << 20))  # for the libraries of another build of PyTorch
from pathlib import Path
from vaectl.memory import parse_size
from vaectl.errors import UsageError
from vaectl.options import ReconstructOptions
from vaectl.progress import Silent
from vaectl.reconstruction import reconstruct
def run(limit):
    source, target = Path(sys.argv[1]), Path(sys.argv[1]).with_suffix(f".{sys.argv[2]}.mkv")
    options = ReconstructOptions(video_path=(source,), rec_path=target, device="cpu", memory_limit=limit)
    return reconstruct(options, Silent()).peak_memory
try:
    run(2**20)
except UsageError as error:
    least = parse_size(str(error).rpartition("give at least ")[2])
print([least, run(least)])
"""


def test_a_limit_holds_whatever_the_libraries_take(tmp_path):
    """PyTorch with CUDA, the default build on Linux, takes 400 MiB more than one without, before there is a model."""
    clip, limits = encode(tmp_path / "clip.mp4", 9, size=(200, 88)), []
    for ballast in (0, 400):
        done = subprocess.run(
            [sys.executable, "-c", WITHIN, str(clip), str(ballast)],
            env=os.environ | THREADS,
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
        limit, peak = json.loads(done.stdout)
        assert peak <= limit
        limits.append(limit)
    assert abs(limits[1] - limits[0] - (400 << 20)) <= 40 << 20
