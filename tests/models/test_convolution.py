"""All kernels of a convolution compute the same numbers, with and without oneDNN."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.tiling.models import make_model, video
from vaectl.models import convolution, winograd
from vaectl.models.context import StreamContext
from vaectl.models.layers import CausalConv3d, Conv2d

# Float32 sums in another order, or of transformed values, on outputs of order 1.
TOLERANCE = {"rtol": 0, "atol": 3e-5}
WIDE = 128


def missing(*_arguments: object) -> Tensor:
    raise RuntimeError("not compiled with MKLDNN support")


def without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "ONEDNN", False)
    monkeypatch.setattr(convolution, "WINOGRAD", False)
    monkeypatch.setattr(winograd, "convolve", missing)
    monkeypatch.setattr(torch, "mkldnn_convolution", missing)


def without_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "WINOGRAD", False)
    monkeypatch.setattr(winograd, "convolve", missing)


LACKS = {"oneDNN": without_onednn, "operators for Winograd": without_operators}


@pytest.mark.parametrize("without", LACKS.values(), ids=LACKS.keys())
@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (CausalConv3d(WIDE, WIDE, 3, padding=1), WIDE),
        (Conv2d(2 * WIDE, WIDE, 3, padding=1), 2 * WIDE),
        (CausalConv3d(6, 8, 3, stride=2, padding=1), 6),
        (CausalConv3d(6, 8, 1), 6),
    ],
    ids=["wide", "wide 2d", "halving", "1x1x1"],
)
@torch.no_grad()
def test_layers_do_without_what_a_build_of_pytorch_lacks(
    monkeypatch: pytest.MonkeyPatch, layer: nn.Module, channels: int, without: Callable[[pytest.MonkeyPatch], None]
) -> None:
    clip = torch.randn(1, channels, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    clip = clip.contiguous(memory_format=torch.channels_last_3d)
    with_it = layer(clip, StreamContext())
    without(monkeypatch)
    torch.testing.assert_close(layer(clip, StreamContext()), with_it, **TOLERANCE)


@pytest.mark.parametrize("without", LACKS.values(), ids=LACKS.keys())
@torch.no_grad()
def test_a_network_does_too(monkeypatch: pytest.MonkeyPatch, without: Callable[[pytest.MonkeyPatch], None]) -> None:
    monkeypatch.setattr(winograd, "tile_size", lambda _x, _weight: 4)
    model, clip = make_model(), video(5, 32, 40)
    with_it = model.reconstruct(clip)
    without(monkeypatch)
    torch.testing.assert_close(model.reconstruct(clip), with_it, rtol=0, atol=1e-4)


@pytest.mark.skipif(not convolution.WINOGRAD, reason="Winograd: this build of PyTorch lacks its operators")
@pytest.mark.parametrize("name", ["_reorder_convolution_weight", "_convolution_pointwise"])
def test_a_missing_operator_is_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert winograd.available()

    class Lacking:
        def __getattr__(self, asked: str) -> object:
            if asked == name:
                raise AttributeError(asked)
            return getattr(operators, asked)

    operators = torch.ops.mkldnn
    monkeypatch.setattr(torch.ops, "mkldnn", Lacking())
    assert not winograd.available()


IMPORTED_WITHOUT = """
import torch
if {lacks!r} == "oneDNN":
    del torch.mkldnn_convolution
else:
    class Empty:
        pass
    torch.ops.mkldnn = Empty()
from vaectl.models import convolution, load_model
print(convolution.ONEDNN, convolution.WINOGRAD)
made = load_model(device="cpu").reconstruct(torch.linspace(-1, 1, 3 * 5 * 64 * 64).reshape(1, 3, 5, 64, 64))
print(made.double().sum().item(), made.double().square().sum().item())
"""


def test_a_build_that_lacks_them_is_known_at_import() -> None:
    """Runs in a new process, which removes the kernels before it imports vaectl."""
    printed = {}
    for lacks in ("operators", "oneDNN"):
        code = IMPORTED_WITHOUT.format(lacks=lacks)
        printed[lacks] = subprocess.run(
            [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.split()
    assert printed["operators"][1] == "False"
    assert printed["oneDNN"][:2] == ["False", "False"]
    sums = [[float(value) for value in values[2:]] for values in printed.values()]
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)


def test_a_clip_of_another_type_is_left_to_pytorch() -> None:
    x, weight = torch.empty(1, 2, 3, 4, 5), torch.empty(2, 2, 3, 3, 3)
    assert convolution.can_use_onednn(x, weight) == convolution.ONEDNN
    assert not convolution.can_use_onednn(x.double(), weight.double())
    assert not convolution.can_use_onednn(x.bfloat16(), weight)
    assert not convolution.can_use_onednn(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolution.can_use_onednn(x, weight)


def test_no_workspace_is_counted_without_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.empty(1, WIDE, 4, 64, 64, device="meta")
    weight = torch.empty(WIDE, WIDE, 3, 3, 3, device="meta")
    stride, padding = (1, 1, 1), (0, 1, 1)
    with torch.no_grad():
        assert (convolution.workspace(x, weight, stride, padding) > 0) == convolution.WINOGRAD
        assert convolution.workspace(x, weight, (2, 1, 1), padding) == 0
        monkeypatch.setattr(convolution, "WINOGRAD", False)
        assert convolution.workspace(x, weight, stride, padding) == 0
