"""Everything about vaectl on a GPU in one command: numbers, memory limits, speed, training, profile, ranks.

    python benchmarks/gpu.py [--minutes 8] [--out DIRECTORY] [--device cuda]

The steps run in order of importance, each in a process of its own with a share of the time that is left. What a step
finds is written at once: DIRECTORY/results.jsonl has a line per case, and after every step results.json and results.md
hold them all. A step that fails or hangs does not stop the next, and the command ends in time.

It needs this repository, PyTorch 2.4 or newer, NumPy, SciPy, safetensors, einops, rich, typer and pydantic, and no
network. Cases that need PyAV, lpips or the sample clips (`make samples`) are left out by name where these are missing.
`--device cpu --minutes 1` runs the same steps on tiny shapes. Exit status: 1 if a check failed, else 0.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "benchmarks")]

Row = dict[str, Any]
"""As `gpu_steps.context` has it, which is not imported here: it imports PyTorch, and a step has to prepare that."""
STEPS = {
    "machine": 1,
    "numbers": 3,
    "memory": 3,
    "speed": 8,
    "training": 3,
    "profile": 1,
    "commands": 3,
    "ranks": 1,
}
"""In order of importance, with the share of each in the time that is left."""
STARTING = 4.0
"""Seconds that each step has on top of its share, to import PyTorch and to find the GPU."""
ENDING = 5.0
"""Seconds before its end in which a step begins no further case; of a short step, a quarter of its time."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="how long all steps may take together (default: 8)")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="where results go (default: gpu-results)")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu (default: auto)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=[*STEPS], help="run these steps alone")
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)  # makes this the process of one step
    arguments = parser.parse_args()
    if arguments.seconds is not None:
        return run_step(arguments.steps[0], arguments.device, arguments.out, arguments.seconds)

    from vaectl.errors import UsageError
    from vaectl.models.placement import choose_device

    try:
        device = str(choose_device(arguments.device))
        arguments.out.mkdir(parents=True, exist_ok=True)
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if device == "cpu" and arguments.device == "auto":
        print("PyTorch sees no CUDA GPU here: the steps run on the CPU, on tiny shapes", flush=True)
    (arguments.out / "results.jsonl").write_text("")
    deadline = time.monotonic() + 60 * arguments.minutes
    try:
        for i, step in enumerate(arguments.steps):
            left = arguments.steps[i:]
            share = STEPS[step] / sum(STEPS[later] for later in left)
            seconds = STARTING + share * (deadline - time.monotonic() - len(left) * STARTING)
            in_own_process(step, device, arguments.out, min(seconds, deadline - time.monotonic()))
            write_results(arguments.out)
    except KeyboardInterrupt:
        write_results(arguments.out)
        return 130
    print(f"written: {arguments.out / 'results.md'}, results.json and results.jsonl")
    return int(any(row["status"] == "failed" for row in read_rows(arguments.out)))


def in_own_process(step: str, device: str, out: Path, seconds: float) -> None:
    """Run a step, and end it when its time is over; what goes wrong with it is a row of its own."""
    command = [sys.executable, __file__, "--steps", step, "--device", device, "--out", str(out)]
    begun = time.monotonic()
    with (out / f"{step}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([*command, "--seconds", str(seconds)], stderr=log, start_new_session=True)
        try:
            status = process.wait(max(0.1, seconds))
            reason = f"ended with status {status}; see {step}.log" if status else None
        except subprocess.TimeoutExpired:
            reason = f"stopped after {seconds:.0f} s: {running_case(out / f'{step}.log')}"
        finally:
            stop(process)
    row = {"step": step, "name": "step", "status": "failed" if reason else "measured"}
    row |= {"reason": reason} if reason else {"values": {"seconds": time.monotonic() - begun}}
    with (out / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    if reason:
        print(f"{step:10} failed    {reason}", flush=True)


def running_case(log: Path) -> str:
    """The case that a step was busy with, by its log."""
    from gpu_steps.context import CASE

    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    cases = [line.removeprefix(CASE) for line in lines if line.startswith(CASE)]
    return cases[-1] if cases else "still starting"


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a step and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_step(step: str, device: str, out: Path, seconds: float) -> int:
    """In the process of a step: its cases, until `seconds` are over."""
    deadline = time.monotonic() + seconds - min(ENDING, seconds / 4)
    from vaectl.memory import expand_segments

    expand_segments()  # as the commands do
    import torch

    from gpu_steps.context import Context
    from vaectl.models.placement import choose_device

    torch.set_grad_enabled(False)
    place = choose_device(device)
    tiny = place.type != "cuda"
    if tiny:
        torch.set_num_threads(1)  # on tiny shapes threads only wait for each other
    context = Context(place, tiny, deadline, out / "results.jsonl", step)
    importlib.import_module(f"gpu_steps.{step}").run(context)
    return 0


def read_rows(out: Path) -> list[Row]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def write_results(out: Path) -> None:
    """All rows as one JSON list, and as a Markdown table for each step."""
    rows = read_rows(out)
    (out / "results.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (out / "results.md").write_text("\n".join(markdown(rows)), encoding="utf-8")


def markdown(rows: list[Row]) -> list[str]:
    """A heading for each step, and a table for each run of rows that have the same columns."""
    from gpu_steps.context import shown

    lines: list[str] = []
    for step, group in groupby(rows, key=lambda row: row["step"]):
        lines += [f"## {step}", ""]
        columns: list[str] | None = None
        for row in group:
            if row["name"] == "step" and row["status"] != "failed":
                continue
            if columns is None or (row.get("values") and [*row["values"]] != columns):
                lines += [""] if columns is not None else []
                columns = [*row.get("values", {})]
                lines += [f"| {' | '.join(['case', *columns, 'status'])} |", "|---" * (len(columns) + 2) + "|"]
            values = [shown(row.get("values", {}).get(name, "")) for name in columns]
            status = f"{row['status']}: {row['reason']}" if "reason" in row else row["status"]
            lines.append(f"| {' | '.join([row['name'], *values, status])} |".replace("\n", " "))
        lines.append("")
    return lines


if __name__ == "__main__":
    sys.exit(main())
