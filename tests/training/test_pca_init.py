"""A model that begins as a linear transform: what it gives before it has learnt anything."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.runs import NANO
from vaectl.errors import UsageError, VaectlError
from vaectl.models import build_model, load_model
from vaectl.models.config import WFVAEConfig
from vaectl.models.wfvae import WFVAE
from vaectl.training.network import AutoEncoder
from vaectl.training.pca_init import linear_start, principal_components, wavelet_blocks
from vaectl.video.clip import batch_to_video

SMALL = {**NANO, "latent_dim": 6, "base_channels": 24, "use_attention": False}
SMALL |= {"encoder_energy_flow_hidden_size": 24, "decoder_energy_flow_hidden_size": 26}

FLOWS_32 = {"encoder_energy_flow_hidden_size": 32, "decoder_energy_flow_hidden_size": 32}


def model_of(**given: Any) -> WFVAE:
    torch.manual_seed(5)
    config = {name: value for name, value in {**SMALL, **given}.items() if name != "_class_name"}
    return build_model(WFVAEConfig(**config)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Smooth colours that drift: (12, 9, 3, 48, 48) uint8."""
    generator = torch.Generator().manual_seed(2)
    speed, phase, wave = (torch.rand(12, 1, 3, 1, 1, generator=generator) for _ in range(3))
    t, y, x = (
        torch.arange(n).float().reshape([-1 if i == axis else 1 for i in range(5)])
        for axis, n in ((1, 9), (3, 48), (4, 48))
    )
    colours = torch.sin(speed * t / 2 + 0.15 * wave * y + 0.1 * (1 - wave) * x + 6 * phase)
    return (colours * 90 + 128).byte()


@pytest.fixture(scope="module")
def started(clips: Tensor) -> WFVAE:
    model = model_of()
    linear_start(model, clips)
    return model


def error(model: WFVAE, video: Tensor) -> float:
    return (model.reconstruct(video) - video).square().mean().item()


def test_it_reconstructs_before_it_is_trained(started, clips):
    """With 6 numbers for 768 values: 5 times nearer than the mean of each block of all, and new models are nowhere."""
    video = batch_to_video(clips)
    assert error(started, video) < 0.05 * video.var().item()
    assert error(model_of(), video) > 0.5 * video.var().item()


def test_the_latents_are_the_principal_components(started, clips):
    """Up to what the norm bends: their scale by some percent."""
    video = batch_to_video(clips)
    matrix, offset = principal_components(started, [video])
    posterior = started.encode(video)
    mean = posterior.mean.permute(0, 2, 3, 4, 1).flatten(0, 3)
    expected = wavelet_blocks(started, video) @ matrix.T + offset
    torch.testing.assert_close(expected.std(0), torch.ones(6), rtol=1e-3, atol=0)
    # Blocks have no neighbours in the encoder, and position by position they agree.
    assert (mean - expected).abs().mean() < 0.08
    for one, other in zip(mean.T, expected.T, strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.99
    assert (posterior.logvar == -9).all()


def test_wavelet_blocks_hold_all_that_is_smooth(started):
    """Haar wavelets are orthonormal: of blocks that are flat in 2x2 pixels and pairs of frames no energy is lost."""
    coarse = torch.randint(0, 2, (1, 1, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 255
    pairs = coarse.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4).repeat(1, 4, 1, 1, 1)
    video = batch_to_video(torch.cat([pairs[:, :1], pairs], dim=1).byte())
    energy = wavelet_blocks(started, video).reshape(2, 4, -1).square().sum((1, 2))[1]
    assert energy == pytest.approx(video[:, :, 1:].square().sum().item(), rel=2e-3)  # filters rounded to 4 digits


def test_every_weight_that_matters_can_learn(started, clips):
    network = AutoEncoder(started.requires_grad_(), freeze_encoder=False, recompute=False)
    video = batch_to_video(clips[:2])
    optimizer = torch.optim.SGD(started.parameters(), lr=1e-7)
    for _ in range(2):  # the convolutions that are zero learn first, and what lies before them next
        optimizer.zero_grad()
        reconstruction, _, _ = network(video, torch.zeros(2, 6, 3, 6, 6))
        (reconstruction - video).square().sum().backward()
        optimizer.step()
    still = [name for name, p in started.named_parameters() if p.grad is None or not p.grad.any()]
    started.requires_grad_(False)
    assert [name for name in still if not name.endswith("conv_out.conv.bias")] == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base_channels": 16}, "base_channels and energy flows of 24 or more"),
        ({"encoder_energy_flow_hidden_size": 16}, "energy flows of 24 or more"),
        ({"latent_dim": 32}, "at least as many base_channels as latent channels"),
        ({"base_channels": 32, "norm_type": "groupnorm", **FLOWS_32}, "4x8x8 with layernorm alone"),
    ],
)
def test_models_that_it_does_not_fit(given, message, clips):
    with pytest.raises(UsageError, match=message):
        linear_start(model_of(**given), clips)


def test_clips_without_content_are_refused(clips):
    with pytest.raises(VaectlError, match="not all the same"):
        linear_start(model_of(), torch.zeros_like(clips))


def test_the_command(tmp_path, videos):
    import json

    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    run = [sys.executable, "-m", "vaectl.training.pca_init", str(tmp_path / "config.json"), str(tmp_path / "out")]
    small = ["--video-path", str(videos), "--clips", "4", "--num-frames", "5", "--resolution", "32"]
    small += ["--crop-size", "16", "--sample-rate", "1"]
    done = subprocess.run([*run, *small], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert load_model(tmp_path / "out").config.latent_channels == 6
    again = subprocess.run([*run, *small], capture_output=True, text=True, timeout=120, check=False)
    assert (again.returncode, again.stderr) == (
        1,
        f"error: {tmp_path / 'out'}: exists already; give another directory\n",
    )
