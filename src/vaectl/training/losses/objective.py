"""The weighted sum of the losses, for the generator and for the discriminator.

Knows no optimizer, no step and no device: the training loop moves the module and says whether the adversarial loss is
on. Under autocast, the networks run in its precision; sums and losses are float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vaectl.metrics.lpips import Net, load_lpips
from vaectl.models import Posterior
from vaectl.progress import Progress
from vaectl.training.losses.adversarial import adaptive_weight, generator_loss, hinge_loss
from vaectl.training.losses.discriminator import PatchGAN3D
from vaectl.training.losses.kl import kl_divergence
from vaectl.training.losses.perceptual import perceptual_distances
from vaectl.training.losses.reconstruction import LossType, negative_log_likelihood, pixel_errors
from vaectl.training.losses.wavelet import Coefficients, wavelet_loss


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The weights of the losses. The defaults are the published values."""

    loss_type: LossType = "l1"
    logvar_init: float = 0.0
    perceptual_weight: float = 1.0
    """0: no perceptual network is loaded."""
    lpips_net: Net = "vgg"
    lpips_weights: Path | None = None
    """A file with the weights of the backbone; None: those of the package or of PyTorch's cache."""
    kl_weight: float = 1e-6
    wavelet_loss: bool = True
    wavelet_weight: float = 0.1
    disc_weight: float = 0.5
    """0: there is no discriminator."""


class Objective(nn.Module):
    """The losses of training, with their two networks: LPIPS, which is frozen, and the discriminator.

    Clips x (original) and y (reconstruction) are (B, 3, T, H, W) in [-1, 1]. Both losses return the scalar to minimise
    and its parts by name, detached scalars in float32. Values that are not finite are returned as they are.
    """

    def __init__(self, config: ObjectiveConfig, progress: Progress | None = None) -> None:
        """`progress` shows downloads. Raises VaectlError if the weights of LPIPS are not available."""
        super().__init__()
        self.config = config
        wanted = config.perceptual_weight > 0
        self.lpips = load_lpips(config.lpips_net, config.lpips_weights, progress) if wanted else None
        self.discriminator = PatchGAN3D() if config.disc_weight else None

    def generator_loss(
        self,
        x: Tensor,
        y: Tensor,
        posterior: Posterior,
        coefficients: tuple[Coefficients, Coefficients] | None,
        last_layer: Tensor,
        *,
        adversarial: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return nll + kl_weight·kl + wavelet_weight·wavelet + disc_weight·adaptive_weight·generator, and its parts.

        `coefficients`: wavelet coefficients of encoder and decoder, None for a model without wavelets. `last_layer`:
        the weight of the decoder's last convolution, for the adaptive weight. `adversarial`: whether the last term is
        on.

        Parts: `rec` (mean pixel error), `perceptual` (mean LPIPS), `nll`, `kl`, `wavelet`, and if adversarial
        `generator` and `adaptive_weight`.
        """
        config = self.config
        errors = pixel_errors(x, y, config.loss_type)
        parts = {"rec": errors.mean()}
        if self.lpips is not None:
            distances_BT = perceptual_distances(self.lpips, x, y)
            parts["perceptual"] = distances_BT.mean()
            errors = errors + config.perceptual_weight * distances_BT[:, None, :, None, None]
        parts["nll"] = negative_log_likelihood(errors, config.logvar_init)
        parts["kl"] = kl_divergence(posterior)
        total = parts["nll"] + config.kl_weight * parts["kl"]
        if config.wavelet_loss and coefficients is not None:
            parts["wavelet"] = wavelet_loss(*coefficients)
            total = total + config.wavelet_weight * parts["wavelet"]
        if adversarial and self.discriminator is not None:
            with without_gradients(self.discriminator):
                parts["generator"] = generator_loss(self.discriminator(y).float())
            parts["adaptive_weight"] = adaptive_weight(parts["nll"], parts["generator"], last_layer)
            total = total + config.disc_weight * parts["adaptive_weight"] * parts["generator"]
        return total, {name: part.detach() for name, part in parts.items()}

    def discriminator_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the hinge loss of the discriminator, and its parts. The clips get no gradient.

        Parts: the means `real_logits` and `fake_logits`.
        """
        if self.discriminator is None:
            raise ValueError("an objective with disc_weight 0 has no discriminator")
        real_logits, fake_logits = (self.discriminator(clip.detach()).float() for clip in (x, y))
        loss = hinge_loss(real_logits, fake_logits)
        parts = {"real_logits": real_logits.mean(), "fake_logits": fake_logits.mean()}
        return loss, {name: part.detach() for name, part in parts.items()}


@contextmanager
def without_gradients(network: nn.Module) -> Iterator[None]:
    """Compute no gradients of the parameters of `network` inside the block, only of its input."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
