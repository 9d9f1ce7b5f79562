"""The learning rate of a step, as a pure function: checkpoints need no state of the schedule."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    step: int, base: float, schedule: Literal["constant", "cosine"], warmup_steps: int, steps: int
) -> float:
    """Return the learning rate of `step`, from 1 to `steps`.

    It rises linearly to `base` during the warm-up, then stays constant or falls to almost 0 as a half cosine
    (Loshchilov and Hutter 2017, "SGDR", without restarts). The first step has base / warmup_steps.
    """
    if step <= warmup_steps:
        return base * step / warmup_steps
    if schedule == "constant":
        return base
    fraction = (step - 1 - warmup_steps) / max(1, steps - warmup_steps)
    return base * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))
