"""Batches from workers: the same as without them, whatever happens to a worker, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.jobs import Listener

from vaectl.data import Batch, ClipDataset, ClipLoader, Sampling, Source, open_dataset
from vaectl.data import worker_pool as module
from vaectl.data.workers import Task, Worker
from vaectl.errors import VaectlError


def opened(videos: Path, **sampling: Any) -> ClipDataset:
    chosen = Sampling(**{"num_frames": 5, "resolution": 48, "random_crop": True, **sampling})
    return open_dataset([Source(videos)], chosen, strict=False, progress=Listener())


def pairs(k: int) -> Sequence[int]:
    return range(2 * k, 2 * k + 2)


def batches(dataset: ClipDataset, count: int, workers: int, first: int = 0) -> list[Batch]:
    with ClipLoader(dataset, pairs, first=first, workers=workers) as loader:
        return list(islice(loader, count))


def notes(made: Sequence[Batch]) -> list[str]:
    return [note for batch in made for note in batch.notes]


def assert_same(made: Sequence[Batch], expected: Sequence[Batch]) -> None:
    assert len(made) == len(expected)
    for ours, theirs in zip(made, expected, strict=True):
        assert list(ours.numbers) == list(theirs.numbers)
        assert torch.equal(ours.frames, theirs.frames)


def test_samples_do_not_depend_on_the_workers(videos: Path) -> None:
    dataset = opened(videos)
    expected = batches(dataset, 8, workers=0)
    assert expected[0].frames.shape == (2, 5, 3, 48, 48)
    assert torch.equal(expected[3].frames[1], dataset.clip(7).frames)
    for workers in (1, 3):
        assert_same(batches(dataset, 8, workers), expected)
    assert_same(batches(dataset, 3, workers=2, first=5), expected[5:])
    assert notes(expected) == []


def test_what_it_cost_is_counted(videos: Path) -> None:
    for workers in (0, 1):
        with ClipLoader(opened(videos), pairs, first=0, workers=workers) as loader:
            endless = iter(loader)
            made = [next(endless)]
            assert loader.waited == 0  # workers that start are no sign of slow data
            made += islice(endless, 3)
            assert loader.waited > 0
            assert loader.decode_seconds > 0
            assert loader.decoded_frames >= sum(batch.frames.shape[0] * batch.frames.shape[1] for batch in made)


def test_a_loader_keeps_ahead_but_not_far(videos: Path) -> None:
    asked = []

    def numbers(k: int) -> Sequence[int]:
        asked.append(k)
        return [k]

    with ClipLoader(opened(videos), numbers, first=0, workers=2, prefetch=2) as loader:
        next(iter(loader))
        deadline = time.monotonic() + 20
        while len(asked) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        assert 3 <= len(asked) <= 6


def test_a_worker_that_is_killed_is_replaced_and_nothing_else_changes(videos: Path) -> None:
    dataset = opened(videos)
    expected = batches(dataset, 12, workers=0)
    made = []
    with ClipLoader(dataset, pairs, first=0, workers=2) as loader:
        for batch in islice(loader, 12):
            made.append(batch)
            for process in multiprocessing.active_children()[: len(made) % 3]:
                process.kill()  # no error if it is dead already
    assert_same(made, expected)
    assert notes(made)
    for note in notes(made):
        assert note.startswith("a data worker died (killed by signal 9) while reading ")
        assert note.endswith("; a new one replaces it")


class Mortal(Worker):
    """Dies of some videos."""

    deadly = ""

    def give(self, task: Task) -> None:
        super().give(task)
        if self.deadly in task.path.name:
            self._process.kill()


def test_a_video_that_kills_workers_is_replaced(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = opened(videos)
    whole = batches(dataset, 5, workers=0)
    monkeypatch.setattr(module, "Worker", Mortal)
    monkeypatch.setattr(Mortal, "deadly", "portrait")
    made = batches(dataset, 5, workers=2)
    (videos / "sub" / "portrait.mov").unlink()
    expected = batches(dataset, 5, workers=0)
    assert_same(made, expected)
    replaced = [note for note in notes(made) if "replaces it" in note and "a new one" not in note]
    assert len(replaced) == len(notes(expected)) == 2
    for note in replaced:
        assert note.startswith(
            f"{videos}/sub/portrait.mov: 3 data workers died while reading it (killed by signal 9); {videos}/"
        )
    assert sum(torch.equal(a.frames, b.frames) for a, b in zip(made, whole, strict=True)) == 3


def test_workers_that_keep_dying_end_the_run(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Worker", Mortal)
    with (
        ClipLoader(opened(videos), pairs, first=0, workers=2) as loader,
        pytest.raises(VaectlError, match=r"a data worker died \(killed by signal 9\).* the 10th in a row; if memory"),
    ):
        next(iter(loader))
    assert not multiprocessing.active_children()


def test_videos_that_disappear_are_replaced_as_without_workers(videos: Path) -> None:
    dataset = opened(videos)
    with ClipLoader(dataset, pairs, first=0, workers=2) as loader:
        next(iter(loader))
        (videos / "a.mp4").unlink()
        os.truncate(videos / "sub" / "old.avi", 3000)
        later = list(islice(loader, 8))[3:]
    expected = batches(dataset, 9, workers=0)[4:]
    assert_same(later, expected)
    assert notes(later) == notes(expected) != []


def test_when_nothing_can_be_read_any_more_the_consumer_hears_it(videos: Path) -> None:
    dataset = opened(videos)
    shutil.rmtree(videos)
    for workers in (0, 2):
        with (
            pytest.raises(VaectlError, match="6 videos in a row cannot be read; the first: "),
            ClipLoader(dataset, pairs, first=0, workers=workers) as loader,
        ):
            next(iter(loader))
    assert not multiprocessing.active_children()


def test_leaving_ends_all_at_once(videos: Path) -> None:
    dataset = opened(videos)
    for taken in (0, 1):
        with ClipLoader(dataset, pairs, first=0, workers=2) as loader:
            list(islice(loader, taken))
            workers = multiprocessing.active_children()
            for process in workers:
                os.kill(process.pid or 0, signal.SIGSTOP)  # as if it were deep in a long film
            begun = time.monotonic()
        assert time.monotonic() - begun < 5
        assert not multiprocessing.active_children()
    assert len(workers) == 2


SCRIPT = """
import sys, time
from itertools import islice
from pathlib import Path
from vaectl.progress import Silent
from vaectl.data import *
if __name__ == "__main__":
    dataset = open_dataset([Source(Path(sys.argv[1]))], Sampling(5, 48), strict=False, progress=Silent())
    try:
        print("starting", flush=True)
        with ClipLoader(dataset, lambda k: [k], first=0, workers=2) as loader:
            for batch in loader:
                print(batch.numbers, flush=True)
                time.sleep(0.05)
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.mark.parametrize(
    ("group", "after"),
    [(True, "[0]\n"), (True, "starting\n"), (False, "[0]\n")],
    ids=["Ctrl-C", "Ctrl-C while they start", "kill -9"],
)
def test_workers_end_with_their_parent_and_in_silence(videos: Path, tmp_path: Path, group: bool, after: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, script, videos],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout
    while parent.stdout.readline() != after:
        assert parent.poll() is None
    time.sleep(0.3)
    if group:
        os.killpg(parent.pid, signal.SIGINT)
    else:
        parent.kill()
    out, err = parent.communicate(timeout=30)
    assert err == ""
    assert out.endswith("stopped\n") == group
    deadline = time.monotonic() + 10
    while is_alive(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(parent.pid)


def is_alive(group: int) -> bool:
    """Whether a process of the group is left that has not ended; who has to bury it may take his time."""
    states = []
    for process in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group, *_ = process.read_text().rpartition(")")[2].split()
            states += [state] if int(its_group) == group else []
    return any(state != "Z" for state in states)
