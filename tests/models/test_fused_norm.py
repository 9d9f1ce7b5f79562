"""The kernel for norm and SiLU gives what both give one after the other, to rounding.

It runs in Triton's interpreter, or without Triton as a function of tensors.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from tests.models import triton_stub
from vaectl.models import fused_norm
from vaectl.models.context import StreamContext
from vaectl.models.families.wan_layers import RMSNorm
from vaectl.models.layers import ChannelLayerNorm, FrameGroupNorm, norm_silu

NORMS = (ChannelLayerNorm, RMSNorm)
TRITON = find_spec("triton") is not None  # before a stub is in its place


@pytest.fixture(autouse=True)
def kernel(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "vaectl.models.norm_kernel", raising=False)
    if TRITON:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    else:
        triton_stub.install(monkeypatch)
    yield
    sys.modules.pop("vaectl.models.norm_kernel", None)


def make(kind: type[nn.Module], channels: int, dtype: torch.dtype) -> nn.Module:
    norm = kind(channels).to(dtype).requires_grad_(False)
    for weight in norm.parameters():
        weight.normal_(generator=torch.Generator().manual_seed(0))
    return norm


def clip(channels: int, frames: int, dtype: torch.dtype) -> torch.Tensor:
    x = 3 * torch.randn(1, channels, frames, 5, 7, generator=torch.Generator().manual_seed(1)) + 1
    return x.to(dtype, memory_format=torch.channels_last_3d)


@torch.no_grad()
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("channels", [96, 128, 640])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_the_kernel_gives_what_norm_and_silu_give(kind, channels, dtype, bound, monkeypatch):
    norm, x = make(kind, channels, dtype), clip(channels, 2, dtype)
    given, exact = x.clone(), norm_silu(norm.double(), x.double(), StreamContext())
    norm.to(dtype)
    plain = norm_silu(norm, x, StreamContext())
    monkeypatch.setattr(fused_norm, "can_fuse", lambda _: True)
    made = norm_silu(norm, x, StreamContext())
    assert torch.equal(x, given)
    assert (made.shape, made.dtype, made.stride()) == (plain.shape, dtype, plain.stride())
    error, plain_error = ((y.double() - exact).abs().max() for y in (made, plain))
    # Triton's interpreter cuts float32 off to bfloat16; GPUs round.
    assert error <= max(1e-5, (2.2 if TRITON else 1.1) * plain_error)
    assert plain_error <= bound


@torch.no_grad()
@pytest.mark.parametrize("kind", NORMS)
def test_no_frames_and_frames_of_zeros(kind, monkeypatch):
    monkeypatch.setattr(fused_norm, "can_fuse", lambda _: True)
    norm = make(kind, 32, torch.float32)
    assert norm_silu(norm, clip(32, 0, torch.float32), StreamContext()).shape == (1, 32, 0, 5, 7)
    zeros = torch.zeros(1, 32, 1, 2, 2)
    expected = torch.nn.functional.silu(norm(zeros, StreamContext()))
    torch.testing.assert_close(norm_silu(norm, zeros, StreamContext()), expected)


def test_the_cpu_gradients_and_other_norms_take_the_plain_path(monkeypatch):
    x = clip(32, 1, torch.float32)
    assert not fused_norm.can_fuse(x)
    norm = FrameGroupNorm(32)
    monkeypatch.setattr(fused_norm, "can_fuse", lambda _: True)
    expected = torch.nn.functional.silu(norm(x, StreamContext()))
    assert torch.equal(norm_silu(norm, x, StreamContext()), expected)


def test_a_gpu_on_which_the_kernel_fails_takes_the_plain_path_with_a_warning(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(fused_norm, "find_spec", lambda _: True)
    monkeypatch.setattr(fused_norm, "launch", fail)
    fused_norm.works.cache_clear()
    with pytest.warns(UserWarning, match="Triton does not work here: Failed to find C compiler"):
        assert not fused_norm.works(torch.device("cpu"))
    fused_norm.works.cache_clear()
