"""Freed memory while a model runs: kept for reuse without a limit, returned with one."""

import pytest
import torch
from torch import nn

from vaectl import allocator, engine
from vaectl.allocator import returning_freed
from vaectl.engine import HostOverhead, prepare_run
from vaectl.memory import Limits
from vaectl.models import load_model, winograd
from vaectl.models.context import StreamContext
from vaectl.models.layers import Layer
from vaectl.progress import Silent


class Enlarge(Layer):
    """Doubles frames, to a tensor large enough to be worth a return of freed memory."""

    def input_halo(self, halo):
        return halo

    def forward(self, x, context):
        return x.repeat(1, 1, 1, 2, 2)


class Network(nn.Module):
    device = torch.device("cpu")

    def __init__(self, parameters):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parameters, device="meta"))
        self.layer = Enlarge()


@pytest.fixture
def returned(monkeypatch):
    calls = []
    monkeypatch.setattr(allocator, "return_freed", lambda: calls.append(1))
    return calls


@pytest.mark.parametrize(
    ("parameters", "limited", "resident", "times"),
    [(10, False, 499, 0), (10, False, 501, 2), (10, True, 1, 2), (allocator.LARGE_NETWORK, False, 1, 2)],
    ids=["room", "over half", "limit", "large network"],
)
def test_freed_memory_is_kept_while_there_is_room_and_no_limit(
    monkeypatch, returned, parameters, limited, resident, times
):
    monkeypatch.setattr(allocator, "obtainable", lambda _: 1000)
    monkeypatch.setattr(allocator, "resident", lambda: resident)
    network = Network(parameters)
    x = torch.zeros(1, 1, 1, 1024, 1280)
    with returning_freed(network, limited=limited) as return_excess:
        network.layer(x, StreamContext())
        return_excess()
    network.layer(x, StreamContext())
    assert len(returned) == times


def test_kept_memory_does_not_grow_with_the_clip(monkeypatch):
    """Each window leaves 20 bytes of gaps, and a later clip begins with the gaps of the one before."""
    held = [100]
    monkeypatch.setattr(allocator, "obtainable", lambda _: 10_000)
    monkeypatch.setattr(allocator, "resident", lambda: held[-1])
    monkeypatch.setattr(allocator, "return_freed", lambda: held.append(100))
    for _clip in range(5):
        with returning_freed(Network(10), limited=False) as return_excess:
            for _window in range(50):
                held.append(held[-1] + 20)
                return_excess()
    assert max(held) == allocator.KEPT_RATIO * 100 + 20
    assert held.count(100) < 100  # most windows keep the gaps


@pytest.mark.parametrize(
    ("limits", "share"),
    [
        (Limits(), allocator.WEIGHTS_SHARE),
        (Limits(tiled=True, memory_limit=2**31), 0),
        (Limits(low_memory=True), 0),
    ],
    ids=["untiled", "limit", "low memory"],
)
def test_transformed_weights_are_kept_without_a_limit_only(monkeypatch, limits, share):
    monkeypatch.setattr(allocator, "obtainable", lambda _: 2**32)
    for room in (0, 2**40):  # of a run before
        monkeypatch.setattr(winograd.KEPT, "room", room)
        prepare_run(load_model(), 9, 64, 64, limits, HostOverhead(per_frame=0, fixed=0), Silent())
        assert winograd.KEPT.room == share * 2**32


@pytest.mark.parametrize("limits", [Limits(), Limits(tiled=True, memory_limit=2**31)], ids=["untiled", "limit"])
def test_only_a_limit_measures_the_libraries(monkeypatch, limits):
    """It takes a second."""
    measured, budgets = [], []
    monkeypatch.setattr(engine, "process_memory", lambda: measured.append(1) or 2**28)
    plain, make_plan = HostOverhead.of(stored=1024, frame=1024, shown=1024), engine.make_plan

    def spy(model, frames, height, width, budget, **options):
        budgets.append(budget)
        return make_plan(model, frames, height, width, budget, **options)

    monkeypatch.setattr(engine, "make_plan", spy)
    prepare_run(load_model(device="cpu"), 5, 32, 32, limits, plain, Silent())
    assert len(measured) == len(budgets) == limits.tiled
    assert all(budget.fixed == plain.fixed + 2**28 for budget in budgets)


@pytest.mark.parametrize("freed", [0, 40])
def test_the_libraries_take_the_same_whatever_was_freed_before(monkeypatch, freed):
    """Loading a model leaves more free heap in one run than in the next, and the import of 70 MiB uses that first.

    Else the smallest limit that a message names would be too small in the next run.
    """
    held, free = 370 * 2**20, freed * 2**20

    def return_freed():
        nonlocal held, free
        held, free = held - free, 0

    def import_module(_name):
        nonlocal held
        held += 70 * 2**20 - free

    monkeypatch.setattr(engine, "return_freed", return_freed, raising=False)
    monkeypatch.setattr(engine, "import_module", import_module)
    monkeypatch.setattr(engine, "resident", lambda: held)
    monkeypatch.setattr(engine, "AT_IMPORT", 250 * 2**20)
    assert engine.process_memory.__wrapped__() == 320 * 2**20
