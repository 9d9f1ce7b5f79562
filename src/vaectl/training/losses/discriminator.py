"""A discriminator that judges overlapping patches of a clip (Isola et al. 2017), in three dimensions.

Layers and names are those of the published training checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn


class PatchGAN3D(nn.Module):
    """Map a clip (B, 3, T, H, W) in [-1, 1] to one logit per patch, (B, 1, t, h, w): high for originals."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 128, 256, 512)
        self.main = nn.Sequential(
            nn.Conv3d(3, widths[0], 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            *conv_block(widths[0], widths[1], stride=2),
            *conv_block(widths[1], widths[2], stride=(1, 2, 2)),
            *conv_block(widths[2], widths[3], stride=(1, 2, 2)),
            *conv_block(widths[3], widths[3], stride=1),
            nn.Conv3d(widths[3], 1, 3, padding=1),
        )
        for layer in self.main:
            if isinstance(layer, nn.Conv3d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm3d):
                nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        logits: Tensor = self.main(x_BCTHW)
        return logits


def conv_block(in_channels: int, out_channels: int, stride: int | tuple[int, int, int]) -> list[nn.Module]:
    """Return convolution, norm, activation and dropout."""
    return [
        nn.Conv3d(in_channels, out_channels, 3, stride, padding=1, bias=False),  # the norm has one
        nn.BatchNorm3d(out_channels),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3),
    ]
