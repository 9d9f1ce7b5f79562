"""The error of each value of a reconstruction, and the likelihood computed from it. Knows no network."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

LossType = Literal["l1", "l2"]


def pixel_errors(x_BCTHW: Tensor, y_BCTHW: Tensor, loss_type: LossType) -> Tensor:
    """Return |x - y|, or its square for "l2", in float32 and in the shape of the clips."""
    difference = x_BCTHW.float() - y_BCTHW.float()
    return difference.abs() if loss_type == "l1" else difference.square()


def negative_log_likelihood(errors_BCTHW: Tensor, logvar: float) -> Tensor:
    """Return errors / exp(logvar) + logvar, summed over C, H and W of each frame, mean over frames and clips; a scalar.

    Up to constants, this is the likelihood of a Laplace distribution with scale exp(logvar) around the reconstruction
    (of a normal distribution for squared errors); from the code of Esser et al. 2021, "Taming Transformers for
    High-Resolution Image Synthesis".
    """
    nll = errors_BCTHW / math.exp(logvar) + logvar
    return nll.sum(dim=(1, 3, 4)).mean()
