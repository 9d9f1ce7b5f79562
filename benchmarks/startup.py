"""Measure the startup time of `vaectl`, relative to importing the libraries that it needs.

The processes run in turns; the fastest runs are compared. Goals: the command line takes at most 1.4 times as long as
importing its libraries, and `eval` of one small pair at most 0.4 s longer than `import torch`.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

ROUNDS = 20
JOB_ROUNDS = 6
BASE = "import typer, rich, pydantic"
TORCH = "import torch"
EVAL = "vaectl eval, 64x64"
PROGRAM = "import sys; from vaectl.__main__ import main; sys.exit(main())"
Case: TypeAlias = tuple[list[str], dict[str, str]]
"""The arguments of Python, and environment variables."""


def completion(shell: str, words: str) -> dict[str, str]:
    """Return the environment in which a shell asks to complete the last of `words`."""
    return {
        "_VAECTL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


CASES: dict[str, Case] = {
    BASE: (["-c", BASE], {}),
    "vaectl --help": (["-c", PROGRAM, "--help"], {}),
    "vaectl reconstruct --help": (["-c", PROGRAM, "reconstruct", "--help"], {}),
    "TAB in bash": (["-c", PROGRAM], completion("bash", "vaectl reconstruct --")),
    "TAB in zsh": (["-c", PROGRAM], completion("zsh", "vaectl reconstruct --")),
    "TAB in fish": (["-c", PROGRAM], completion("fish", "vaectl reconstruct --")),
}


def jobs(folder: Path) -> dict[str, Case]:
    """Write two small clips below `folder`, and return the cases that need PyTorch."""
    import torch

    from vaectl import write_video

    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, torch.randint(0, 256, (17, 3, 64, 64), dtype=torch.uint8), 25)
    a, b = str(folder / "a.mp4"), str(folder / "b.mp4")
    pair = ["-c", PROGRAM, "eval", "--real-video-dir", a, "--generated-video-dir", b, "--num-frames", "17"]
    small = ["--resolution", "64", "--crop-size", "0"]
    return {
        TORCH: (["-c", TORCH], {}),
        "import vaectl": (["-c", "import vaectl"], {}),
        "vaectl --versions": (["-c", PROGRAM, "--versions"], {}),
        "vaectl models": (["-c", PROGRAM, "models"], {}),
        EVAL: ([*pair, *small], {}),
        "vaectl eval, 64x64, psnr,ssim": ([*pair, *small, "--metric", "psnr,ssim"], {}),
        "vaectl eval, 256x256": (pair, {}),
        "vaectl reconstruct, 64x64": (["-c", PROGRAM, "reconstruct", a, str(folder / "out.mp4"), "--overwrite"], {}),
    }


def seconds(case: Case) -> float:
    """Measure the wall time of one process. It may write bytecode: without that, later runs compile again."""
    arguments, variables = case
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | variables
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def fastest(cases: Mapping[str, Case], rounds: int) -> dict[str, float]:
    """Return the seconds of the fastest run of each case. They run in turns, after a run that writes the bytecode."""
    runs = [{name: seconds(case) for name, case in cases.items()} for _ in range(rounds + 1)]
    return {name: min(run[name] for run in runs[1:]) for name in cases}


def show(cases: Mapping[str, Case], rounds: int) -> None:
    """Print the fastest run of each case, relative to the first."""
    times = fastest(cases, rounds)
    base = next(iter(times.values()))
    for name, best in times.items():
        print(f"{name:32} {best * 1e3:6.0f} ms   {best / base:.2f}   {(best - base) * 1e3:+6.0f} ms")
    print()


def main() -> None:
    """Print the tables."""
    show(CASES, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        show(jobs(Path(folder)), JOB_ROUNDS)


if __name__ == "__main__":
    main()
