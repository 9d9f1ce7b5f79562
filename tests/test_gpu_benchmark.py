"""benchmarks/gpu.py on the CPU: every step runs, one that fails or hangs does not stop the others, all is written."""

from __future__ import annotations

import importlib.util
import json
import os
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
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()] == rows
    assert {row["status"] for row in rows} == {"measured", "passed", "left out"}
    assert not [row for row in rows if row.get("reason") == "no time left"]
    reasons = {row["name"]: row["reason"] for row in rows if row["status"] == "left out"}
    assert reasons["GPU"] == "no CUDA GPU is used"
    passed = {row["step"] for row in rows if row["status"] == "passed"}
    assert passed == {"numbers", "memory", "training", "commands", "ranks"}
    table = (tmp_path / "results.md").read_text()
    assert table.count("\n## ") == 7
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
    assert (hangs["status"], hangs["reason"]) == ("failed", "stopped after 1 s: a long case")
    assert (fails["status"], fails["reason"]) == ("failed", "ended with status 3; see fails.log")
    assert works["status"] == "measured"


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
print("case: a long case", file=sys.stderr, flush=True)
if step == "hangs":
    subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])
sys.exit(3 if step == "fails" else 0)
""")
    return path


def test_a_case_that_fails_or_lacks_memory_or_time_is_a_row(tmp_path, monkeypatch):
    import torch

    load(monkeypatch)
    from gpu_steps.context import Context

    def context(deadline: float) -> Context:
        return Context(torch.device("cpu"), True, deadline, tmp_path / "rows", "numbers")

    def lacks_memory():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmuch")

    def fails():
        return {"made": 1 / 0}

    now = context(time.monotonic() + 60)
    now.case("lacks memory", lacks_memory)
    now.case("fails", fails)
    now.case("is wrong", lambda: {"difference": 1.0, "passed": False})
    context(0.0).case("is late", fails)
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [(row["status"], row.get("reason")) for row in rows] == [
        ("left out", "too little memory: CUDA out of memory. Tried to allocate"),
        ("failed", "ZeroDivisionError: division by zero"),
        ("failed", None),
        ("left out", "no time left"),
    ]


def test_a_gpu_that_is_not_there_is_named(tmp_path):
    done = subprocess.run(
        [sys.executable, PROGRAM, "--device", "cuda", "--out", tmp_path],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: device cuda: PyTorch sees no CUDA GPU here")
