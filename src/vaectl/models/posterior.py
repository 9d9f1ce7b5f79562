"""The diagonal Gaussian posterior of the latent of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaectl.transfer import upload


@dataclass(frozen=True, eq=False)
class Posterior:
    """N(mean, exp(logvar)), both (B, C, T, H, W) in latent space."""

    mean: Tensor
    logvar: Tensor
    """Clamped to [-30, 20]."""

    def __repr__(self) -> str:
        kind = str(self.mean.dtype).removeprefix("torch.")
        return f"Posterior(mean and logvar {tuple(self.mean.shape)}, {kind} on {self.mean.device})"

    @classmethod
    def from_moments(cls, moments_BCTHW: Tensor) -> Posterior:
        """Build from the output of an encoder: mean and log-variance, stacked on the channel axis."""
        mean, logvar = moments_BCTHW.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    def mode(self) -> Tensor:
        """Return the most likely latent, the mean."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw a latent from the posterior, (B, C, T, H, W).

        The noise is drawn on the CPU, one latent frame at a time. So a seed gives the same latent on every device and
        for every size of windows.
        """
        b, c, t, h, w = self.mean.shape
        frames = [torch.randn((b, c, h, w), generator=generator) for _ in range(t)]
        noise = torch.stack(frames, dim=2) if frames else torch.empty(b, c, 0, h, w)
        noise = upload(noise, self.mean.device).to(self.mean.dtype)
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """Return the KL divergence to N(0, I), (B,), summed over C, T, H, W (Kingma and Welling 2014, appendix B)."""
        terms = self.mean.pow(2) + self.logvar.exp() - 1.0 - self.logvar
        return 0.5 * terms.sum(dim=(1, 2, 3, 4))
