"""Transformed weights that are kept: the same results, bit for bit, within the room that there is."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from vaectl.models import convolution, winograd
from vaectl.models.kept_weights import KeptWeights
from vaectl.models.layers import Conv2d


class Doubled:
    """Counts how often a weight is doubled."""

    def __init__(self, room: int) -> None:
        self.kept = KeptWeights()
        self.kept.give_room(room)
        self.times = 0

    def of(self, weight: Tensor, key: object = "twice") -> Tensor:
        def compute() -> Tensor:
            self.times += 1
            return 2 * weight

        doubled: Tensor = self.kept.get(weight, key, weight.nbytes, compute)
        assert doubled.equal(2 * weight)
        return doubled


def weight_of(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_nothing_is_kept_without_room():
    doubled = Doubled(room=0)
    weight = weight_of(1, 2)
    doubled.of(weight), doubled.of(weight)
    assert doubled.times == 2
    assert doubled.kept.used() == 0


def test_a_result_is_computed_once_for_each_key():
    doubled = Doubled(room=100)
    weight, other = weight_of(1, 2), weight_of(1, 2)
    for _ in range(3):
        doubled.of(weight), doubled.of(weight, "again"), doubled.of(other)
    assert doubled.times == 3
    assert doubled.kept.used() == 3 * 8


def test_no_more_is_kept_than_there_is_room():
    doubled = Doubled(room=20)
    weights = [weight_of(number, 2) for number in range(3)]
    for _ in range(2):
        for weight in weights:
            doubled.of(weight)
    assert doubled.times == 3 + 1
    assert doubled.kept.used() == 16


def test_less_room_forgets_and_more_does_not():
    doubled = Doubled(room=16)
    weight = weight_of(1, 2)
    doubled.of(weight)
    doubled.kept.give_room(8)
    doubled.of(weight)
    assert doubled.times == 1
    doubled.kept.give_room(7)
    doubled.of(weight)
    assert (doubled.times, doubled.kept.used()) == (2, 0)


def change(weight: Tensor) -> None:
    weight.add_(1)


def replace(weight: Tensor) -> None:
    weight.data = weight + 1


def change_data(weight: Tensor) -> None:
    weight.data.add_(1)


def negate_data(weight: Tensor) -> None:
    weight.data.neg_()


def change_by_numpy(weight: Tensor) -> None:
    weight.numpy()[0] += 1


@pytest.mark.parametrize("changed", [change, replace, change_data, negate_data, change_by_numpy])
def test_a_weight_that_changes_is_computed_again(changed):
    doubled = Doubled(room=100)
    weight = weight_of(1, 2)
    doubled.of(weight)
    changed(weight)
    doubled.of(weight), doubled.of(weight)
    assert doubled.times == 2
    assert doubled.kept.used() == 8


@pytest.mark.parametrize(
    "weight",
    [
        torch.randn(4, 6, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d),
        torch.randn(3, 5, 1, 3, 3),
        torch.randn(4, 3, 3, 3)[1:],
        torch.randn(4, 4)[:, ::2],
    ],
    ids=["channels last", "odd size", "odd place", "gaps"],
)
def test_a_change_of_one_value_is_seen_in_any_layout(weight):
    doubled = Doubled(room=10_000)
    doubled.of(weight)
    for number, place in enumerate([(0, 0), (-1, -1)], 1):
        weight.data[place].view(-1)[-1].nextafter_(torch.tensor(torch.inf))
        doubled.of(weight)
        assert doubled.times == 1 + number


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("impatient_threads")
def test_threads_share_what_is_kept():
    doubled = Doubled(room=8 * 100)

    def run(_: int) -> None:
        for _ in range(20):
            for weight in [weight_of(number, 2) for number in range(60)]:
                doubled.of(weight)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert doubled.kept.used() <= 8 * 100


def test_weights_that_are_trained_are_not_kept():
    doubled = Doubled(room=100)
    weight = nn.Parameter(weight_of(1, 2))
    with torch.no_grad():
        doubled.of(weight), doubled.of(weight)
    assert doubled.times == 2


def test_a_weight_of_inference_mode_is_not_kept():
    """Nothing tells whether it changed."""
    doubled = Doubled(room=100)
    with torch.inference_mode():
        weight = weight_of(1, 2)
        doubled.of(weight), doubled.of(weight)
    assert doubled.times == 2


def test_what_is_kept_is_freed_with_its_weight():
    doubled = Doubled(room=100)
    weight = weight_of(1, 2)
    doubled.of(weight)
    del weight
    gc.collect()
    assert doubled.kept.used() == 0


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> KeptWeights:
    kept = KeptWeights()
    monkeypatch.setattr(winograd, "KEPT", kept)
    return kept


@pytest.mark.skipif(not convolution.WINOGRAD, reason="no Winograd in this build of PyTorch")
@pytest.mark.parametrize("tile", [*winograd.ROOTS])
@torch.no_grad()
def test_a_convolution_transforms_its_weight_once(monkeypatch, room, tile):
    calls = []
    transformed = winograd.transformed
    monkeypatch.setattr(winograd, "transformed", lambda *given: calls.append(given) or transformed(*given))
    monkeypatch.setattr(winograd, "tile_size", lambda _x, _weight: tile)
    layer = Conv2d(8, 8, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 8, 2, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    new = convolution.conv2d(x, layer.weight, layer.bias, 1, 1)
    room.give_room(2**20)
    assert [convolution.conv2d(x, layer.weight, layer.bias, 1, 1).equal(new) for _ in range(3)] == [True] * 3
    assert len(calls) == 1 + 1
    assert room.used() == (tile + 2) ** 2 * 8 * 8 * 4


@pytest.mark.skipif(not convolution.WINOGRAD, reason="no Winograd in this build of PyTorch")
@torch.no_grad()
def test_a_convolution_of_many_tiles_keeps_nothing(monkeypatch, room):
    """There, the time to transform a weight does not count."""
    room.give_room(2**20)
    weight = torch.randn(8, 8, 1, 3, 3)
    for rows, used in ((8, 16 * 8 * 8 * 4), (8 * winograd.FEW_TILES, 0)):
        room.give_room(0), room.give_room(2**20)
        winograd.convolve(torch.randn(1, 8, 1, rows, 2), weight, None, m=2)
        assert room.used() == used
