"""The learning rate of a step: a pure function, so that nothing of it has to be kept in a checkpoint."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    step: int, base: float, schedule: Literal["constant", "cosine"], warmup_steps: int, steps: int
) -> float:
    """Of step 1, 2, …: rises in a line to `base` over the warm-up, then stays, or falls as a half cosine to 0.

    The first step has base / warmup_steps, the last of `steps` has almost 0 with the cosine (Loshchilov and Hutter
    2017, "SGDR", without restarts).
    """
    if step <= warmup_steps:
        return base * step / warmup_steps
    if schedule == "constant":
        return base
    fraction = (step - 1 - warmup_steps) / max(1, steps - warmup_steps)
    return base * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))
