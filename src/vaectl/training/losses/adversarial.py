"""The adversarial losses of discriminator and generator, from logits, and the adaptive weight of the latter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_WEIGHT = 1e6


def hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the loss of the discriminator: 0.5·(mean(relu(1 - real)) + mean(relu(1 + fake))) (Lim and Ye 2017)."""
    return 0.5 * (F.relu(1.0 - real_logits).mean() + F.relu(1.0 + fake_logits).mean())


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Return the loss of the generator: -mean(D(y))."""
    return -fake_logits.mean()


def adaptive_weight(nll: Tensor, generator: Tensor, last_layer: Tensor) -> Tensor:
    """Return ‖∇nll‖ / (‖∇generator‖ + 1e-6), clamped to [0, 1e6], as a scalar without gradient.

    The gradients are taken at `last_layer`, where the weight makes both terms equally strong (Esser et al. 2021,
    equation 7). Keeps the graph for the backward pass.
    """
    nll_gradient, generator_gradient = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].float() for loss in (nll, generator)
    )
    weight: Tensor = nll_gradient.norm() / (generator_gradient.norm() + 1e-6)
    return weight.clamp(0.0, MAX_WEIGHT)
