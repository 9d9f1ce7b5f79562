"""Winograd convolutions, compared with those of PyTorch in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.tiling.models import make_model
from vaectl.models import convolution, winograd
from vaectl.models.context import StreamContext
from vaectl.models.layers import CausalConv3d, Conv2d
from vaectl.tiling.plan import uniform_plan
from vaectl.tiling.stream import reconstruct_windows
from vaectl.tiling.trace import FusedKernels, PeakMemoryMode

STRIDE, PADDING = (1, 1, 1), (0, 1, 1)


TILES = [*winograd.ROOTS]


@pytest.fixture(params=TILES)
def everywhere(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[torch.Size]:
    """Use Winograd with one size of tiles for layers of any width. Return the list of weight shapes that used it."""
    monkeypatch.setattr(winograd, "tile_size", lambda _x, _weight: request.param)
    taken: list[torch.Size] = []
    convolve = winograd.convolve

    def remembered(x: Tensor, weight: Tensor, bias: Tensor | None, **more: Tensor) -> Tensor:
        taken.append(weight.shape)
        return convolve(x, weight, bias, **more)

    monkeypatch.setattr(winograd, "convolve", remembered)
    return taken


def random(*shape: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return x.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("strip", [1, 2**13, 2**30])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("clip", "weight"),
    [
        ((1, 5, 5, 13, 10), (8, 5, 3, 3, 3)),
        ((2, 8, 2, 7, 9), (8, 8, 1, 3, 3)),
        ((1, 8, 3, 24, 32), (16, 8, 3, 3, 3)),
        ((1, 64, 4, 8, 8), (64, 64, 3, 3, 3)),
        ((1, 4, 3, 1, 1), (4, 4, 3, 3, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("tile", TILES)
@torch.no_grad()
def test_it_is_the_convolution(monkeypatch, clip, weight, bias, strip, tile):
    """As close to the exact result as the direct convolution, up to a factor, because its sums have other terms."""
    monkeypatch.setattr(winograd, "tile_size", lambda _x, _weight: tile)
    monkeypatch.setattr(winograd, "STRIP_BYTES", strip)
    x, taps, shift = random(*clip), random(*weight), random(1, weight[0], 1, 1, 1).flatten() if bias else None
    made = winograd.convolve(x, taps, shift)
    exact = F.conv3d(x.double(), taps.double(), None if shift is None else shift.double(), padding=(0, 1, 1))
    assert made.shape == exact.shape
    assert made.is_contiguous(memory_format=torch.channels_last_3d)
    direct = (F.conv3d(x, taps, shift, padding=(0, 1, 1)) - exact).abs().max()
    assert (made - exact).abs().max() < {2: 4, 4: 12}[tile] * direct + 1e-6


def traced(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution of the layers. On tensors without data it must allocate what Winograd allocates."""
    assert winograd.is_faster(x, weight, STRIDE, PADDING)
    return convolution.conv3d(x, weight, bias, STRIDE, PADDING)


@pytest.mark.parametrize(
    ("channels", "side"), [((512, 512), 16), ((256, 512), 32), ((128, 128), 128), ((96, 96), 128)], ids=str
)
@pytest.mark.parametrize("tile", TILES)
@torch.no_grad()
def test_a_trace_knows_what_it_takes(monkeypatch, channels, side, tile):
    """Keeps weights in PyTorch's memory format, because allocations of oneDNN cannot be measured."""
    monkeypatch.setattr(winograd, "reordered", lambda weight: weight.transpose(1, 2)[..., None, None].clone())
    monkeypatch.setattr(winograd, "tile_size", lambda _x, _weight: tile)
    peaks = []
    for device, convolve in (("cpu", winograd.convolve), ("meta", traced)):
        with FusedKernels(cpu=True), PeakMemoryMode() as memory:
            clip = torch.empty((1, 4, side, side, channels[0]), device=device).permute(0, 4, 1, 2, 3)
            weight = torch.empty((channels[1], channels[0], 3, 3, 3), device=device)
            convolve(clip, weight.contiguous(memory_format=torch.channels_last_3d), weight[:, 0, 0, 0, 0])
        peaks.append(memory.peak)
    assert peaks[0] <= peaks[1] <= 1.2 * peaks[0]


@pytest.mark.parametrize("layer", [CausalConv3d(6, 8, 3, padding=1), Conv2d(6, 8, 3, padding=1)], ids=["3d", "2d"])
def test_layers_take_it_without_gradients_alone(everywhere, layer):
    x = random(1, 6, 3, 9, 12)
    learning = layer(x, StreamContext())
    assert not everywhere
    with torch.no_grad():
        torch.testing.assert_close(layer(x, StreamContext()), learning, rtol=0, atol=1e-5)
    assert len(everywhere) == 1


@pytest.mark.parametrize(
    "layer",
    [CausalConv3d(6, 8, 3, stride=2), CausalConv3d(6, 8, 1), Conv2d(6, 8, 3, stride=2), Conv2d(6, 8, 1)],
    ids=["halving", "1x1x1", "halving 2d", "1x1"],
)
@torch.no_grad()
def test_layers_of_another_shape_do_not(everywhere, layer):
    layer(random(1, 6, 3, 9, 13), StreamContext())
    assert not everywhere


@torch.no_grad()
def test_it_is_left_out_where_it_would_be_slower():
    weight, clip = torch.empty(128, 128, 3, 3, 3), torch.empty(1, 128, 3, 64, 64)

    def taken(x: Tensor, weight: Tensor) -> bool:
        return convolution.can_use_onednn(x, weight) and winograd.is_faster(x, weight, STRIDE, PADDING)

    assert taken(clip, weight)
    assert not taken(clip[:, :32], weight[:32, :32]), "the transforms would take longer"
    assert not taken(clip, weight[:, :, 1:2]), "the same: a third of the products"
    assert not taken(clip[..., :8, :8], weight), "the transform of the weights would take longer"
    assert not taken(clip[:, :, :0], weight[:, :, 1:2]), "no frames"
    assert not taken(clip.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not taken(clip, weight)
    with torch.enable_grad():
        assert not taken(clip, weight)


@torch.no_grad()
def test_tiles_are_larger_where_the_weights_matter_less():
    weight = torch.empty(512, 512, 3, 3, 3, device="meta")
    sizes = [winograd.tile_size(torch.empty(1, 512, 7, side, side, device="meta"), weight) for side in (4, 12, 64)]
    assert sizes == [1, 2, 4]


@torch.no_grad()
def test_a_network_with_it_is_the_same_and_so_are_its_tiles(everywhere, monkeypatch):
    model = make_model(stride=4, blocks=1, connect=1)
    video = random(1, 3, 9, 80, 112).clamp(-1, 1)
    fast = model.reconstruct(video)
    assert len(everywhere) > 20
    plan = uniform_plan(model, *video.shape[2:], tile=5, window=4)
    tiled = torch.cat([*reconstruct_windows(model, video.split(4, dim=2), plan)], dim=2)
    torch.testing.assert_close(tiled, fast, rtol=0, atol=1e-4)
    monkeypatch.setattr(winograd, "tile_size", lambda _x, _weight: 1)
    torch.testing.assert_close(model.reconstruct(video), fast, rtol=0, atol=1e-4)
