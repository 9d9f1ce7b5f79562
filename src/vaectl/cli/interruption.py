"""The signals that came to stop this run, and what is done where one of them was lost. Knows no command."""

from __future__ import annotations

received: list[int] = []
"""Their numbers, in order."""


def check() -> None:
    """Raise KeyboardInterrupt again if a library has swallowed it: PyTorch 2.4 does, while it looks for NumPy."""
    if received:
        raise KeyboardInterrupt
