"""Models that look at the whole clip give, stage by stage, the numbers that they give in one go."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache, reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models.reference import load_reference, synthetic_model
from tests.tiling.models import video
from vaectl.models.context import StreamContext
from vaectl.models.layers import ClipGroupNorm, FrameGroupNorm
from vaectl.models.statistics import Statistics
from vaectl.models.vae import AnyVAE
from vaectl.tiling.executor import Cut
from vaectl.tiling.plan import Plan, Side, both_sides, fastest_cut
from vaectl.tiling.storage import Place
from vaectl.tiling.stream import reconstruct_windows

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
KINDS = {
    "v1.1": ("causalvae_class_defaults_narrow", {}),
    "v1.2": ("causalvae_v1_2", {}),
    "res2x": ("causalvae_res2x", {}),
    "WF-VAE": ("wfvae_class_defaults_narrow", {}),
    "WF-VAE, reshaped attention": (
        "wfvae_class_defaults_narrow",
        {"attention_type": "AttnBlock3D", "t_interpolation": "trilinear", "connect_res_layer_num": 2},
    ),
    "WF-VAE 8x8x8": (
        "wfvae_8x8x8",
        {
            "norm_type": "groupnorm",
            "base_channels": 32,
            "encoder_energy_flow_hidden_size": 32,
            "decoder_energy_flow_hidden_size": 32,
        },
    ),
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


def plan_for(model: AnyVAE, clip: Tensor, place: Place, *, most: int = 0, cut: Callable[[], Cut] | None = None) -> Plan:
    """A plan for a clip of any size, in pieces of `most` bytes at most or in those that `cut` gives."""
    _, _, *size = clip.shape

    def cuts(side: Side) -> tuple[Cut, ...]:
        numbers = range(len(side.groups))
        return tuple(cut() if cut else fastest_cut(side, n, [2, 1], most, place)[0] for n in numbers)

    encoder, decoder = both_sides(model, *size)
    return Plan((*size,), 2, place, cuts(encoder), cuts(decoder))


def through(model: AnyVAE, clip: Tensor, lengths: list[int], plan: Plan) -> Tensor:
    return torch.cat([*reconstruct_windows(model, clip.split(lengths, dim=2), plan)], dim=2)


@settings(deadline=None, max_examples=15)
@given(
    kind=st.sampled_from(sorted(SMALL)),
    rows=st.integers(1, 7),
    width=st.integers(1, 20),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    place=st.sampled_from(["device", "disk"]),
    data=st.data(),
)
def test_stages_cut_in_any_way_give_the_whole(kind, rows, width, lengths, place, data):
    model = make_model(kind)
    clip = video(sum(lengths), model.config.space_compression * rows - data.draw(st.integers(0, 3)), width)
    tiles, windows = st.integers(1, max(rows, width)), st.integers(1, sum(lengths))

    def cut() -> Cut:
        return Cut(data.draw(tiles), data.draw(windows))

    made = through(model, clip, lengths, plan_for(model, clip, place, cut=cut))
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("place", ["device", "disk"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_gives_the_whole(kind, place):
    """In the smallest pieces, or in such as fit a limit that cuts high resolutions only."""
    model = make_model(kind)
    clip = video(6, 20, 40)
    plan = plan_for(model, clip, place, most={"device": 2**20, "disk": 0}[place])
    made = through(model, clip, [1, 5], plan)
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["attention at 8x8", "WF-VAE, reshaped attention"])
def test_differences_are_nothing_but_rounding(kind):
    model = deepcopy(make_model(kind)).double()
    clip = video(9, 48, 16).double()
    made = through(model, clip, [9], plan_for(model, clip, "device"))
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=1e-11)


def test_each_group_is_reported():
    model, clip = make_model("v1.2"), video(5, 16, 16)
    plan, reported = plan_for(model, clip, "device"), list[int]()
    for _ in reconstruct_windows(model, [clip], plan, report=reported.append):
        pass
    # The decoder's first group begins when it asks the encoder for its latents.
    assert sorted(reported) == list(range(len(plan.encoder) + len(plan.decoder)))


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
    plan = plan_for(model, clip, "disk")
    made = through(model, clip, [2, 3], plan)
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=TOLERANCE)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    pieces = reconstruct_windows(model, [clip], plan, sample=True, generator=generator())
    expected = model.reconstruct(clip, sample=True, generator=generator())
    torch.testing.assert_close(torch.cat([*pieces], dim=2), expected, rtol=0, atol=TOLERANCE)
    assert (expected - made).abs().max() > 0.01

    half = deepcopy(model).bfloat16()
    made = through(half, clip, [5], plan_for(half, clip, "disk")).float()
    exact = model.reconstruct(clip)
    loss = (half.reconstruct(clip).float() - exact).square().mean()
    assert (made - exact).square().mean() < 2 * loss
