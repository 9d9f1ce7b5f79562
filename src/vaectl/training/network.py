"""The auto-encoder for training: one forward pass from a batch of clips to all inputs of the losses.

It is one module with one `forward`, because DDP and `torch.compile` wrap a module. Knows no loss and no optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaectl.geometry import latent_frames
from vaectl.models.config import FamilyConfig
from vaectl.models.context import StreamContext
from vaectl.models.posterior import Posterior
from vaectl.models.vae import AnyVAE
from vaectl.rng import seed_of

Features = tuple[Tensor, ...]
Output = tuple[Tensor, Posterior, tuple[Features, Features] | None]
"""The reconstruction, the posterior, and the `features` of encoder and decoder if the model has any."""


class AutoEncoder(nn.Module):
    """Map clips (B, 3, T, H, W) in [-1, 1] and standard normal noise of the latent's shape to an `Output`."""

    def __init__(self, model: AnyVAE, *, freeze_encoder: bool, recompute: bool) -> None:
        """`recompute`: gradient checkpointing, which saves memory and computes activations twice."""
        super().__init__()
        self.model = model
        self.freeze_encoder, self.recompute = freeze_encoder, recompute

    def forward(self, x_BCTHW: Tensor, noise_BCTHW: Tensor) -> Output:
        names = self.model.features
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            moments, features = self.model.run_encoder(x_BCTHW, StreamContext(recompute=self.recompute), names)
        posterior = Posterior.from_moments(moments.float())
        z = posterior.mean + torch.exp(0.5 * posterior.logvar) * noise_BCTHW
        z = z.contiguous(memory_format=torch.channels_last_3d)
        y, predicted = self.model.run_decoder(z, StreamContext(recompute=self.recompute), names)
        return y, posterior, (features, predicted) if names else None


def trained_parameters(model: AnyVAE, *, freeze_encoder: bool) -> list[nn.Parameter]:
    """Return the trained parameters. A frozen encoder needs no gradients and is in evaluation mode: without dropout."""
    model.train().requires_grad_(True)
    for module in model.encoder_modules() if freeze_encoder else []:
        module.eval().requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def latent_noise(config: FamilyConfig, clips: Sequence[int], num_frames: int, resolution: int, seed: int) -> Tensor:
    """Return standard normal noise (B, C, t, h, w) that depends only on the seed and the number of each clip.

    So the rank and the batch of a clip do not matter. Clip numbers continue over the epochs.
    """
    side = resolution // config.space_compression
    shape = (config.latent_channels, latent_frames(num_frames, config.time_compression), side, side)
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed_of(seed, "noise", clip))) for clip in clips]
    )
