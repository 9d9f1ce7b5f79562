"""Handle a lost terminal: its window was closed, or the connection was lost."""

from __future__ import annotations

import os


def leave_lost_terminal() -> None:
    """Redirect standard output and error to /dev/null if their terminal is gone, because writing would fail."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
