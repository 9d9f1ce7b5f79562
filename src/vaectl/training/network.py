"""The auto-encoder as training calls it: a batch of clips to all that the objective asks for, in one forward pass.

One module with one `forward`, because that is what DDP and `torch.compile` wrap. Knows no loss and no optimizer.
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
"""The reconstruction, the posterior, and the encoder's and the decoder's `features` if the model has any."""


class AutoEncoder(nn.Module):
    """Clips (B, 3, T, H, W) in [-1, 1] with standard normal noise of the latent's shape, to an `Output`."""

    def __init__(self, model: AnyVAE, *, freeze_encoder: bool, recompute: bool) -> None:
        """`recompute`: keep less of the forward pass, and compute it again for the gradients."""
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
    """The parameters that learn; those of a frozen encoder are marked so."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (freeze_encoder and name.startswith(("encoder.", "quant_conv."))))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def latent_noise(config: FamilyConfig, clips: Sequence[int], num_frames: int, resolution: int, seed: int) -> Tensor:
    """Standard normal noise (B, C, t, h, w) that depends on the seed and each clip's number, and on nothing else.

    So neither the rank nor the batch in which a clip comes matters. A clip of a later epoch has a number of its own.
    """
    side = resolution // config.space_compression
    shape = (config.latent_channels, latent_frames(num_frames, config.time_compression), side, side)
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed_of(seed, "noise", clip))) for clip in clips]
    )
