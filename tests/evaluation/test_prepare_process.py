"""`vaectl prepare-eval` as real processes: several that share the work, and what becomes of those that are killed."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.jobs import files
from tests.test_process import finish, wait_for
from tests.video.media import encode
from vaectl.evaluation.manifest import MANIFEST, read_manifest
from vaectl.video import read_video

SMALL = shlex.split("prepare-eval --real-video-dir in --num-frames 5 --resolution 24 --device cpu --num-workers 1")
SLOW = """
import time
from vaectl.evaluation import prepare
original = prepare.write
def write(*arguments):
    time.sleep({})
    return original(*arguments)
prepare.write = write
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The current folder, with five clips in `in`, one of them broken."""
    (tmp_path / "in").mkdir()
    for name in "abcd":
        encode(tmp_path / "in" / f"{name}.mp4", 5)
    (tmp_path / "in" / "e.mp4").write_text("no video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(*arguments: str, code: str = "", **environment: str) -> subprocess.Popen[str]:
    program = f"{code}\nimport sys\nfrom vaectl.cli.app import main\nsys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *SMALL, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def two_ranks(*arguments: str, code: str) -> list[subprocess.Popen[str]]:
    """Two processes that share the work, with nobody to look after them; `code` goes before the second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(*arguments, code=(code if rank else ""), RANK=str(rank), **shared) for rank in (0, 1)]


def finished(journal: str) -> int:
    """How many clips a journal lists."""
    file = Path("out", journal)
    return file.read_text().count("\n") if file.exists() else 0


def test_processes_under_torchrun_share_the_clips_and_give_the_frames_of_one(here):
    alone = start("--generated-video-dir", "alone", "--output-origin")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "vaectl", *SMALL]
    shared = subprocess.run(
        [*torchrun, "--generated-video-dir", "out", "--output-origin", "--json"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert finish(alone)[0] == shared.returncode == 1  # a clip failed
    result = json.loads(shared.stdout)  # one process speaks for both
    assert (result["made"], result["failed"]) == (4, 1)
    assert shared.stderr.count("error: clips left out: 1; out/manifest.json says why") == 1
    assert "rank 0 of 2: 1/3 a: made, 5 frames, 24x24; 0:" in shared.stderr
    assert "rank 0 of 2: 3/3 failed: in/e.mp4 " in shared.stderr
    assert "rank 1 of 2" not in shared.stderr
    for file in Path("alone").rglob("*.mkv"):
        shared_file = Path("out") / file.relative_to("alone")
        assert torch.equal(read_video(file).frames, read_video(shared_file).frames)
    assert read_manifest(Path("out")).clips == read_manifest(Path("alone")).clips
    assert sorted(path.name for path in Path("out").iterdir()) == [
        ".lock",
        *("a.mkv", "b.mkv", "c.mkv", "d.mkv", MANIFEST, "origin"),
    ]


def test_a_rank_that_is_killed_stops_the_other_with_a_message(here):
    first, second = two_ranks("--generated-video-dir", "out", code=SLOW.format(100))
    wait_for(lambda: finished(".manifest-0.jsonl") == 3, first)  # it waits for the other now
    second.kill()
    begun = time.monotonic()
    status, out, err = finish(first)
    assert time.monotonic() - begun < 10
    assert (status, out) == (1, "")
    assert "error: rank 0: another process has stopped; see its message, and start all again\n" in err
    finish(second)
    status, out, err = finish(start("--generated-video-dir", "out"))
    assert re.search(r"2 made, 2 kept from before, 1 failed", out)


def test_a_rank_that_waits_heeds_a_signal(here):
    first, second = two_ranks("--generated-video-dir", "out", code=SLOW.format(100))
    wait_for(lambda: finished(".manifest-0.jsonl") == 3, first)
    first.terminate()
    begun = time.monotonic()
    status, _, err = finish(first)
    assert time.monotonic() - begun < 10
    assert status == 143
    assert err.endswith("error: interrupted\n")
    second.kill()
    finish(second)


def test_a_request_that_cannot_work_is_told_once_and_ends_all_ranks(here):
    (here / "out").mkdir()
    (here / "out" / "a.mkv").write_text("precious")
    processes = two_ranks("--generated-video-dir", "out", code="")
    (first, _, said), (second, _, after) = map(finish, processes)
    assert (first, second) == (2, 1)
    assert said.startswith("error: out/a.mkv: exists already")
    assert "error: rank 1: another process has stopped" in after


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_goes_on_where_it_was(here, number):
    process = start("--generated-video-dir", "out", code=SLOW.format(0.3))
    wait_for(lambda: finished(".manifest-0.jsonl") == 2, process)
    process.send_signal(number)
    finish(process)
    made = {name: (here / "out" / name).stat().st_mtime_ns for name in ("a.mkv", "b.mkv")}
    status, out, _ = finish(start("--generated-video-dir", "out"))
    assert status == 1
    assert "2 made, 2 kept from before, 1 failed" in out
    assert made == {name: (here / "out" / name).stat().st_mtime_ns for name in made}
    assert all(len(read_video(here / "out" / f"{name}.mkv").frames) == 5 for name in "abcd")
    assert not [name for name in files(here / "out") if name.startswith(".vaectl")]
