"""Start programs from a step, with the same code on their path."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # for deterministic products
    "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent), str(BENCHMARKS.parent / "src"), *sys.path]),
}


def start(module: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start `python -m module` in the process group of the step; its output goes to the stderr of the step."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT | environment, stdout=sys.stderr, stderr=sys.stderr)


def start_ranks(count: int, module: str, *arguments: str) -> list[subprocess.Popen[bytes]]:
    """Start the ranks of a job, without torchrun, whose workers would outlive a stopped step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    return [start(module, *arguments, **meeting, RANK=str(number), LOCAL_RANK=str(number)) for number in range(count)]
