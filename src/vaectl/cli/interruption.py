"""The signals received so far, and a check for one that a library swallowed. Knows no command."""

from __future__ import annotations

received: list[int] = []
"""Signal numbers, in order."""


def check() -> None:
    """Raise KeyboardInterrupt again if a library swallowed it, as PyTorch 2.4 does while it imports NumPy."""
    if received:
        raise KeyboardInterrupt
