"""The VAEs of Wan and Qwen-Image compute the numbers of diffusers, in windows and tiles too."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from tests.tiling.plans import through
from vaectl.models import build_model
from vaectl.models.build import FAMILIES
from vaectl.models.context import StreamContext
from vaectl.models.families.wan_config import AutoencoderKLWanConfig
from vaectl.models.vae import AnyVAE
from vaectl.tiling.plan import uniform_plan

from .oracle import diffusers_class
from .synthetic_weights import synthetic_video

pytestmark = pytest.mark.usefixtures("one_thread")

# float32 sums in another order, on outputs of order 1; measured up to 3e-6.
TOLERANCE = {"rtol": 0, "atol": 1e-4}

NARROW: dict[str, Any] = {"base_dim": 8, "z_dim": 4, "latents_mean": [0.1] * 4, "latents_std": [2.0] * 4}
WAN_2_2 = {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16}
PUBLISHED = {
    "Wan 2.1": ("AutoencoderKLWan", NARROW),
    "Wan 2.2": ("AutoencoderKLWan", {**NARROW, "decoder_base_dim": 12, **WAN_2_2, "num_res_blocks": 1}),
    "Qwen-Image": ("AutoencoderKLQwenImage", {**NARROW, "num_res_blocks": 1}),
}
TWO_LEVELS = {**NARROW, "dim_mult": [1, 2], "temperal_downsample": [True], "scale_factor_temporal": 2}
OTHERS = {
    "two levels": ("AutoencoderKLWan", TWO_LEVELS),
    "two levels with shortcuts": ("AutoencoderKLWan", {**TWO_LEVELS, "is_residual": True, "dim_mult": [2, 2]}),
    "all frames, equal widths": (
        "AutoencoderKLWan",
        {**NARROW, "dim_mult": [1, 1, 1], "temperal_downsample": [False, False], "num_res_blocks": 3},
    ),
    "time first": ("AutoencoderKLWan", {**NARROW, "temperal_downsample": [True, True, False], "num_res_blocks": 1}),
    "time first, with shortcuts": (
        "AutoencoderKLWan",
        {**NARROW, "temperal_downsample": [True, False, True], **WAN_2_2, "decoder_base_dim": 4},
    ),
    "Qwen-Image, two levels": ("AutoencoderKLQwenImage", {**NARROW, "dim_mult": [1, 3], "temperal_downsample": [True]}),
}
ALL = {**PUBLISHED, **OTHERS}
each_published = pytest.mark.parametrize("name", PUBLISHED)


@cache
def networks(name: str) -> tuple[AnyVAE, Any]:
    """Return our network and that of diffusers, with the same random weights. Their video leaves [-1, 1]."""
    family, config = ALL[name]
    torch.manual_seed(0)
    theirs = diffusers_class(family)(**config).eval().requires_grad_(False)
    for key, tensor in theirs.state_dict().items():
        if key.endswith("gamma"):  # which are all 1 at first
            tensor.uniform_(0.5, 1.5)
    theirs.decoder.conv_out.weight.mul_(5)
    ours = build_model(FAMILIES[family].config_class.model_validate(dict(theirs.config)))
    ours.load_state_dict(theirs.state_dict())
    return ours.eval().requires_grad_(False), theirs


def video(num_frames: int, height: int = 32, width: int = 48, batch: int = 1) -> Tensor:
    return torch.from_numpy(synthetic_video(f"{num_frames}", (batch, 3, num_frames, height, width)))


def decode(theirs: Any, latent: Tensor) -> Tensor:
    """Decode with diffusers, whose last step, a clamp to [-1, 1], is left out."""
    with patch.object(torch, "clamp", lambda x, **_: x):
        made: Tensor = theirs.decode(latent).sample
    return made


def assert_equal(name: str, given: Tensor, padded: Tensor | None = None) -> None:
    """Assert that both networks agree on a clip; diffusers gets `padded`, if that differs."""
    ours, theirs = networks(name)
    made, wanted = ours.encode(given), theirs.encode(given if padded is None else padded).latent_dist
    torch.testing.assert_close(made.mean, wanted.mean, **TOLERANCE)
    torch.testing.assert_close(made.logvar, wanted.logvar, **TOLERANCE)
    expected = decode(theirs, wanted.mean)
    torch.testing.assert_close(ours.decode(wanted.mean), expected, **TOLERANCE)
    assert made.mean.std() > 0.01
    assert expected.abs().max() > 1


@pytest.mark.parametrize("name", ALL)
def test_names_and_shapes_are_those_of_diffusers(name):
    ours, theirs = networks(name)
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == {
        key: tensor.shape for key, tensor in theirs.state_dict().items()
    }


@pytest.mark.parametrize("frames", [1, 5, 9, 17])
@each_published
def test_moments_and_video_are_those_of_diffusers(name, frames):
    assert_equal(name, video(frames))


@pytest.mark.parametrize("name", OTHERS)
def test_configs_that_nobody_published_too(name):
    assert_equal(name, video(5))


@each_published
def test_entries_of_a_batch_too(name):
    assert_equal(name, torch.cat([video(5), video(9)[:, :, 4:]]))


@pytest.mark.parametrize(("frames", "padded"), [(3, 5), (12, 13)])
@each_published
def test_other_lengths_and_sizes_repeat_the_last_frame_and_the_edges(name, frames, padded):
    given, side = video(frames, 37, 53), networks(name)[0].config.space_compression
    axes = zip((padded, -(-37 // side) * side, -(-53 // side) * side), given.shape[2:], strict=True)
    time, rows, columns = (torch.arange(size).clamp(max=real - 1) for size, real in axes)
    assert_equal(name, given, given[:, :, time][..., rows, :][..., columns])
    assert networks(name)[0].reconstruct(given).shape == given.shape


@pytest.mark.parametrize("name", [*PUBLISHED, "two levels with shortcuts"])
def test_windows_and_tiles_give_the_numbers_of_the_whole(name):
    model = networks(name)[0]
    given = video(9, 3 * model.config.space_compression - 5, 37)
    whole = model.reconstruct(given)
    for lengths, tile, place in (([1] * 9, 0, "device"), ([2, 7], 1, "disk"), ([5, 4], 2, "host")):
        plan = uniform_plan(model, *given.shape[2:], tile, 2, place) if tile else None
        torch.testing.assert_close(through(model, given, lengths, plan), whole, **TOLERANCE)


def gradients(model: Any, given: Tensor, *, recompute: bool = False) -> dict[str, Tensor]:
    """Gradients of a random direction of moments and video."""
    moments = model.run_encoder(model.prepare(given), StreamContext(recompute=recompute))[0]
    made = model.run_decoder(moments.chunk(2, dim=1)[0], StreamContext(recompute=recompute))[0]
    return by_name(model, moments, made)


def by_name(model: Any, moments: Tensor, made: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    loss = sum((y * torch.randn(y.shape, generator=generator)).sum() for y in (moments, made))
    parameters = dict(model.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(loss, [*parameters.values()]), strict=True))


@each_published
def test_gradients_are_those_of_diffusers(name):
    ours, theirs = (copy.deepcopy(model).requires_grad_(True) for model in networks(name))
    given = video(9)
    latent = theirs.encode(given).latent_dist
    wanted = by_name(theirs, latent.parameters, decode(theirs, latent.mean))
    made = gradients(ours, given)
    scale = max(gradient.abs().max().item() for gradient in wanted.values())
    for key, gradient in wanted.items():
        # Some are zero up to rounding, for example of the bias of k, which the softmax cancels; measured up to 2e-5.
        allowed = 1e-4 * gradient.abs().max().item() + 1e-6 * scale
        torch.testing.assert_close(made[key], gradient, rtol=0, atol=allowed, msg=lambda m, n=key: f"{n}: {m}")


@each_published
def test_gradient_checkpointing_changes_no_gradient(name):
    model = copy.deepcopy(networks(name)[0]).requires_grad_(True).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        results.append(gradients(model, video(5), recompute=recompute))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_dropout_acts_in_training_alone():
    config = networks("Wan 2.1")[0].config.model_copy(update={"dropout": 0.5})
    model = build_model(config)
    model.load_state_dict(networks("Wan 2.1")[0].state_dict())
    given = video(5)
    assert not torch.equal(model.train().encode(given).mean, model.encode(given).mean)
    assert torch.equal(model.eval().encode(given).mean, networks("Wan 2.1")[0].encode(given).mean)


@pytest.mark.parametrize("dim_mult", [(1, 3, 4, 4), (1, 2, 4, 8), (1, 1, 8, 8)])
def test_shortcuts_that_cannot_be_computed_are_refused(dim_mult):
    config = PUBLISHED["Wan 2.2"][1]
    with pytest.raises(ValueError, match=r"a shortcut of the (en|de)coder cannot"):
        AutoencoderKLWanConfig(**{**config, "dim_mult": dim_mult})


@each_published
def test_bfloat16_is_close(name):
    model, given = networks(name)[0], video(5)
    low = copy.deepcopy(model).bfloat16().reconstruct(given)
    assert low.dtype == torch.float32  # of the last layer
    error = (low - model.reconstruct(given)).square().mean() / model.reconstruct(given).square().mean()
    assert error < 3e-3  # random weights amplify rounding
