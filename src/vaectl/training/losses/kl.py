"""The KL divergence of a posterior from N(0, I)."""

from __future__ import annotations

from torch import Tensor

from vaectl.models import Posterior


def kl_divergence(posterior: Posterior) -> Tensor:
    """Return the KL divergence to N(0, I) in float32, summed over each latent, mean over clips; a scalar."""
    # exp(logvar) reaches exp(20), which overflows float16.
    return Posterior(posterior.mean.float(), posterior.logvar.float()).kl().mean()
