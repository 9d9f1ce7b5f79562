"""The margin that layers declare is what they reach: never less, and at most one position of their stride more."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.tiling.models import make_model
from vaectl.models import haar, resample
from vaectl.models.blocks import ResnetBlock, ResnetBlock2D, ResnetBlock3D
from vaectl.models.context import HaloSides, StreamContext
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.layers import CausalConv3d, Conv2d, Layer, Sequential
from vaectl.tiling.fusion import FusedSegment, fuse
from vaectl.tiling.plan import both_sides
from vaectl.tiling.trace import value_shapes

# Each layer with its input channels.
LAYERS: dict[str, tuple[Layer, int]] = {
    "Conv2d": (Conv2d(2, 3, 3, padding=1), 2),
    "Conv2d 1x1": (Conv2d(2, 3, 1), 2),
    "CausalConv3d": (CausalConv3d(2, 3, 3, padding=1), 2),
    "CausalConv3d 1x1x1": (CausalConv3d(2, 3, 1), 2),
    "ResnetBlock2D": (ResnetBlock2D(2, 2, "layernorm"), 2),
    "ResnetBlock3D": (ResnetBlock3D(2, 3, "layernorm"), 2),
    "Downsample": (resample.Downsample(2, 3), 2),
    "SpatialDownsample2x": (resample.SpatialDownsample2x(2, 3), 2),
    "Spatial2xTime2x3DDownsample": (resample.Spatial2xTime2x3DDownsample(2, 3), 2),
    "Upsample": (resample.Upsample(2, 3), 2),
    "SpatialUpsample2x": (resample.SpatialUpsample2x(2, 3), 2),
    "Spatial2xTime2x3DUpsample": (resample.Spatial2xTime2x3DUpsample(2, 3, "trilinear"), 2),
    "Spatial2xTime2x3DUpsample nearest": (resample.Spatial2xTime2x3DUpsample(2, 3, "nearest"), 2),
    "TimeDownsample2x": (resample.TimeDownsample2x(), 2),
    "TimeUpsample2x": (resample.TimeUpsample2x(), 2),
    "TimeDownsampleRes2x": (resample.TimeDownsampleRes2x(2), 2),
    "TimeUpsampleRes2x": (resample.TimeUpsampleRes2x(2), 2),
    "HaarWaveletTransform2D": (haar.HaarWaveletTransform2D(), 2),
    "HaarWaveletTransform3D": (haar.HaarWaveletTransform3D(), 2),
    "InverseHaarWaveletTransform2D": (haar.InverseHaarWaveletTransform2D(), 8),
    "InverseHaarWaveletTransform3D": (haar.InverseHaarWaveletTransform3D(), 16),
    "Sequential": (Sequential(Conv2d(2, 2, 3, padding=1), resample.Downsample(2, 3)), 2),
}
MARGINS = (0, 1, 2, 5)
for layer, _ in LAYERS.values():
    layer.double()


def subclasses(kind: type[nn.Module]) -> set[type[nn.Module]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__())) - {Layer, ResnetBlock}


def test_every_layer_is_here():
    assert {type(layer) for layer, _ in LAYERS.values()} == subclasses(Layer)


def assert_reach(
    run: Callable[[Tensor], Tensor],
    channels: int,
    frames: int,
    tile: slice,
    axis: int,
    margin: int,
    declared: int,
    spare: tuple[int, int],
) -> None:
    """`margin` outputs around a tile depend on `declared` inputs around it, or on `spare` less, before and behind.

    Regions of the input are NaN, in a batch of their own each; what becomes NaN depends on them. The frame ends one
    input beyond what is declared, on all four sides, in float64.
    """
    size = tile.stop + tile.start
    first, behind = tile.start - declared, tile.stop + declared
    regions = [
        slice(0, first),
        slice(first, first + spare[0] + 1),
        slice(behind - spare[1] - 1, behind),
        slice(behind, size),
    ]
    x = torch.rand((len(regions), channels, frames, 8, size), dtype=torch.float64)
    for entry, region in zip(x, regions, strict=True):
        entry[..., region] = float("nan")
    made = run(x if axis == 4 else x.transpose(3, 4)).movedim(axis, 1)
    start, stop = (position * made.shape[1] // size for position in (tile.start, tile.stop))
    needed = made[:, start - margin : stop + margin].isnan().flatten(1).any(dim=1)
    assert needed.tolist() == [False, True, True, False]


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("axis", [3, 4], ids=["rows", "columns"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_reaches_no_further_than_it_declares(name, axis, margin):
    layer, channels = LAYERS[name]
    stride = 2 if "Down" in name or name in ("Sequential", "HaarWaveletTransform2D", "HaarWaveletTransform3D") else 1
    declared = layer.input_halo(margin)
    assert_reach(
        lambda x: layer(x, StreamContext()), channels, 5, slice(16, 24), axis, margin, declared, (stride, stride)
    )


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("axis", [3, 4], ids=["rows", "columns"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_cuts_what_it_cannot_know_and_no_more_than_declared(name, axis, margin):
    layer, channels = LAYERS[name]
    size = 40
    shape = [1, channels, 5, 8, 8]
    shape[axis] = size
    x = torch.rand(shape, dtype=torch.float64)
    whole = layer(x, StreamContext())
    declared = layer.input_halo(margin)
    for first, stop in ((0, 16), (16, 24), (24, 40)):
        before, after = first > 0, stop < size
        part = x.narrow(axis, first - before * declared, stop - first + (before + after) * declared)
        inner = HaloSides(before, after, 0, 0) if axis == 3 else HaloSides(0, 0, before, after)
        made = layer(part, StreamContext(halo_sides=inner))
        start, end = (position * whole.shape[axis] // size for position in (first, stop))
        left, odd = divmod(made.shape[axis] - (end - start), before + after)
        assert left >= margin
        assert not odd
        expected = whole.narrow(axis, start - before * left, made.shape[axis])
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)


KINDS = [
    {"stride": 4, "blocks": 1, "connect": 1},
    {"stride": 4, "blocks": 1, "connect": 3, "interpolation": "nearest"},
    {"stride": 4, "blocks": 2, "connect": 1},
    {"stride": 4, "blocks": 3, "connect": 2},
    {"stride": 8, "blocks": 1, "connect": 1},
    {"stride": 8, "blocks": 2, "connect": 3, "interpolation": "nearest"},
]


@pytest.mark.parametrize("axis", [3, 4], ids=["rows", "columns"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_networks_reach_no_further_than_they_declare(kind, axis):
    model = copy.deepcopy(make_model(**kind)).double()
    encoder, decoder = (tiled_part(model, side) for side in ("encoder", "decoder"))

    # Before a tile, both halving layers declare one position more than they reach: of 4 and of 8 pixels.
    margin = encoder.inputs["x"][0]
    edge = 8 * (margin // 8 + 1)
    assert_reach(
        lambda x: through(encoder, x)["h"],
        channels=3,
        frames=1 + model.config.time_compression,
        tile=slice(edge, edge + 8),
        axis=axis,
        margin=0,
        declared=margin,
        spare=(4 + 8, 8),
    )
    margin = decoder.inputs["h"][0]
    edge = margin + 1
    assert_reach(
        lambda h: through(decoder, h)["y"],
        channels=4 * model.config.base_channels,
        frames=3,
        tile=slice(edge, edge + 1),
        axis=axis,
        margin=0,
        declared=margin,
        spare=(1, 1),
    )


def tiled_part(model: WFVAE, side: str) -> FusedSegment:
    """The one part of a network that runs in tiles."""
    sides = both_sides(model, 1 + model.config.time_compression, 64, 64)
    segments = model.encoder_segments() if side == "encoder" else model.decoder_segments()
    each = sides[side == "decoder"]
    (group,) = fuse(segments, value_shapes(each.network, each.x), each.x)
    *_, part = (part for part in group.parts if not part.whole_frames)
    return part


def through(part: FusedSegment, x: Tensor) -> dict[str, Tensor]:
    """Whole frames through its segments; what comes from elsewhere is zero, of the size that it is added to."""
    values = dict.fromkeys(("x", "h"), x)
    for step in part.steps:
        like = next(values[name] for name in step.inputs if name in values)
        inputs = [values.get(name, torch.zeros_like(like[:, :3])) for name in step.inputs]
        values.update(zip(step.outputs, step.segment(inputs, StreamContext()), strict=True))
    return values
