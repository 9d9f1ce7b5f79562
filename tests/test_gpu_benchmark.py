"""benchmarks/gpu.py on the CPU: every step runs, one that fails or hangs does not stop the others, all is written."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = ROOT / "benchmarks" / "gpu.py"


def examine(out: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PROGRAM, "--device", "cpu", "--out", out, *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.slow
def test_every_step_runs_on_tiny_shapes(tmp_path):
    done = examine(tmp_path, "--minutes", "5")  # far more than it takes, so that a slow machine leaves nothing out
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(path.is_file() for path in tmp_path.iterdir())
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()] == rows
    assert {row["status"] for row in rows} == {"measured", "passed", "left out"}
    assert not [row for row in rows if row.get("reason") == "no time left"]
    reasons = {row["name"]: row["reason"] for row in rows if row["status"] == "left out"}
    assert reasons["GPU"] == "no CUDA GPU is used"
    passed = {row["step"] for row in rows if row["status"] == "passed"}
    assert passed == {"numbers", "memory", "speed", "wan", "metrics", "training", "commands", "ranks"}
    table = (tmp_path / "results.md").read_text()
    assert table.count("\n## ") == 10
    assert "| two ranks over gloo |" in table


def test_the_steps_need_few_packages():
    """Not PyAV, lpips, scikit-image, torchvision, tensorboard or what tests use."""
    absent = ("av", "lpips", "skimage", "torchvision", "tensorboard", "hypothesis", "PIL")
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({absent}))
import gpu
for name in (*gpu.STEPS, "train_clips"):
    importlib.import_module(f"gpu_steps.{{name}}")
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROGRAM.parent, check=True)


def test_a_step_that_hangs_or_fails_is_one_row_and_the_next_one_runs(tmp_path, monkeypatch):
    gpu = load(monkeypatch)
    monkeypatch.setattr(gpu, "__file__", str(program(tmp_path / "steps.py")))
    (tmp_path / "results.jsonl").touch()
    begun = time.monotonic()
    for step, seconds in (("hangs", 1.0), ("fails", 30.0), ("works", 30.0)):
        gpu.in_own_process(step, "cpu", tmp_path, seconds)
    assert time.monotonic() - begun < 15
    hangs, fails, works = gpu.read_rows(tmp_path)
    after = "; later cases were not run"
    assert (hangs["status"], hangs["reason"]) == ("failed", f"stopped after 1 s: a long case{after}")
    assert (fails["status"], fails["reason"]) == ("failed", f"ended with status 3; see fails.log{after}")
    assert works["status"] == "measured"


def test_the_most_important_steps_get_time_first(tmp_path, monkeypatch):
    gpu, given = load(monkeypatch), {}
    monkeypatch.setattr(gpu, "in_own_process", lambda step, _device, _out, seconds: given.update({step: seconds}))
    monkeypatch.setattr(gpu, "write_results", lambda _out: True)
    gpu.run_steps([*gpu.STEPS], "cpu", tmp_path, time.monotonic() + 480)
    assert list(given) == [*gpu.STEPS]
    assert min(given.values()) > gpu.STARTING
    given.clear()
    clock = iter((0.0, 4.5, *[9.0] * 9))
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(clock))
    gpu.run_steps([*gpu.STEPS], "cpu", tmp_path, 10.0)
    assert given == {"machine": gpu.STARTING, "numbers": gpu.STARTING}
    assert [row["reason"] for row in gpu.read_rows(tmp_path)] == ["no time left"] * 9


def test_a_line_that_a_full_disk_has_torn_is_no_row(tmp_path, monkeypatch):
    (tmp_path / "results.jsonl").write_text('{"step": "numbers"}\n{"step": "mem')
    assert load(monkeypatch).read_rows(tmp_path) == [{"step": "numbers"}]


def load(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    spec = importlib.util.spec_from_file_location("gpu_benchmark", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(path: Path) -> Path:
    """Takes the place of the process of a step."""
    path.write_text("""
import subprocess, sys, time
step = sys.argv[sys.argv.index("--steps") + 1]
for line in ("case: a short case", "no case runs", "case: a long case"):
    print(line, file=sys.stderr, flush=True)
if step == "hangs":
    subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])
sys.exit(3 if step == "fails" else 0)
""")
    return path


def test_a_case_that_fails_or_lacks_memory_or_time_is_a_row(tmp_path, monkeypatch):
    import torch

    load(monkeypatch)
    from gpu_steps.context import Context

    def context(seconds: float) -> Context:
        return Context(torch.device("cpu"), True, time.monotonic() + seconds, 5.0, tmp_path / "rows", "numbers")

    def lacks_memory():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmuch")

    def fails():
        return {"made": 1 / 0}

    now = context(60)
    now.case("lacks memory", lacks_memory)
    now.case("lacks memory that was planned", lacks_memory, must_fit=True)
    now.case("fails", fails)
    now.case("is wrong", lambda: {"difference": float("inf"), "passed": False})
    now.case("is long", fails, seconds=100)
    context(4).case("is late", fails)
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [(row["status"], row.get("reason")) for row in rows] == [
        ("left out", "too little memory: CUDA out of memory. Tried to allocate"),
        ("failed", "OutOfMemoryError: CUDA out of memory. Tried to allocate"),
        ("failed", "ZeroDivisionError: division by zero"),
        ("failed", None),
        ("left out", "no time left"),
        ("left out", "no time left"),
    ]
    assert rows[3]["values"] == {"difference": "inf"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda"], "error: device cuda: PyTorch sees no CUDA GPU here"),
        (["--device", "cuda:99999"], "argument --device: invalid device value: 'cuda:99999'"),
        (["--minutes", "nan"], "argument --minutes: invalid minutes value: 'nan'"),
        (["--minutes", "0"], "argument --minutes: invalid minutes value: '0'"),
        ([], "holds results; give another --out"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_touched(tmp_path, arguments, message):
    (tmp_path / "results.jsonl").write_text("{}\n")
    done = examine(tmp_path, *arguments, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "results.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_writes_the_results(tmp_path, number):
    command = [sys.executable, PROGRAM, "--device", "cpu", "--out", tmp_path / "out", "--steps", "machine", "training"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not process.stdout.readline().startswith("machine"):
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads((tmp_path / "out" / "results.json").read_text())
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "out")], capture_output=True, text=True).stdout
    assert not left


@pytest.mark.parametrize("where", ["| head -1", "> /dev/full"])
def test_output_that_nobody_takes_stops_nothing(tmp_path, where):
    command = f"'{sys.executable}' '{PROGRAM}' --device cpu --out '{tmp_path}/out' --steps machine {where}"
    subprocess.run(["bash", "-c", command], check=True, capture_output=True)
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert rows[-1]["name"] == "the whole step"
    assert rows[-1]["status"] == "measured"
