"""Measure vaectl on a GPU in one command: numbers, memory limits, speed, kernels, metrics, training, profile, ranks.

    python benchmarks/gpu.py [--minutes 8] [--out DIRECTORY] [--device cuda]

The steps run in order of importance, each in its own process with a share of the remaining time. Results are written at
once: DIRECTORY/results.jsonl has a line for each case, and after every step results.json and results.md have all of
them. A step that fails or hangs does not stop the next, and the command ends in time.

It needs this repository, PyTorch 2.4 or newer, NumPy, SciPy, safetensors, einops, rich, typer and pydantic, and no
network. Cases that need PyAV, lpips, diffusers, Triton, an installed vaectl or the sample clips (`make samples`) are
skipped and named if these are missing. `--device cpu --minutes 1` runs the same steps on tiny shapes. The exit status
is 1 if a check or a step failed, 2 for wrong arguments, 130 after an interrupt.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "benchmarks")]

from gpu_steps.console import Row, add_row, running_case, say, shown  # noqa: E402

RESULTS = "results.jsonl"
STEPS = {
    "machine": 1,
    "numbers": 8,
    "memory": 3,
    "speed": 8,
    "kernels": 1,
    "wan": 4,
    "metrics": 1,
    "training": 6,
    "profile": 1,
    "commands": 5,
    "ranks": 2,
}
"""The steps in order of importance, with their share of the remaining time."""
STARTING = 4.0
"""Extra seconds of each step, to import PyTorch and to initialize the GPU."""
ENDING = 5.0
"""Seconds before its end in which a step starts no short case; for a short step, a sixth of its time."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=minutes, default=8.0, help="how long all steps may take (default: 8)")
    parser.add_argument("--out", type=Path, help="a new folder for the results (default: gpu-results/ and the time)")
    parser.add_argument("--device", default="auto", type=device, help="auto, cuda, cuda:N or cpu (default: auto)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=[*STEPS], help="run these steps alone")
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)  # makes this process run one step
    arguments = parser.parse_args()
    out: Path = arguments.out or Path("gpu-results") / time.strftime("%Y-%m-%dT%H-%M-%S")
    if arguments.seconds is not None:
        return run_step(arguments.steps[0], arguments.device, out, arguments.seconds)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop_like_ctrl_c)
    try:
        return examine(list(dict.fromkeys(arguments.steps)), arguments.device, out, begun + 60 * arguments.minutes)
    except KeyboardInterrupt:
        if (out / RESULTS).is_file():
            write_results(out)
        return 130


def examine(steps: list[str], device: str, out: Path, deadline: float) -> int:
    """Run the steps. Returns the exit status."""
    from vaectl.errors import UsageError
    from vaectl.models.device import choose_device

    try:
        chosen = str(choose_device(device))
        out.mkdir(parents=True, exist_ok=True)
        (out / RESULTS).touch(exist_ok=False)
    except FileExistsError:
        print(f"error: {out}: is a file, or holds results; give another --out", file=sys.stderr)
        return 2
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if chosen == "cpu" and device == "auto":
        say("PyTorch sees no CUDA GPU here: the steps run on the CPU, on tiny shapes")
    run_steps(steps, chosen, out, deadline)
    rows = read_rows(out)
    written = write_results(out)
    say(f"written: {out / 'results.md'}, results.json and {RESULTS}" if written else "not everything was written")
    return int(not written or any(row["status"] == "failed" for row in rows))


def minutes(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 1440:
        raise ValueError
    return value


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text):
        raise ValueError
    return text


def stop_like_ctrl_c(_number: int, _frame: object) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def run_steps(steps: list[str], device: str, out: Path, deadline: float) -> None:
    """Run the steps one after the other, and write all results after each."""
    for i, step in enumerate(steps):
        left = steps[i:]
        remaining = deadline - time.monotonic()
        if remaining < STARTING:
            report(out, step, "left out", reason="no time left")
            continue
        share = STEPS[step] / sum(STEPS[later] for later in left)
        seconds = STARTING + share * max(0.0, remaining - len(left) * STARTING)
        try:
            in_own_process(step, device, out, min(seconds, remaining))
        except OSError as error:
            report(out, step, "failed", reason=f"could not be started: {error}")
        write_results(out)


def in_own_process(step: str, device: str, out: Path, seconds: float) -> None:
    """Run a step, and end it when its time is over. A failure of the step is a row of its own."""
    command = [sys.executable, __file__, "--steps", step, "--device", device, "--out", str(out)]
    log, begun = out / f"{step}.log", time.monotonic()
    with (
        TemporaryDirectory(prefix="gpu-step-", ignore_cleanup_errors=True) as scratch,
        log.open("w", encoding="utf-8") as errors,
    ):
        process = subprocess.Popen(
            [*command, "--seconds", str(seconds)],
            stderr=errors,
            start_new_session=True,
            env=os.environ | {"TMPDIR": scratch},
        )
        try:
            status = process.wait(max(0.1, seconds))
            reason = f"ended with status {status}; see {log.name}" if status else None
        except subprocess.TimeoutExpired:
            case = running_case(log)
            reason = f"stopped after {seconds:.0f} s: {case}" if case else None
        finally:
            stop(process)
    if reason:
        report(out, step, "failed", reason=f"{reason}; later cases were not run")
    else:
        report(out, step, "measured", values={"seconds": time.monotonic() - begun})


def report(out: Path, step: str, status: str, **more: Any) -> None:
    """Add the row of a whole step."""
    row: Row = {"step": step, "name": "the whole step", "status": status, **more}
    add_row(out / RESULTS, row)
    if "reason" in row:
        say(f"{step:10} {status:9} {row['reason']}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a step and its child processes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_step(step: str, device: str, out: Path, seconds: float) -> int:
    """Run the cases of a step, in its process, until `seconds` are over."""
    end = time.monotonic() + seconds
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    from vaectl.memory import expand_segments

    expand_segments()  # as the commands do
    import torch

    from gpu_steps.context import Context
    from vaectl.models.device import choose_device

    torch.set_grad_enabled(False)
    place = choose_device(device)
    tiny = place.type != "cuda"
    if tiny:
        torch.set_num_threads(1)  # on tiny shapes more threads are slower
    else:
        torch.cuda.set_device(place.index or 0)  # events are recorded on the current device
    context = Context(place, tiny, end, min(ENDING, seconds / 6), out / RESULTS, step)
    importlib.import_module(f"gpu_steps.{step}").run(context)
    return 0


def end_with_parent(parent: int) -> None:
    """End this step and its child processes when its parent is killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


def read_rows(out: Path) -> list[Row]:
    """Return the rows so far, without a truncated line, which a full disk leaves."""
    rows = []
    for line in (out / RESULTS).read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def write_results(out: Path) -> bool:
    """Write all rows as a JSON list, and as a Markdown table for each step. Returns False if that fails."""
    rows = read_rows(out)
    try:
        (out / "results.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        (out / "results.md").write_text("\n".join(markdown(rows)), encoding="utf-8")
    except OSError as error:
        say(f"{out}: results.json and results.md are not written: {error.strerror}")
        return False
    return True


def markdown(rows: list[Row]) -> list[str]:
    """Build a heading for each step, and a table for each group of rows with the same columns."""
    lines: list[str] = []
    for step, group in groupby(rows, key=lambda row: row["step"]):
        lines += [f"## {step}", ""]
        columns: list[str] | None = None
        for row in group:
            if columns is None or (row.get("values") and [*row["values"]] != columns):
                lines += [""] if columns is not None else []
                columns = [*row.get("values", {})]
                lines += [f"| {' | '.join(['case', *columns, 'status'])} |", "|---" * (len(columns) + 2) + "|"]
            values = [shown(row.get("values", {}).get(name, "")) for name in columns]
            status = f"{row['status']}: {row['reason']}" if "reason" in row else row["status"]
            cells = (cell.replace("|", "/").replace("\n", " ") for cell in (row["name"], *values, status))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


if __name__ == "__main__":
    sys.exit(main())
