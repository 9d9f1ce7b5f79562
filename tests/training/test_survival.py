"""What kills a run does not change its result: 20 seeded kill -9, signals, ranks that die, disks that are full."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.jobs import Listener
from tests.training.runs import NANO, PLAIN, WAN, lines, names, nano, run, weights

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "COLUMNS": "80"}


MAIN = "import sys\nfrom vaectl.cli.app import main\nif __name__ == '__main__': sys.exit(main())"


def program(*arguments: Any, torchrun: int = 0, code: str = "") -> subprocess.Popen[str]:
    """`vaectl train` in a process of its own, after `code`; or in several, as torchrun starts them."""
    main = ["-c", f"{code}\n{MAIN}"] if code else ["-m", "vaectl"]
    ranks = ["-m", "torch.distributed.run", "--nproc-per-node", str(torchrun)] if torchrun else []
    return subprocess.Popen(
        [sys.executable, *ranks, *main, "train", *map(str, arguments)],
        env=ENVIRONMENT | {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def arguments(videos: Path, here: Path, **given: Any) -> list[str]:
    values = {**PLAIN, "model_config": nano(here), "ckpt_dir": here / "results", "video_path": videos, **given}
    flags = [f"--{name}" if value else f"--no-{name}" for name, value in values.items() if isinstance(value, bool)]
    return flags + [f"--{name}={value}" for name, value in values.items() if not isinstance(value, bool)]


def wait_for(condition, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, "it ended early: " + process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.01)


def steps(run: Path) -> int:
    journal = run / "metrics.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "kills", "steps"), [(NANO, 20, 180), (WAN, 4, 20)], ids=["wfvae, 20 kills", "wan, 4 kills"]
)
def test_kills_change_nothing(videos, tmp_path, config, kills, steps):
    given = {**PLAIN, "ema": True, "max_steps": steps, "save_ckpt_step": 4, "random_crop": True}
    given |= {"wavelet_loss": config is NANO, "model_config": str(nano(tmp_path, config))}
    values = {**given, "video_path": str(videos), "ckpt_dir": str(tmp_path / "killed")}
    (tmp_path / "options.json").write_text(json.dumps({**values, "exp_name": "vae"}))
    harness = [sys.executable, Path(__file__).with_name("killing.py"), tmp_path / "options.json", "5", str(kills), "3"]
    told = subprocess.run(harness, env=ENVIRONMENT, text=True, capture_output=True, timeout=300)
    assert told.returncode == 0, told.stderr
    report = json.loads(told.stdout)
    assert report["inside"] >= 3
    assert report["status"] == 0
    whole, killed = run(videos, tmp_path, **given).run, tmp_path / "killed" / "vae"
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    files = [path / "latest" / "diffusion_pytorch_model.safetensors" for path in (whole, killed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert names(killed) == names(whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_writes_a_checkpoint_first(videos, tmp_path, number, code):
    process = program(*arguments(videos, tmp_path, max_steps=100000, num_workers=1))
    folder = tmp_path / "results" / "vae"
    wait_for(lambda: steps(folder) >= 2, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1] == "error: interrupted"
    assert (folder / "latest" / "training_state.pt").is_file()
    assert (folder / "latest").resolve().name == f"checkpoint-{len(lines(folder)):08d}"


def test_a_second_ctrl_c_ends_at_once(videos, tmp_path):
    slow = "from vaectl.training.trainer import Trainer as T\nimport time\nT.advance = lambda *_: time.sleep(60)"
    process = program(*arguments(videos, tmp_path, max_steps=10), code=slow)
    wait_for(lambda: (tmp_path / "results" / "vae" / "metrics.jsonl").exists(), process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "the first one waits for the step"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not list((tmp_path / "results" / "vae").glob("checkpoint-*"))


def test_a_real_write_that_fails_leaves_the_last_checkpoint(videos, tmp_path):
    """Files may not grow beyond 20 KB from the second checkpoint on, as on a disk that fills."""
    limit = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from vaectl.training import job
write, calls = job.write_checkpoint, []
def limited(*arguments):
    calls.append(1)
    if len(calls) == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
    try:
        return write(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
job.write_checkpoint = limited
"""
    process = program(*arguments(videos, tmp_path, max_steps=6, save_ckpt_step=2), code=limit)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert [line for line in err.splitlines() if "checkpoint-00000004: not written (" in line and "are kept" in line], (
        err
    )
    assert names(tmp_path / "results" / "vae") >= {"checkpoint-00000002", "checkpoint-00000006"}


def test_two_ranks_learn_as_one_with_twice_the_batch(videos, tmp_path):
    """Equal but for the order of sums, which Adam's first steps amplify: 1e-4 relative."""
    process = program(*arguments(videos, tmp_path, max_steps=4, batch_size=1, ema=True), torchrun=2)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    shared = lines(tmp_path / "results" / "vae")
    alone = lines(run(videos, tmp_path, exp_name="alone", max_steps=4, batch_size=2, ema=True).run)
    assert [line["loss"] for line in shared] == pytest.approx([line["loss"] for line in alone], rel=1e-4)
    assert [line["grad_norm"] for line in shared] == pytest.approx([line["grad_norm"] for line in alone], rel=1e-3)


def test_ranks_validate_and_criticise_together_and_one_that_is_not_finite_stops_all(videos, tmp_path):
    spoil = """
import math, os
from vaectl.training.losses import Objective
true, calls = Objective.generator_loss, []
def spoilt(self, *arguments, **options):
    total, parts = true(self, *arguments, **options)
    calls.append(1)
    return (total * math.nan if os.environ["RANK"] == "1" and len(calls) == 2 else total), parts
Objective.generator_loss = spoilt

from vaectl.training.validation import Validation
measure, validations = Validation._measure_share, []
def lost(self, *arguments):
    validations.append(1)
    if os.environ["RANK"] == "1" and len(validations) == 1:
        raise ZeroDivisionError("only here")
    return measure(self, *arguments)
Validation._measure_share = lost
"""
    script = tmp_path / "spoilt.py"
    script.write_text(f"{spoil}\n{MAIN}")
    given = arguments(
        videos, tmp_path, max_steps=4, batch_size=1, disc_weight=0.5, disc_start=2, resolution=32, eval_steps=2,
        eval_video_path=videos,
    )  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", script, "train", *given]
    told = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, timeout=120)
    assert told.returncode == 0, told.stderr
    written = lines(tmp_path / "results" / "vae")
    assert [line["skipped"] for line in written] == [False, True, False, False]
    assert [line["kind"] for line in written][2:] == ["generator", "discriminator"]
    assert [line["step"] for line in lines(tmp_path / "results" / "vae", "validation.jsonl")] == [4]
    failed = "warning: step 2: the validation failed and is skipped: ZeroDivisionError: only here"
    assert told.stderr.count(failed) == 1
    assert told.stderr.count("run          ") == told.stdout.count("next:") == 1, "only the main rank prints"
    assert "batch        2 clips (1 x 2 ranks x 1 accumulated)" in told.stderr


def test_when_a_rank_dies_the_others_end_with_a_message(videos, tmp_path):
    process = program(*arguments(videos, tmp_path, max_steps=100000), torchrun=2)
    wait_for(lambda: steps(tmp_path / "results" / "vae") >= 2, process)
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(found[-1]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    # It notices that by itself, unless torchrun is faster and ends it.
    assert "error: rank 0: another process has stopped; see its message" in err or "error: interrupted" in err
    assert "this is a bug" not in err


def test_a_run_goes_on_with_another_number_of_ranks_and_says_so(videos, tmp_path):
    """Of a Wan whose encoder is frozen."""
    wan = nano(tmp_path, WAN).rename(tmp_path / "wan.json")
    given = {"wavelet_loss": False, "model_config": str(wan)}
    begun = run(videos, tmp_path, exp_name="begun", max_steps=1, **given).checkpoint
    given |= {"model": str(begun), "freeze_encoder": True, "gradient_checkpointing": True}
    process = program(*arguments(videos, tmp_path, max_steps=2, batch_size=1, **given), torchrun=2)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    listener = Listener()
    result = run(videos, tmp_path, listener, resume_from_checkpoint="latest", max_steps=3)
    assert result.step == 3
    assert any("resumed on 1 ranks, not 2" in warning for warning in listener.warnings)
    before, after = weights(begun), weights(result.checkpoint)
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "post_quant_conv"}


def test_a_port_that_is_in_use_is_one_line(videos, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ranks = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        command = [sys.executable, "-m", "vaectl", "train", *arguments(videos, tmp_path, max_steps=1)]
        told = subprocess.run(command, env=ENVIRONMENT | ranks, text=True, capture_output=True, timeout=60)
    assert told.returncode == 2
    last = told.stderr.strip().splitlines()[-1]
    assert last.startswith("error: rank 0: cannot connect to the other processes (")
    assert "in use" in last.lower()
