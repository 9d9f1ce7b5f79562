"""Layers and networks declare the halo that they reach, or at most one position of their stride more."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from tests.models.reference import load_reference, synthetic_model
from tests.tiling.models import make_model
from vaectl.models import haar, resample
from vaectl.models.blocks import ResnetBlock, ResnetBlock2D, ResnetBlock3D
from vaectl.models.context import HaloSides, StreamContext
from vaectl.models.families import wan_layers
from vaectl.models.layers import CausalConv3d, Conv2d, Layer, Sequential
from vaectl.models.vae import AnyVAE
from vaectl.tiling.fusion import FusedSegment, fuse
from vaectl.tiling.plan import both_sides

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
    "Wan CausalConv3d": (wan_layers.CausalConv3d(2, 3, 3, padding=1), 2),
    "Wan CausalConv3d 1x1x1": (wan_layers.CausalConv3d(2, 3, 1), 2),
    "Wan ResidualBlock": (wan_layers.ResidualBlock(2, 3, 0.0), 2),
    "Wan DownConv2d": (wan_layers.DownConv2d(2), 2),
    "Wan UpConv2d": (wan_layers.UpConv2d(2, 3), 2),
    "Wan Downsample": (wan_layers.Downsample(2, time=False), 2),
    "Wan Downsample and time": (wan_layers.Downsample(2, time=True), 2),
    "Wan Upsample": (wan_layers.Upsample(2, 3, time=False), 2),
    "Wan Upsample and time": (wan_layers.Upsample(2, 3, time=True), 2),
    "Wan AverageDown": (wan_layers.AverageDown(2, 4, space=True, time=False), 2),
    "Wan AverageDown and time": (wan_layers.AverageDown(2, 4, space=True, time=True), 2),
    "Wan RepeatUp": (wan_layers.RepeatUp(2, 1, time=False), 2),
    "Wan RepeatUp and time": (wan_layers.RepeatUp(2, 1, time=True), 2),
    "Wan Patchify": (wan_layers.Patchify(2), 2),
    "Wan Unpatchify": (wan_layers.Unpatchify(2), 12),
}
HALOS = (0, 1, 2, 5)
for layer, _ in LAYERS.values():
    layer.double()


def subclasses(kind: type[nn.Module]) -> set[type[nn.Module]]:
    found = {kind}.union(*(subclasses(child) for child in kind.__subclasses__())) - {Layer, ResnetBlock}
    return {each for each in found if each.__module__.startswith("vaectl.")}


def test_every_layer_is_here():
    assert {type(layer) for layer, _ in LAYERS.values()} == subclasses(Layer)


def assert_reach(
    run: Callable[[Tensor], Tensor],
    channels: int,
    num_frames: int,
    tile: slice,
    axis: int,
    halo: int,
    declared: int,
    spare: tuple[int, int],
    across: int = 8,
) -> None:
    """Assert that `halo` outputs around a tile depend on `declared` inputs around it, or on `spare` less, on each side.

    Each entry of the batch has one region of NaN; the outputs that become NaN depend on it. The frame ends one input
    beyond the declared ones, on all four sides. In float64.
    """
    size = tile.stop + tile.start
    first, behind = tile.start - declared, tile.stop + declared
    before, after = spare
    regions = [slice(first), slice(first, first + before + 1), slice(behind - after - 1, behind), slice(behind, size)]
    x = torch.rand((len(regions), channels, num_frames, across, size), dtype=torch.float64)
    for entry, region in zip(x, regions, strict=True):
        entry[..., region] = float("nan")
    made = run(x if axis == 4 else x.transpose(3, 4)).movedim(axis, 1)
    start, stop = (position * made.shape[1] // size for position in (tile.start, tile.stop))
    needed = made[:, start - halo : stop + halo].isnan().flatten(1).any(dim=1)
    assert needed.tolist() == [False, True, True, False]


@pytest.mark.parametrize("halo", HALOS)
@pytest.mark.parametrize("axis", [3, 4], ids=["rows", "columns"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_reaches_no_further_than_it_declares(name, axis, halo):
    layer, channels = LAYERS[name]
    halving = ("Sequential", "HaarWaveletTransform2D", "HaarWaveletTransform3D", "Wan Patchify")
    stride = 2 if "Down" in name or name in halving else 1
    declared = layer.input_halo(halo)
    assert_reach(lambda x: layer(x, StreamContext()), channels, 5, slice(16, 24), axis, halo, declared, (stride,) * 2)


@pytest.mark.parametrize("halo", HALOS)
@pytest.mark.parametrize("axis", [3, 4], ids=["rows", "columns"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_crops_what_it_cannot_know_and_no_more_than_declared(name, axis, halo):
    layer, channels = LAYERS[name]
    size = 40
    shape = [1, channels, 5, 8, 8]
    shape[axis] = size
    x = torch.rand(shape, dtype=torch.float64)
    whole = layer(x, StreamContext())
    declared = layer.input_halo(halo)
    for first, stop in ((0, 16), (16, 24), (24, 40)):
        before, after = first > 0, stop < size
        part = x.narrow(axis, first - before * declared, stop - first + (before + after) * declared)
        sides = HaloSides(before, after, 0, 0) if axis == 3 else HaloSides(0, 0, before, after)
        made = layer(part, StreamContext(halo_sides=sides))
        start, end = (position * whole.shape[axis] // size for position in (first, stop))
        left, odd = divmod(made.shape[axis] - (end - start), before + after)
        assert left >= halo
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
def test_the_fused_networks_reach_no_further_than_the_derived_halos(kind, axis):
    assert check_networks(make_model(**kind), axis, halved=2) >= 3


@pytest.mark.parametrize("axis", [3, 4], ids=["rows", "columns"])
@pytest.mark.parametrize(("name", "halved"), [("wan_2_1", 1), ("wan_2_2", 2), ("qwen_image", 1)])
def test_the_fused_networks_of_wan_do_not_either(name, halved, axis):
    assert check_networks(synthetic_model(load_reference(name).config), axis, halved) >= 2


def check_networks(model: AnyVAE, axis: int, halved: int) -> int:
    """For each fused segment that runs in tiles: each input, and all outputs that others take. Returns their number.

    `halved`: the pixels of a position, in one direction, where a convolution halves the frame first.
    """
    model = copy.deepcopy(model).double()
    tried = 0
    for side in both_sides(model, 1 + model.config.time_compression, 32, 32):
        live = model.encoder_segments() if side.name == "encoder" else model.decoder_segments()
        groups = fuse(live, side.outputs, side.input(0))
        shapes = {"x": side.x}
        for part in (part for group in groups for part in group.parts):
            if not part.whole_frames:
                for name in part.inputs:
                    assert_part_reach(part, name, shapes, axis, halved)
                    tried += 1
            for step in part.steps:
                shapes.update((name, y.shape) for name, y in step.made.items())
    return tried


def assert_part_reach(part: FusedSegment, name: str, shapes: dict[str, torch.Size], axis: int, halved: int) -> None:
    """Assert what a tile of one latent position takes of the input with that name.

    An output may take less than another one, and a layer that halves frames declares a position more before a tile.
    """
    halo, scale = part.inputs[name]
    edge = scale * (-(-halo // scale) + 1)

    def run(x: Tensor) -> Tensor:
        rows, columns = (size // scale for size in x.shape[3:])
        values = {
            other: x
            if other == name
            else torch.rand(len(x), *shapes[other][1:3], each * rows, each * columns, dtype=torch.float64)
            for other, (_, each) in part.inputs.items()
        }
        for step in part.steps:
            made = step.segment([values[each] for each in step.inputs], StreamContext())
            values.update(zip(step.outputs, made, strict=True))
        # All outputs at each latent position.
        return torch.cat([blocks(values[each], size) for each, size in part.outputs.items()], dim=1)

    # Of the halving layers, each declares a position of its output more before a tile than it reaches.
    spare = 1 if scale <= 2 else 2 * (scale - halved)
    tile = slice(edge, edge + scale)
    assert_reach(run, shapes[name][1], shapes[name][2], tile, axis, 0, halo, (spare, scale), across=scale)


def blocks(x_BCTHW: Tensor, scale: int) -> Tensor:
    """Gather all values at each latent position: (B, n, 1, rows, columns)."""
    return rearrange(x_BCTHW, "b c t (h i) (w j) -> b (c t i j) 1 h w", i=scale, j=scale)
