"""How far a reconstruction is from its original, value by value, and the likelihood made of it. Knows no network."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

LossType = Literal["l1", "l2"]


def pixel_errors(x_BCTHW: Tensor, y_BCTHW: Tensor, loss_type: LossType) -> Tensor:
    """|x - y|, or its square for "l2", in float32: shape of the clips."""
    difference = x_BCTHW.float() - y_BCTHW.float()
    return difference.abs() if loss_type == "l1" else difference.square()


def negative_log_likelihood(errors_BCTHW: Tensor, logvar: float) -> Tensor:
    """errors / exp(logvar) + logvar, summed over C, H and W of each frame, mean over frames and clips; a scalar.

    That of a Laplace distribution of scale exp(logvar) around the reconstruction, up to constants (for squared errors:
    of a normal one); Esser et al. 2021, "Taming Transformers for High-Resolution Image Synthesis", in its code.
    """
    nll = errors_BCTHW / math.exp(logvar) + logvar
    return nll.sum(dim=(1, 3, 4)).mean()
