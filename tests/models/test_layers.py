"""Layers equal their straightforward formulation in PyTorch."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from vaectl.errors import UsageError
from vaectl.models import haar
from vaectl.models.blocks import Attention, attend_in_frames
from vaectl.models.context import StreamContext
from vaectl.models.layers import CausalConv3d, ChannelLayerNorm, ClipGroupNorm, FrameGroupNorm, add
from vaectl.models.resample import TimeDownsample2x, TimeDownsampleRes2x, TimeUpsample2x

TOLERANCE = {"rtol": 0, "atol": 2e-6}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def first_frame_padded(x: torch.Tensor, frames: int) -> torch.Tensor:
    return torch.cat([x[:, :, :1].expand(-1, -1, frames, -1, -1), x], dim=2)


def test_causal_convolution_repeats_the_first_frame():
    layer, x = CausalConv3d(3, 4, 3, padding=1), noise(2, 3, 5, 6, 7)
    expected = F.conv3d(first_frame_padded(x, 2), layer.conv.weight, layer.conv.bias, padding=(0, 1, 1))
    torch.testing.assert_close(layer(x, StreamContext()), expected, **TOLERANCE)


def test_convolution_gives_an_empty_clip_when_a_piece_is_too_short_for_an_output():
    layer = CausalConv3d(3, 4, 3, stride=2)
    piece = StreamContext(last=False)
    assert layer(noise(1, 3, 1, 9, 9), piece).shape == (1, 4, 1, 4, 4)
    piece = StreamContext(piece.after, last=False)
    assert layer(noise(1, 3, 1, 9, 9), piece).shape == (1, 4, 0, 4, 4)


@pytest.mark.parametrize("frames", [1, 5])
def test_haar_3d_is_eight_strided_correlations(frames):
    x = noise(2, 3, frames, 6, 8)
    padded = first_frame_padded(x, 1)
    transform = haar.HaarWaveletTransform3D()
    bands = []
    for band in ("h", "g", "hh", "gh", "h_v", "g_v", "hh_v", "gh_v"):
        weight = transform.get_buffer(f"{band}_conv.conv.weight")
        bands += [F.conv3d(padded[:, c : c + 1], weight, stride=2) for c in range(3)]
    torch.testing.assert_close(transform(x, StreamContext()), torch.cat(bands, dim=1), **TOLERANCE)


def test_haar_3d_inverse_undoes_it_up_to_the_published_constant():
    x = noise(1, 3, 9, 4, 4)
    bands = haar.HaarWaveletTransform3D()(x, StreamContext())
    back = haar.InverseHaarWaveletTransform3D()(bands, StreamContext())
    torch.testing.assert_close(back, x * 8 * 0.3536**2, rtol=0, atol=1e-5)


def test_haar_2d_is_orthonormal_and_ordered():
    x = noise(1, 3, 2, 4, 4)
    bands = haar.HaarWaveletTransform2D()(x, StreamContext())
    torch.testing.assert_close(haar.InverseHaarWaveletTransform2D()(bands, StreamContext()), x, **TOLERANCE)
    ramp = torch.arange(4.0).repeat(4, 1).expand(1, 3, 1, 4, 4)  # grows to the right only
    aa, ad, da, dd = haar.HaarWaveletTransform2D()(ramp, StreamContext()).chunk(4, dim=1)
    assert not ad.any()
    assert not dd.any()
    assert torch.equal(da, torch.full_like(da, -1.0))
    assert torch.equal(aa[0, 0, 0], torch.tensor([[1.0, 5.0], [1.0, 5.0]]))


def test_filters_are_taken_from_the_checkpoint():
    transform = haar.HaarWaveletTransform3D()
    rounded = {name: tensor.bfloat16().float() for name, tensor in transform.state_dict().items()}
    x = noise(1, 3, 1, 4, 4)
    before = transform(x, StreamContext())
    transform.load_state_dict(rounded)
    ratio = torch.tensor(0.3536).bfloat16().item() / 0.3536
    torch.testing.assert_close(transform(x, StreamContext()), before * ratio, **TOLERANCE)


def test_time_upsampling_is_torch_linear_interpolation_behind_the_first_frame():
    x = noise(1, 4, 6, 3, 3)
    rest = F.interpolate(x[:, :, 1:], scale_factor=(2.0, 1.0, 1.0), mode="trilinear", align_corners=False)
    expected = torch.cat([x[:, :, :1], rest], dim=2)
    torch.testing.assert_close(TimeUpsample2x()(x, StreamContext()), expected, **TOLERANCE)
    assert torch.equal(TimeUpsample2x()(x[:, :, :1], StreamContext()), x[:, :, :1])


def test_time_downsampling_averages_three_frames():
    x = noise(1, 4, 7, 3, 3)
    expected = F.avg_pool3d(first_frame_padded(x, 2), (3, 1, 1), stride=(2, 1, 1))
    torch.testing.assert_close(TimeDownsample2x()(x, StreamContext()), expected, **TOLERANCE)


def test_mixed_downsampling_weighs_average_and_convolution():
    layer, x = TimeDownsampleRes2x(4), noise(1, 4, 5, 3, 3)
    window = first_frame_padded(x, 2)
    a = torch.sigmoid(layer.mix_factor)
    conv = F.conv3d(window, layer.conv.weight, layer.conv.bias, stride=(2, 1, 1), padding=(0, 1, 1))
    expected = a * F.avg_pool3d(window, (3, 1, 1), stride=(2, 1, 1)) + (1 - a) * conv
    torch.testing.assert_close(layer(x, StreamContext()), expected, **TOLERANCE)


def softmax_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention; q, k and v are (N, L, C)."""
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1) @ v


def test_frame_attention_is_softmax_attention_per_frame():
    q, k, v = (noise(2, 8, 3, 4, 5 + i)[..., :5] for i in range(3))
    for t in range(3):
        flat = (x[:, :, t].flatten(2).mT for x in (q, k, v))
        expected = softmax_attention(*flat).mT.reshape(2, 8, 4, 5)
        torch.testing.assert_close(attend_in_frames(q, k, v)[:, :, t], expected, **TOLERANCE)


def mixed(*qkv: torch.Tensor) -> torch.Tensor:
    """The middle segment of the attention that mixes frames."""
    _, attention, _ = Attention("AttnBlock3D", 32, "layernorm").segments("x", "y")
    (y,) = attention(qkv, StreamContext())
    return y


def test_old_attention_reshapes_without_permuting():
    q, k, v = (noise(2, 8, 3, 4, 5 + i)[..., :5].contiguous() for i in range(3))
    flat = (x.view(6, 8, 20).mT for x in (q, k, v))
    expected = softmax_attention(*flat).mT.reshape(2, 8, 3, 4, 5)
    torch.testing.assert_close(mixed(q, k, v), expected, **TOLERANCE)


def test_attention_takes_a_fused_kernel():
    """Other kernels hold the scores of all pairs of positions in memory: 350 MiB for 80x80."""
    q, k, v = (noise(1, 3, 8, 8, 32).permute(0, 4, 1, 2, 3) for _ in range(3))  # channels-last, as in the networks
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        attend_in_frames(q, k, v)
        mixed(q, k, v)


def test_norms_are_over_channels_and_over_frames():
    x = noise(2, 64, 3, 4, 5)
    expected = F.layer_norm(x.movedim(1, -1), (64,), eps=1e-6).movedim(-1, 1)
    torch.testing.assert_close(ChannelLayerNorm(64)(x, StreamContext()), expected, **TOLERANCE)
    frame = F.group_norm(x[:, :, 1], 32, eps=1e-6)
    torch.testing.assert_close(FrameGroupNorm(64)(x, StreamContext())[:, :, 1], frame, **TOLERANCE)


def test_a_layer_keeps_frames_for_the_next_window_once():
    """A layer that is used twice, or that two branches wait under, would lose what it has put first."""
    layer, context = CausalConv3d(2, 2, padding=1), StreamContext(last=False)
    layer(torch.zeros(1, 2, 3, 4, 4), context)
    with pytest.raises(ValueError, match="a CausalConv3d keeps frames twice"):
        context.align(layer, torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 2, 2, 4, 4))


def test_a_group_norm_of_single_values_gives_its_bias_and_odd_widths_are_refused():
    """One value per group: an image of one latent position. F.group_norm refuses that."""
    norm = ClipGroupNorm(32)
    norm.bias.data.fill_(0.5)
    assert torch.equal(norm(torch.ones(1, 32, 1, 1, 1), StreamContext()), torch.full((1, 32, 1, 1, 1), 0.5))
    with pytest.raises(UsageError, match="32 groups cannot take 40 channels"):
        ClipGroupNorm(40)


@pytest.mark.parametrize("case", ["plain", "gradients", "crop", "wider type"])
def test_a_sum_reuses_the_memory_of_a_temporary_tensor_where_it_can(case):
    kept = noise(1, 3, 2, 6, 8).to(memory_format=torch.channels_last_3d)
    h, x = (kept[..., 1:-1, :], noise(1, 3, 2, 4, 8)) if case == "crop" else (kept, noise(1, 3, 2, 6, 8))
    if case == "wider type":
        h = h.bfloat16()
    expected, before = h + x, h.clone()
    with torch.set_grad_enabled(case == "gradients"):
        made = add(h, x)
    assert torch.equal(made, expected)
    assert made.dtype == expected.dtype
    assert torch.equal(h, made if case == "plain" else before)


def test_convolutions_are_as_pytorch_computes_them_with_gradients():
    """The oneDNN kernel gives the values and gradients of F.conv3d."""
    layer = CausalConv3d(5, 7, 3, stride=2, padding=1)
    x = noise(1, 5, 6, 9, 9).requires_grad_()
    out = layer(x, StreamContext())
    out.square().sum().backward()
    twin = x.detach().clone().requires_grad_()
    weight, bias = (p.detach().clone().requires_grad_() for p in (layer.conv.weight, layer.conv.bias))
    expected = F.conv3d(first_frame_padded(twin, 2), weight, bias, stride=2, padding=(0, 1, 1))
    expected.square().sum().backward()
    torch.testing.assert_close(out, expected, **TOLERANCE)
    for given, wanted in ((x, twin), (layer.conv.weight, weight), (layer.conv.bias, bias)):
        torch.testing.assert_close(given.grad, wanted.grad, rtol=1e-5, atol=1e-4)
