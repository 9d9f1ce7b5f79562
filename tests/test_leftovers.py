"""A later run removes the leftovers of a killed run, but nothing of a running process or another host."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import environment
from vaectl.evaluation.report.media import image
from vaectl.io import leftovers
from vaectl.io.atomic_write import atomic_write
from vaectl.io.leftovers import PREFIX, sweep, temporary_folder, this_host

HOLDING = """
import sys, time
from pathlib import Path
from vaectl.io.atomic_write import atomic_write
from vaectl.io.leftovers import temporary_folder
with atomic_write(Path(sys.argv[1]) / "a.mp4", overwrite=True) as file, temporary_folder() as folder:
    file.write_bytes(b"half")
    (folder / "inside").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that writes a file in `tmp_path` and has its temporary folder there."""
    env = environment() | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", HOLDING, tmp_path], env=env, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write(path: Path) -> None:
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text("whole")


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(holder, tmp_path):
    assert len(names(tmp_path)) == 2
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert len(names(tmp_path)) == 2
    write(tmp_path / "b.mp4")
    assert names(tmp_path) == {"b.mp4"}


def test_what_a_living_process_writes_is_left_alone(holder, tmp_path):
    before = names(tmp_path)
    sweep(tmp_path, again=True)
    assert names(tmp_path) == before
    assert all((tmp_path / name / "inside").exists() for name in before if (tmp_path / name).is_dir())


def test_another_host_another_name_and_another_kind_are_left_alone(tmp_path):
    kept = {f"{PREFIX}elsewhere-12-abcdef01.mp4", ".vaectl", f".vaectl.{this_host()}-1-2", "vaectl-1.mp4"}
    for name in kept:
        (tmp_path / name).write_text("x")
    (tmp_path / f"{PREFIX}{this_host()}-99-link").symlink_to("vaectl-1.mp4")
    os.mkfifo(tmp_path / f"{PREFIX}{this_host()}-99-pipe")
    sweep(tmp_path, again=True)
    assert kept <= names(tmp_path)
    assert (tmp_path / "vaectl-1.mp4").read_text() == "x"


def test_where_there_are_no_locks_nothing_is_removed(tmp_path, monkeypatch):
    name = f"{PREFIX}{this_host()}-99-abcdef01.mp4"
    (tmp_path / name).write_text("x")

    def refuse(*_arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(leftovers.fcntl, "flock", refuse)
    write(tmp_path / "b.mp4")
    assert names(tmp_path) == {name, "b.mp4"}


def test_what_is_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    real, calls = leftovers._lock, []

    def late(descriptor: int) -> None:
        if not calls:
            for path in tmp_path.iterdir():
                path.rmdir() if path.is_dir() else path.unlink()
        calls.append(1)
        real(descriptor)

    monkeypatch.setattr(leftovers, "_lock", late)
    write(tmp_path / "a.mp4")
    assert len(calls) == 2
    assert (tmp_path / "a.mp4").read_text() == "whole"
    calls.clear()
    with temporary_folder() as folder:
        assert folder.is_dir()
    assert len(calls) == 2


def test_a_report_removes_the_temporary_folders_of_killed_ones(holder, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    image(torch.zeros(3, 8, 8, dtype=torch.uint8), 8, 8)
    assert names(tmp_path) == set()


def test_nothing_is_left_after_an_error_in_either(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(FileNotFoundError), temporary_folder() as folder:
        (folder / "inside" / "missing").write_text("x")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "a", overwrite=False):
        1 / 0  # noqa: B018
    assert names(tmp_path) == set()


def test_a_name_never_becomes_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers.socket, "gethostname", lambda: "h/ö" * 100)
    write(tmp_path / ("n." + "e" * 250))
    assert names(tmp_path) == {"n." + "e" * 250}


def test_ctrl_c_during_the_imports_shows_no_traceback():
    program = (
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(name, *rest):\n"
        "        if name == 'vaectl.cli.app': print('ready', flush=True); time.sleep(20)\n"
        "sys.meta_path.insert(0, Slow)\n"
        "from vaectl.__main__ import main\n"
        "sys.exit(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline() == b"ready\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - begun < 5
    assert process.returncode in (-signal.SIGINT, 130)
    assert err == b""
