"""How far a posterior is from N(0, I)."""

from __future__ import annotations

from torch import Tensor

from vaectl.models import Posterior


def kl_divergence(posterior: Posterior) -> Tensor:
    """KL to N(0, I) in float32, summed over the latent of a clip, mean over clips; a scalar."""
    # exp(logvar) reaches exp(20), beyond float16.
    return Posterior(posterior.mean.float(), posterior.logvar.float()).kl().mean()
