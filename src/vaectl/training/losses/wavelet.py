"""How far the wavelet coefficients that a WF-VAE's decoder predicts are from those that its encoder took."""

from __future__ import annotations

from torch import Tensor

Coefficients = tuple[Tensor, ...]


def wavelet_loss(taken: Coefficients, predicted: Coefficients) -> Tensor:
    """Absolute differences summed over both levels, in float32, mean over clips; a scalar.

    Each pair holds level 1 and level 2, (B, C, T, H, W), the `features` of WF-VAE (Li et al.
    2024).
    """
    distances = [(c.float() - predicted_c.float()).abs().sum() for c, predicted_c in zip(taken, predicted, strict=True)]
    return sum(distances[1:], distances[0]) / taken[0].shape[0]
