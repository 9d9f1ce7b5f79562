"""Winograd convolutions with gradients, compared with autograd through `conv3d` of PyTorch in float64."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.tiling.models import make_model
from vaectl.models import convolution, winograd, winograd_training
from vaectl.models.context import StreamContext
from vaectl.models.families import wan_layers
from vaectl.models.layers import CausalConv3d, Conv2d, Layer
from vaectl.models.vae import AnyVAE

pytestmark = pytest.mark.usefixtures("one_thread")
STRIDE, PADDING = (1, 1, 1), (0, 1, 1)
TILES = [1, *winograd.ROOTS]


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Use Winograd for layers of any width. Return the list of weight shapes that used it."""
    for least in ("MIN_CHANNELS", "MIN_POSITIONS"):
        monkeypatch.setattr(winograd_training, least, 1)
    monkeypatch.setattr(winograd, "tile_size", lambda _x, _weight, **_: 4)
    taken: list[torch.Size] = []
    convolve = winograd_training.causal_convolve

    def remembered(x: Tensor, weight: Tensor, bias: Tensor | None, *, repeat_first: bool = True) -> Tensor:
        taken.append(weight.shape)
        return convolve(x, weight, bias, repeat_first=repeat_first)

    monkeypatch.setattr(winograd_training, "causal_convolve", remembered)
    return taken


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def exact(x: Tensor, weight: Tensor, bias: Tensor | None, *, repeat_first: bool) -> Tensor:
    before = weight.shape[2] - 1
    padded = torch.cat([x[:, :, :1]] * before + [x], dim=2) if repeat_first else F.pad(x, (0, 0, 0, 0, before, 0))
    return F.conv3d(padded, weight, bias, padding=PADDING)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("repeat_first", [True, False])
@pytest.mark.parametrize("size", [(5, 8), (1, 1)], ids=str)
@pytest.mark.parametrize("frames", [1, 2, 6])
@pytest.mark.parametrize("kernel", [1, 3])
def test_output_and_gradients_are_those_of_the_convolution(
    everywhere, monkeypatch, kernel, frames, size, repeat_first, tile
):
    """As close to the exact result as the direct convolution, up to a factor, because the sums have other terms."""
    monkeypatch.setattr(winograd, "tile_size", lambda _x, _weight, **_: tile)
    values = [random(2, 8, frames, *size), random(12, 8, kernel, 3, 3), random(12)]
    cotangent = random(2, 12, frames, *size)
    results = []
    for dtype, convolve in (
        (torch.float32, winograd_training.causal_convolve),
        (torch.float32, exact),
        (torch.float64, exact),
    ):
        inputs = [value.to(dtype).requires_grad_() for value in values]
        y = convolve(*inputs, repeat_first=repeat_first)
        results.append([y, *torch.autograd.grad(y, inputs, cotangent.to(dtype))])
    for made, direct, wanted in zip(*results, strict=True):
        assert made.shape == wanted.shape
        allowed = 12 * (direct - wanted).abs().max() + 1e-6 * wanted.abs().max()
        assert (made - wanted).abs().max() <= allowed


@pytest.mark.parametrize("small", [0, 10**9], ids=["backward kernel", "forward kernel"])
@pytest.mark.parametrize("repeat_first", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_direct_gradient_of_the_input(everywhere, monkeypatch, kernel, repeat_first, small):
    monkeypatch.setattr(winograd_training, "SMALL", small)
    monkeypatch.setattr(winograd, "tile_size", lambda _x, _weight, **_: 1)
    monkeypatch.delattr(winograd, "convolve_tiles")
    grad, weight = random(2, 12, 3, 5, 8), random(12, 8, kernel, 3, 3)
    x = random(2, 8, 3, 5, 8).double().requires_grad_()
    y = exact(x, weight.double(), None, repeat_first=repeat_first)
    (wanted,) = torch.autograd.grad(y, x, grad.double())
    made = winograd_training.input_gradient(grad, weight, repeat_first)
    assert (made - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert made.is_contiguous(memory_format=torch.channels_last_3d)


def test_activations_stay_channels_last_and_the_weight_keeps_its_layout():
    x, weight = random(2, 8, 3, 6, 8).requires_grad_(), random(12, 8, 3, 3, 3).requires_grad_()
    y = winograd_training.causal_convolve(x, weight, None)
    for tensor in (y, *torch.autograd.grad(y.sum(), (x, weight))):
        assert tensor.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_second_derivative_is_an_error_and_not_missing():
    """With a gradient of the output that is constant, the result would look like a constant."""
    x, weight = random(2, 8, 3, 6, 8).requires_grad_(), random(12, 8, 3, 3, 3).requires_grad_()
    y = winograd_training.causal_convolve(x, weight, None)
    with pytest.raises(NotImplementedError, match="second derivative"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize(
    "layer",
    [
        CausalConv3d(6, 8, 3, padding=1),
        CausalConv3d(6, 8, (1, 3, 3), padding=1),
        Conv2d(6, 8, 3, padding=1),
        wan_layers.CausalConv3d(6, 8, padding=1),
    ],
    ids=["3d", "1x3x3", "2d", "wan"],
)
def test_layers_take_it_for_gradients_alone(everywhere, layer: Layer):
    x = random(1, 6, 3, 9, 12)
    with torch.no_grad():
        plain = layer(x, StreamContext())
    layer.requires_grad_(False)(x, StreamContext())
    assert not everywhere
    torch.testing.assert_close(layer.requires_grad_(True)(x, StreamContext()), plain, rtol=0, atol=1e-5)
    assert len(everywhere) == 1


@pytest.mark.parametrize(
    "layer",
    [CausalConv3d(6, 8, 3, stride=2), CausalConv3d(6, 8, 1), Conv2d(6, 8, 1), Conv2d(6, 8, 3, stride=2)],
    ids=str,
)
def test_layers_of_another_shape_do_not(everywhere, layer: Layer):
    layer(random(1, 6, 3, 9, 13), StreamContext())
    assert not everywhere


def test_windows_of_a_clip_do_not(everywhere):
    layer, x = CausalConv3d(6, 8, 3, padding=1), random(1, 6, 4, 9, 12)
    first = StreamContext(last=False)
    y = torch.cat([layer(x[:, :, :2], first), layer(x[:, :, 2:], StreamContext(first.after))], dim=2)
    assert not everywhere
    torch.testing.assert_close(layer(x, StreamContext()), y, rtol=0, atol=1e-5)
    assert everywhere


def test_narrow_layers_small_clips_and_other_precisions_take_the_direct_kernel():
    wide = winograd_training.MIN_CHANNELS
    weight = torch.empty(wide, wide, 3, 3, 3, requires_grad=True)
    clip = torch.empty(1, wide, 1, 1, winograd_training.MIN_POSITIONS)

    def taken(x: Tensor, weight: Tensor) -> bool:
        return convolution.trains_in_winograd(x, weight, STRIDE, PADDING)

    assert taken(clip, weight)
    assert not taken(clip, weight[1:])
    assert not taken(clip, weight[:, 1:])
    assert not taken(clip[..., 1:], weight)
    assert not taken(clip.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not taken(clip, weight)
    with torch.no_grad():
        assert not taken(clip, weight)


def gradients(model: AnyVAE, video: Tensor, *, recompute: bool = False) -> list[Tensor]:
    model.zero_grad()
    moments, _ = model.run_encoder(video, StreamContext(recompute=recompute))
    y, _ = model.run_decoder(moments.chunk(2, dim=1)[0], StreamContext(recompute=recompute))
    (y - video).abs().mean().backward()
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert found
    return found


@pytest.mark.parametrize(("tile", "tolerance"), [(2, 2e-6), (4, 5e-6)])
def test_a_network_has_the_same_gradients_bit_for_bit_when_it_recomputes(everywhere, monkeypatch, tile, tolerance):
    monkeypatch.setattr(winograd, "tile_size", lambda _x, _weight, **_: tile)
    model = deepcopy(make_model(stride=4, blocks=1, connect=1)).requires_grad_(True)
    video = random(1, 3, 9, 32, 48).clamp(-1, 1)
    fast = gradients(model, video)
    assert len(everywhere) > 20
    for again in (gradients(model, video, recompute=True), gradients(model, video)):
        assert all(torch.equal(a, b) for a, b in zip(again, fast, strict=True))
    monkeypatch.setattr(winograd_training, "MIN_CHANNELS", 10**6)
    plain = gradients(model, video)
    largest = max(gradient.abs().max() for gradient in plain)
    for exact_one, made in zip(plain, fast, strict=True):
        torch.testing.assert_close(made, exact_one, rtol=1e-3, atol=tolerance * float(largest))
