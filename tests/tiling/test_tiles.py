"""A clip in any tiles and windows gives the result of the whole clip."""

from __future__ import annotations

from copy import deepcopy
from itertools import zip_longest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tiling.models import make_model, video
from tests.tiling.plans import by_windows, through, tiled
from vaectl.models.families.wfvae import WFVAE
from vaectl.tiling.grid import grid
from vaectl.tiling.storage import Place
from vaectl.tiling.stream import executors, reconstruct_windows

# float32 rounding on outputs of order 1; measured up to 1e-5 for one side and 4e-5 for there and back.
TOLERANCE = 1e-4

KINDS = {
    "stride": st.sampled_from([4, 8]),
    "attention": st.booleans(),
    "interpolation": st.sampled_from(["nearest", "trilinear"]),
    "blocks": st.integers(1, 3),
    "connect": st.integers(1, 3),
}
PLACES: list[Place] = ["device", "host", "disk"]


def moments(model: WFVAE, clip: Tensor) -> Tensor:
    posterior = model.encode(clip)
    return torch.cat([posterior.mean, posterior.logvar], dim=1)


@st.composite
def cuttings(draw: st.DrawFn) -> tuple[int, int, int, list[int]]:
    """Draw height and width of a latent, tile size, and window lengths.

    Mostly strips, wide enough for tiles that have a halo on both sides; few enough tiles and windows for a test.
    """
    long, short, tile = draw(st.integers(1, 32)), draw(st.integers(1, 3)), draw(st.integers(1, 16))
    height, width = draw(st.sampled_from([(short, long), (long, short)]))
    tiles = len(grid(height, width, tile))
    windows = draw(st.lists(st.integers(1, 6), min_size=1, max_size=max(1, min(5, 16 // tiles))))
    return height, width, tile, windows


@torch.no_grad()
@settings(deadline=None, max_examples=50)
@given(kind=st.fixed_dictionaries(KINDS), cutting=cuttings(), place=st.sampled_from(PLACES))
def test_encoding_in_tiles_and_windows_gives_the_moments_of_the_whole(kind, cutting, place):
    height, width, tile, lengths = cutting
    model = make_model(**kind)
    stride = model.config.time_compression
    lengths[-1] += (1 - sum(lengths)) % stride
    clip = video(sum(lengths), 8 * height, 8 * width)
    encoder, _ = executors(model, tiled(model, clip, tile, place))
    made = by_windows(encoder, clip, lengths)
    torch.testing.assert_close(made, moments(model, clip), rtol=0, atol=TOLERANCE)


@torch.no_grad()
@settings(deadline=None, max_examples=50)
@given(kind=st.fixed_dictionaries(KINDS), cutting=cuttings(), place=st.sampled_from(PLACES))
def test_decoding_in_tiles_and_windows_gives_the_video_of_the_whole(kind, cutting, place):
    height, width, tile, lengths = cutting
    model = make_model(**kind)
    lengths = lengths[:3]  # a latent frame is 4 or 8 of the video
    latent = torch.randn((1, 2, sum(lengths), height, width), generator=torch.Generator().manual_seed(0))
    expected = model.decode(latent)
    _, decoder = executors(model, tiled(model, expected, tile, place))
    torch.testing.assert_close(by_windows(decoder, latent, lengths), expected, rtol=0, atol=TOLERANCE)


@torch.no_grad()
@settings(deadline=None, max_examples=30)
@given(
    kind=st.fixed_dictionaries(KINDS),
    height=st.integers(1, 30),
    width=st.integers(1, 200),
    tile=st.integers(4, 12),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_a_clip_of_any_length_and_size_comes_back_as_without_tiles(kind, height, width, tile, lengths):
    model = make_model(**kind)
    clip = video(sum(lengths), height, width)
    made = through(model, clip, lengths, tiled(model, clip, tile))
    expected = model.reconstruct(clip)
    assert expected.shape == clip.shape
    bound = TOLERANCE * max(1.0, expected.abs().max().item())  # it is meant for outputs of order 1
    torch.testing.assert_close(made, expected, rtol=0, atol=bound)


@torch.no_grad()
@pytest.mark.parametrize(("size", "tile"), [(6, 1), (22, 8)])
def test_tiles_with_neighbours_on_all_sides(size, tile):
    """Down to one latent position; and in a frame with room for the whole halo around the tile in its middle.

    In float64, to show that the differences are only rounding.
    """
    model = deepcopy(make_model()).double()
    clip = video(5, 8 * size, 8 * size).double()
    made = through(model, clip, [1, 4], tiled(model, clip, tile))
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=1e-12)


@torch.no_grad()
def test_windows_of_a_single_frame_and_a_batch_of_clips():
    model = make_model(blocks=2)
    clip = torch.cat([video(10, 24, 64, seed=1), video(10, 24, 64, seed=2)])
    made = through(model, clip, [1] * 10, tiled(model, clip, 4, "disk"))
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_interleaved_clips_through_one_model_do_not_disturb_each_other():
    model = make_model()
    clips = [video(9, 40, 56, seed=1), video(9, 40, 56, seed=2)]
    places: tuple[Place, Place] = ("device", "disk")
    streams = [
        reconstruct_windows(model, clip.split(size, dim=2), tiled(model, clip, tile, place))
        for clip, size, tile, place in zip(clips, (2, 3), (3, 2), places, strict=True)
    ]
    parts: list[list[Tensor]] = [[], []]
    for made in zip_longest(*streams):
        for part, frames in zip(parts, made, strict=True):
            if frames is not None:
                part.append(frames)
    for clip, part in zip(clips, parts, strict=True):
        torch.testing.assert_close(torch.cat(part, dim=2), model.reconstruct(clip), rtol=0, atol=TOLERANCE)
