"""Models that need the whole clip give the same result in any tiles and windows."""

from __future__ import annotations

from copy import deepcopy
from functools import cache, reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.reference import load_reference, synthetic_model
from tests.tiling.models import video
from tests.tiling.plans import plan_of, through, tiled, within
from vaectl.models.context import StreamContext
from vaectl.models.layers import ClipGroupNorm, FrameGroupNorm
from vaectl.models.statistics import Statistics
from vaectl.models.vae import AnyVAE
from vaectl.tiling.executor import Cut
from vaectl.tiling.storage import DiskTensor, OffloadedTensor
from vaectl.tiling.stream import reconstruct_windows
from vaectl.tiling.trace import Side

# float32 rounding on outputs of order 1; measured up to 6e-5.
TOLERANCE = 1e-4

LEVELS = {"hidden_size_mult": [1, 2], "num_res_blocks": 1, "resolution": 16}
TWO_LEVELS = {
    **LEVELS,
    "encoder_resnet_blocks": ["ResnetBlock2D", "ResnetBlock3D"],
    "encoder_spatial_downsample": ["Downsample", "SpatialDownsample2x"],
    "encoder_temporal_downsample": ["TimeDownsample2x", ""],
    "decoder_resnet_blocks": ["ResnetBlock3D", "ResnetBlock2D"],
    "decoder_spatial_upsample": ["Upsample", "SpatialUpsample2x"],
    "decoder_temporal_upsample": ["", "TimeUpsampleRes2x"],
}
NARROW = {"base_channels": 32, "encoder_energy_flow_hidden_size": 32, "decoder_energy_flow_hidden_size": 32}
KINDS = {
    "v1.1": ("causalvae_class_defaults_narrow", {}),
    "v1.2": ("causalvae_v1_2", {}),
    "res2x": ("causalvae_res2x", {}),
    "WF-VAE": ("wfvae_class_defaults_narrow", {}),
    "WF-VAE, reshaped attention": (
        "wfvae_class_defaults_narrow",
        {"attention_type": "AttnBlock3D", "t_interpolation": "trilinear", "connect_res_layer_num": 2},
    ),
    "WF-VAE 8x8x8": ("wfvae_8x8x8", {"norm_type": "groupnorm", **NARROW}),
    "WF-VAE, layernorm, reshaped attention": ("wfvae_4x8x8", {"attention_type": "AttnBlock3D"}),
    "layernorm": ("causalvae_v1_2", {"norm_type": "layernorm"}),
    "attention in levels": ("causalvae_v1_2", {**TWO_LEVELS, "attn_resolutions": [16]}),
    "attention at 8x8": ("causalvae_class_defaults_narrow", {**TWO_LEVELS, "attn_resolutions": [8]}),
}
SMALL = ["attention in levels", "attention at 8x8"]


@cache
def make_model(kind: str) -> AnyVAE:
    name, changes = KINDS[kind]
    model = synthetic_model({**load_reference(name).config, **changes})
    assert not model.streams
    return model


@settings(deadline=None, max_examples=15)
@given(
    kind=st.sampled_from(sorted(SMALL)),
    height=st.integers(1, 26),
    width=st.integers(1, 26),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    place=st.sampled_from(["device", "disk"]),
    data=st.data(),
)
def test_tiles_and_windows_of_any_size_give_the_whole(kind, height, width, lengths, place, data):
    """Different ones for each group. In float64, because a norm over a single position amplifies rounding."""
    model = deepcopy(make_model(kind)).double()
    clip = video(sum(lengths), height, width).double()

    def choose(side: Side, number: int) -> Cut:
        return Cut(data.draw(st.integers(1, max(side.latent))), data.draw(st.integers(1, sum(lengths))))

    made = through(model, clip, lengths, plan_of(model, clip, choose, place))
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=1e-10)


@pytest.mark.parametrize("place", ["device", "disk"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_gives_the_whole(kind, place):
    """In the smallest tiles and windows, or with a limit that cuts only high resolutions."""
    model = make_model(kind)
    clip = video(6, 12, 24)
    plan = plan_of(model, clip, within({"device": 2**20, "disk": 0}[place], place, 6), place)
    made = through(model, clip, [1, 5], plan)
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["attention at 8x8", "WF-VAE, reshaped attention"])
def test_differences_are_nothing_but_rounding(kind):
    model = deepcopy(make_model(kind)).double()
    clip = video(9, 48, 16).double()
    made = through(model, clip, [9], tiled(model, clip, 2))
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=1e-11)


def test_each_group_is_reported_when_it_begins():
    model, clip = make_model("v1.2"), video(5, 16, 16)
    plan, reported = tiled(model, clip, 2), list[int]()
    for _ in reconstruct_windows(model, [clip], plan, report=reported.append):
        pass
    assert reported == [*range(len(plan.encoder) + len(plan.decoder))]


def test_values_far_from_zero_keep_their_variance():
    """The mean of squares minus the square of the mean would be off by all of it."""
    x = torch.randn((2, 64, 3, 8, 4), generator=torch.Generator().manual_seed(0)) + 3000
    rows = [x.permute(0, 2, 3, 4, 1)[:, :, part] for part in (slice(0, 3), slice(3, 4), slice(4, 8))]
    strips = [Statistics.of_frames([Statistics.of(part[:, :1]), Statistics.of(part[:, 1:])]) for part in rows]
    statistics = reduce(Statistics.with_positions, strips)
    norm = ClipGroupNorm(64)
    expected = norm.double()(x.double(), StreamContext()).float()
    made = norm.float()(x, StreamContext(statistics=statistics))
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-3)  # what float32 has left at 3000
    frames = FrameGroupNorm(64)
    one = frames(x[:, :, 1:2], StreamContext(statistics=statistics.frames(1, 2)))
    torch.testing.assert_close(one, frames.double()(x.double(), StreamContext()).float()[:, :, 1:2], rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", SMALL)
def test_a_batch_a_sample_and_half_precision(kind):
    model = make_model(kind)
    clip = torch.cat([video(5, 16, 16, seed=1), video(5, 16, 16, seed=2)])
    plan = tiled(model, clip, 2, "disk")
    made = through(model, clip, [2, 3], plan)
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=TOLERANCE)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    sampled = reconstruct_windows(model, [clip], plan, sample=True, generator=generator())
    expected = model.reconstruct(clip, sample=True, generator=generator())
    torch.testing.assert_close(torch.cat([*sampled], dim=2), expected, rtol=0, atol=TOLERANCE)
    assert (expected - made).abs().max() > 0.01

    half = deepcopy(model).bfloat16()
    made = through(half, clip, [5], tiled(half, clip, 2, "disk")).float()
    exact = model.reconstruct(clip)
    loss = (half.reconstruct(clip).float() - exact).square().mean()
    assert (made - exact).square().mean() < 2 * loss


def test_an_offloaded_tensor_cannot_be_computed_on():
    """Otherwise a layer that gets one instead of a tile would go unnoticed."""
    clip = OffloadedTensor((1, 3, 2, 8, 8), torch.float32, DiskTensor)
    assert clip.shape == (1, 3, 2, 8, 8)
    with pytest.raises(TypeError):
        torch.relu(clip)  # type: ignore[arg-type]


def test_windows_of_no_frames_have_statistics():
    """A later window may have none, where frames are halved or a layer looks ahead."""
    statistics = Statistics.of(torch.zeros(2, 0, 4, 3, 5))
    assert statistics.mean.shape == statistics.squares.shape == (2, 5, 0)
