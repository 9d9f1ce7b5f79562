"""The wavelet loss of WF-VAE: compares the coefficients of decoder and encoder (Li et al. 2024)."""

from __future__ import annotations

from torch import Tensor

Coefficients = tuple[Tensor, ...]


def wavelet_loss(encoded: Coefficients, predicted: Coefficients) -> Tensor:
    """Return the absolute differences summed over both levels, in float32, mean over clips; a scalar.

    `encoded` and `predicted`: the coefficients of level 1 and level 2, each (B, C, T, H, W), the `features` of WF-VAE.
    """
    pairs = zip(encoded, predicted, strict=True)
    distances = [(c.float() - predicted_c.float()).abs().sum() for c, predicted_c in pairs]
    return sum(distances[1:], distances[0]) / encoded[0].shape[0]
