"""`vaectl eval` as real processes: several that share the pairs, and what a signal leaves."""

import csv
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.evaluation.test_eval import Detector, disturbed, pictures, store
from tests.test_process import finish, wait_for

SMALL = shlex.split("eval --real-video-dir real --generated-video-dir made --num-frames 3 --resolution 32 --device cpu")
SLOW = """
import time
from vaectl.evaluation import pipeline
original = pipeline.compare
def compare(*arguments):
    original(*arguments)
    with open("measured", "a") as file:
        file.write("one\\n")
    for _ in range(1000):  # a signal that comes just before a long sleep would wait for its end
        time.sleep(0.1)
pipeline.compare = compare
"""


@pytest.fixture
def here(tmp_path, monkeypatch, one_thread) -> Path:
    """The current folder, with four originals in `real` and what became of them in `made`."""
    for seed, name in enumerate("abcd"):
        frames = pictures(3, seed=seed)
        store(tmp_path / "real" / f"{name}.mkv", frames)
        store(tmp_path / "made" / f"{name}.mkv", disturbed(frames, seed))
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


def two_ranks(*arguments: str, code: str = "") -> list[subprocess.Popen[str]]:
    """Two processes that share the work, with nobody to look after them; `code` goes before the second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(*arguments, code=(code if rank else ""), RANK=str(rank), **shared) for rank in (0, 1)]


def measured() -> int:
    return len(Path("measured").read_text().splitlines()) if Path("measured").exists() else 0


def test_processes_that_share_the_pairs_give_the_numbers_of_one(here):
    """Of two candidates: the metrics of frames and of sets, the differences, and the file of numbers."""
    torch.jit.script(Detector()).save("detector.pt")
    for seed, name in enumerate("abcd", 7):
        store(here / "far" / f"{name}.mkv", disturbed(pictures(3, seed=seed - 7), seed))
    (here / "made" / "b.mkv").write_text("no video")
    chosen = ("--generated-video-dir", "far", "--metric", "psnr,fvd", "--fvd-detector", "detector.pt")
    chosen += ("--allow-missing", "--json", "--csv")
    (first, second), alone = two_ranks(*chosen, "shared.csv"), start(*chosen, "alone.csv")
    (status, out, _), (expected_status, expected, _) = finish(first), finish(alone)
    assert finish(second)[:2] == (0, "")
    assert status == expected_status == 0
    shared, one = json.loads(out), json.loads(expected)
    assert [each["name"] for each in shared["candidates"]] == ["made", "far"]
    for together, single in zip(shared["candidates"], one["candidates"], strict=True):
        assert [clip["name"] for clip in together["clips"]] == ["a", "c", "d"]
        assert together["clips"] == single["clips"]
        assert together["left_out"] == single["left_out"]
        assert together["summary"]["fvd"]["mean"] == pytest.approx(single["summary"]["fvd"]["mean"], rel=1e-9)
    made, far = (each["summary"]["fvd"]["mean"] for each in shared["candidates"])
    assert made != far
    assert shared["significance"] == one["significance"]
    assert Path("shared.csv").read_bytes() == Path("alone.csv").read_bytes()


def test_a_rank_that_is_killed_stops_the_other_with_a_message(here):
    first, second = two_ranks("--metric", "psnr", code=SLOW)
    wait_for(lambda: measured() == 1, second)
    second.kill()
    begun = time.monotonic()
    status, out, err = finish(first)
    assert time.monotonic() - begun < 10
    assert (status, out) == (1, "")
    *shown, last = err.splitlines()
    assert [line.split(": psnr")[0] for line in shown] == ["rank 0 of 2: 1/2 a", "rank 0 of 2: 2/2 c"]
    assert last == "error: rank 0: another process has stopped; see its message, and start all again"
    finish(second)


def test_a_request_that_cannot_work_ends_all_ranks(here):
    Path("numbers.csv").write_text("precious")
    (first, _, said), (second, _, _) = map(finish, two_ranks("--csv", "numbers.csv"))
    assert (first, second) == (2, 1)
    assert said == "error: numbers.csv: exists already; pass --overwrite to replace it, or name another file\n"
    assert Path("numbers.csv").read_text() == "precious"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_shows_what_it_has(here, number, status):
    process = start("--metric", "psnr", "--csv", "numbers.csv", code=SLOW)
    wait_for(lambda: measured() == 1, process)
    process.send_signal(number)
    ended, out, err = finish(process)
    assert ended == status
    (shown, last) = err.splitlines()
    assert shown.startswith("1/4 a: psnr ")
    assert last == "error: interrupted"
    assert "psnr (dB) ↑" in out
    assert "stopped: 3 more clips were not compared" in out
    with Path("numbers.csv").open() as file:
        assert {row["clip"] for row in csv.DictReader(file)} == {"a"}


def test_a_run_that_is_killed_leaves_nothing_behind(here):
    process = start("--metric", "psnr", "--csv", "numbers.csv", "--report", "report.html", code=SLOW)
    wait_for(lambda: measured() == 1, process)
    process.kill()
    finish(process)
    assert sorted(path.name for path in here.iterdir()) == ["made", "measured", "real"]
