"""The two sides of the adversarial game, from logits, and how heavily the generator's side counts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_WEIGHT = 1e6


def hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """What the discriminator minimises: half of mean(relu(1 - real)) + mean(relu(1 + fake)) (Lim and Ye 2017)."""
    return 0.5 * (F.relu(1.0 - real_logits).mean() + F.relu(1.0 + fake_logits).mean())


def generator_loss(fake_logits: Tensor) -> Tensor:
    """What the generator minimises: -mean(D(y))."""
    return -fake_logits.mean()


def adaptive_weight(nll: Tensor, generator: Tensor, last_layer: Tensor) -> Tensor:
    """‖∇nll‖ / (‖∇generator‖ + 1e-6), clamped to [0, 1e6], gradients at `last_layer`; a scalar without gradient.

    It makes both terms pull equally hard at the decoder's last weights (Esser et al. 2021, equation 7). The graph is
    kept for the backward pass.
    """
    nll_gradient, generator_gradient = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].float() for loss in (nll, generator)
    )
    weight: Tensor = nll_gradient.norm() / (generator_gradient.norm() + 1e-6)
    return weight.clamp(0.0, MAX_WEIGHT)
