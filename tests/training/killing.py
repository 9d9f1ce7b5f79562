"""Trains in children that it kills: a program of its own, because nothing may have been computed before a fork.

Usage: python killing.py OPTIONS.json SEED KILLS INSIDE. Each child goes on with the latest checkpoint. The first INSIDE
are killed when a checkpoint is half written, the others after some steps; the last one runs to the end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import vaectl.training.job  # imported once, before all children
from tests.jobs import Listener
from vaectl.options import parse
from vaectl.options.train import TrainOptions
from vaectl.training.resume import underlying
from vaectl.training.run_dir import UNFINISHED, checkpoints


def train(values: dict[str, str]) -> int:
    """In a child: its process number."""
    if child := os.fork():
        return child
    torch.set_num_threads(1)
    given = {**values, "resume_from_checkpoint": "latest"}
    vaectl.training.job.train(parse(TrainOptions, {**underlying(given), **given}), Listener())
    os._exit(0)


def main() -> None:
    values = json.loads(Path(sys.argv[1]).read_text())
    chance, kills, inside = random.Random(int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])
    run = Path(values["ckpt_dir"]) / values["exp_name"]
    killed_inside = 0
    for number in range(kills):
        child = train(values)
        writing = number < inside
        # Steps are counted from the last checkpoint, so that the run comes forward, but not to its end.
        last = max(checkpoints(run), default=0) + chance.randint(1, 8)
        while not (half_written(run) if writing else steps_written(run) >= last):
            if os.waitpid(child, os.WNOHANG)[0]:
                sys.exit("a child ended by itself before it was killed")
        if not writing:
            time.sleep(chance.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed_inside += half_written(run)
    _, status = os.waitpid(train(values), 0)
    print(json.dumps({"inside": killed_inside, "status": status}))


def half_written(run: Path) -> bool:
    return any(run.glob(f"{UNFINISHED}*"))


def steps_written(run: Path) -> int:
    journal = run / "metrics.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


main()
