"""Narrow WF-VAEs of every kind that can be tiled, with weights that give outputs of order 1."""

from __future__ import annotations

from functools import cache

import torch

from tests.models.reference import synthetic_model
from vaectl.models.config import WFVAEConfig
from vaectl.models.families.wfvae import WFVAE

TIME_IN_L1 = {
    "l1_dowmsample_block": "Spatial2xTime2x3DDownsample",
    "l1_downsample_wavelet": "HaarWaveletTransform3D",
    "l1_upsample_block": "Spatial2xTime2x3DUpsample",
    "l1_upsample_wavelet": "InverseHaarWaveletTransform3D",
}


@cache
def make_model(
    *, stride: int = 4, attention: bool = True, interpolation: str = "trilinear", blocks: int = 1, connect: int = 1
) -> WFVAE:
    """Make a model with `stride` frames (4, 8) to a latent frame. `blocks`, `connect`: res-blocks by level and flow."""
    config = WFVAEConfig(
        latent_dim=2,
        base_channels=4,
        encoder_num_resblocks=blocks,
        encoder_energy_flow_hidden_size=4,
        decoder_num_resblocks=blocks,
        decoder_energy_flow_hidden_size=4,
        use_attention=attention,
        norm_type="layernorm",
        t_interpolation=interpolation,
        connect_res_layer_num=connect,
        **(TIME_IN_L1 if stride == 8 else {}),
    )
    model = synthetic_model(config.to_json())
    assert isinstance(model, WFVAE)
    assert model.config.time_compression == stride
    return model


def video(num_frames: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((1, 3, num_frames, height, width), generator=torch.Generator().manual_seed(seed)) * 2 - 1
