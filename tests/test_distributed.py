"""A process that waits for others says so, gives up in time, and can be stopped; a broken environment is one line."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed

from tests.cli.conftest import VAECTL, environment
from tests.video.media import encode
from vaectl import distributed
from vaectl.cli.app import main
from vaectl.errors import UsageError
from vaectl.progress import Silent

EVAL = "--model builtin --num-frames 3 --resolution 32 --metric psnr --device cpu"
MAIN = "from vaectl.cli.app import main; sys.exit(main())"
COMMANDS = {
    "eval": ["eval", "--real-video-dir", "v", *EVAL.split()],
    "prepare-eval": ["prepare-eval", "--real-video-dir", "v", "--generated-video-dir", "g", "--device", "cpu"],
    "train": ["train", "--video-path", "v", "--recipe", "tiny", "--device", "cpu"],
}


@pytest.fixture
def alone(tmp_path):
    """The environment of a process of a distributed run to which nobody else comes."""
    (tmp_path / "v").mkdir()
    encode(tmp_path / "v" / "a.mp4", 4, size=(32, 32))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    return environment(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)


@pytest.mark.parametrize(
    ("command", "number", "rank"),
    [("eval", signal.SIGTERM, "0"), ("prepare-eval", signal.SIGINT, "1"), ("train", signal.SIGTERM, "1")],
)
def test_it_says_what_it_waits_for_and_hears_signals(alone, tmp_path, command, number, rank):
    program = f"import sys; from vaectl import distributed; distributed.NOTE_AFTER_SECONDS = 1; {MAIN}"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *COMMANDS[command]],
        env=alone | {"RANK": rank},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    line = process.stderr.readline()
    place = f"127.0.0.1:{alone['MASTER_PORT']}"
    assert line == f"note: rank {rank}: waiting for the other 1 of 2 processes at {place}, at most 600 s\n"
    begun = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - begun < 5
    assert (process.returncode, err) == (128 + number, "error: interrupted\n")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_it_gives_up_in_time(alone, tmp_path, rank):
    begun = time.monotonic()
    done = subprocess.run(
        [VAECTL, *COMMANDS["eval"], "--rendezvous-timeout", "2"],
        env=alone | {"RANK": rank},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert time.monotonic() - begun < 40
    assert done.returncode == 2
    assert f"error: rank {rank}: the other 1 of 2 processes did not connect to 127.0.0.1" in done.stderr
    assert "within 2 s; start all of them" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE"])
@pytest.mark.parametrize("value", ["", " ", "x", "-1", "1.5", "٣", "9" * 5000])
def test_a_broken_environment_is_one_line(monkeypatch, capsys, tmp_path, name, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    assert main(COMMANDS["prepare-eval"]) == main(COMMANDS["train"]) == 2
    capsys.readouterr()
    assert main(COMMANDS["eval"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {name} is '")
    assert err.count("\n") == 1
    assert len(err) < 350


def test_a_rank_beyond_the_last_is_one_line(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="RANK is 2, but WORLD_SIZE is 2"):
        distributed.rank()


def test_who_comes_late_is_waited_for(alone):
    program = (
        "import sys, time; from vaectl import distributed; from vaectl.progress import Silent\n"
        "time.sleep(2 * distributed.rank())\n"
        "with distributed.process_group(Silent(), 60): print(distributed.gather(distributed.rank()))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program], env=alone | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in both] == ["[0, 1]\n", "[]\n"]
    assert os.environ.get("WORLD_SIZE") is None


@pytest.mark.parametrize(
    ("gpu", "nccl", "device", "backends"),
    [
        (False, True, "auto", "gloo"),  # a CUDA build on a machine without a GPU: NCCL 2.30 refuses to start
        (False, True, "cuda", "gloo"),
        (True, True, "cpu", "gloo"),
        (True, True, "auto", "cpu:gloo,cuda:nccl"),
        (True, True, "cuda:1", "cpu:gloo,cuda:nccl"),
        (True, False, "auto", "gloo"),
    ],
)
def test_nccl_is_for_gpus_that_are_used(monkeypatch, gpu, nccl, device, backends):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    assert distributed.backends_for(device) == backends


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            {"MASTER_ADDR": "no.such.host.invalid"},
            "MASTER_ADDR is 'no.such.host.invalid' in the environment, a",
        ),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is '' in the environment, a host that cannot be found"),
        ({"MASTER_PORT": "abc"}, "MASTER_PORT is 'abc' in the environment, not a port from 1 to 65535"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT is '99999' in the environment, not a port"),
    ],
)
def test_a_place_where_nobody_can_meet_is_named(monkeypatch, place, said):
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", **place}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=said), distributed.process_group(Silent()):
        pass
