"""Measure the startup time of `vaectl`, relative to importing the libraries of its command line.

The processes run in turns; the ratio of the fastest runs is printed. The goal is at most 1.5.
"""

import os
import subprocess
import sys
import time

ROUNDS = 20
BASE = "import typer, rich, pydantic"
PROGRAM = "import sys; from vaectl.cli.app import main; sys.exit(main())"


def completion(shell: str, words: str) -> dict[str, str]:
    """Return the environment in which a shell asks to complete the last of `words`."""
    return {
        "_VAECTL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


CASES: dict[str, tuple[list[str], dict[str, str]]] = {
    BASE: (["-c", BASE], {}),
    "vaectl --help": (["-c", PROGRAM, "--help"], {}),
    "vaectl reconstruct --help": (["-c", PROGRAM, "reconstruct", "--help"], {}),
    "TAB in bash": (["-c", PROGRAM], completion("bash", "vaectl reconstruct --")),
    "TAB in zsh": (["-c", PROGRAM], completion("zsh", "vaectl reconstruct --")),
    "TAB in fish": (["-c", PROGRAM], completion("fish", "vaectl reconstruct --")),
}


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """Measure the wall time of one process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=os.environ | environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def main() -> None:
    """Print the table."""
    fastest = dict.fromkeys(CASES, float("inf"))
    for _ in range(ROUNDS):
        for name, case in CASES.items():
            fastest[name] = min(fastest[name], seconds(*case))
    for name, best in fastest.items():
        print(f"{name:30} {best * 1e3:6.0f} ms   {best / fastest[BASE]:.2f}")


if __name__ == "__main__":
    main()
