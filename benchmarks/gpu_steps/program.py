"""Programs that a step starts, which find the same code as the step itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # for deterministic products
    "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent), str(BENCHMARKS.parent / "src"), *sys.path]),
}


def start(module: str, *arguments: str, ranks: int = 0) -> subprocess.Popen[bytes]:
    """Start `python -m module`, or with `ranks` that many of it under torchrun; errors go where the step's go."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
    command = [sys.executable, *torchrun, "-m", module, *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=sys.stderr, stderr=sys.stderr)
