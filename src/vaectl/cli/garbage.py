"""Python's garbage collector in the processes that `vaectl` starts: off while libraries are imported, and at exit.

`import torch` creates 270,000 objects, and none of them is garbage. To look through them takes as long as to create
them. So `without_garbage` turns the collector off, and `collect` turns it on before the work begins. A caller that
runs the command line in a process of its own keeps its collector.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage() -> Iterator[None]:
    """Collect no garbage within the block before `collect`, and none when the interpreter exits after it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # the interpreter collects at exit even if the collector is off


def collect() -> None:
    """Collect garbage from now on, if `without_garbage` turned that off, but not among the objects made so far."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
