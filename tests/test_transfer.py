"""Copies to and from a GPU, on a GPU that is simulated: it does its work as late as it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from vaectl import transfer

HOST, GPU = torch.device("cpu"), torch.device("cuda:0")


class Stream:
    """Work in order, which is done when something waits for it."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []
        self.done = 0

    def finish(self, count: int) -> None:
        while self.done < count:
            self.done += 1
            self.work[self.done - 1]()

    def wait_stream(self, other: Stream) -> None:
        count = len(other.work)
        self.work.append(lambda: other.finish(count))


class Event:
    def __init__(self, *, blocking: bool) -> None:
        pass

    def record(self, stream: Stream) -> None:
        self.stream, self.count = stream, len(stream.work)

    def synchronize(self) -> None:
        self.stream.finish(self.count)


class Value:
    """A tensor that holds one value, and knows which streams may use its memory."""

    shape, dtype = (), torch.uint8

    def __init__(self, gpu: Simulation, device: torch.device, value: object = None, *, pinned: bool = False) -> None:
        self.gpu, self.device, self.value, self.pinned = gpu, device, value, pinned
        self.streams = {gpu.stream}

    def contiguous(self) -> Value:
        return self

    def record_stream(self, stream: Stream) -> None:
        self.streams.add(stream)

    def copy_(self, other: Value, non_blocking: bool = False) -> Value:
        assert self.pinned
        if other.device == HOST:
            self.value = other.value
        else:
            self.gpu.copy(other, self, non_blocking)
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> Value:
        assert self.pinned
        made = Value(self.gpu, device)
        self.gpu.copy(self, made, non_blocking)
        return made


class Simulation:
    """Takes the place of `torch` in `transfer`."""

    def __init__(self) -> None:
        self.computing = self.stream = Stream()
        self.copied: list[tuple[Value, Stream]] = []
        self.cuda = SimpleNamespace(
            stream=self.within, current_stream=lambda _device: self.stream, Event=Event, Stream=lambda _device: Stream()
        )

    def empty(self, _shape: object, dtype: torch.dtype, pin_memory: bool) -> Value:
        return Value(self, HOST, pinned=pin_memory)

    def empty_like(self, _x: Value, pin_memory: bool) -> Value:
        return Value(self, HOST, pinned=pin_memory)

    @contextmanager
    def within(self, stream: Stream) -> Iterator[None]:
        before, self.stream = self.stream, stream
        yield
        self.stream = before

    def copy(self, source: Value, target: Value, non_blocking: bool) -> None:
        assert non_blocking, "the host waits"
        self.copied += [(each, self.stream) for each in (source, target) if each.device == GPU]
        self.stream.work.append(lambda: setattr(target, "value", source.value))

    def compute(self, x: Value) -> Value:
        """Add 1 on the GPU."""
        made = Value(self, GPU)
        self.copied.append((x, self.computing))
        self.computing.work.append(lambda: setattr(made, "value", x.value + 1))
        return made


@pytest.fixture
def gpu(monkeypatch) -> Iterator[Simulation]:
    simulation = Simulation()
    monkeypatch.setattr(transfer, "torch", simulation)
    transfer.copy_streams.cache_clear()
    yield simulation
    transfer.copy_streams.cache_clear()


def test_values_arrive_although_nobody_waits_in_between(gpu):
    source = Value(gpu, HOST, 1)
    given = transfer.upload(source, GPU)
    source.value = 5  # the next window
    results = [transfer.download(gpu.compute(given)), transfer.download(gpu.compute(transfer.upload(source, GPU)))]
    assert not gpu.computing.done
    assert [wait().value for wait in results] == [2, 6]
    for value, stream in gpu.copied:
        assert stream in value.streams, "its memory could be reused before this stream has read it"


def test_a_copy_to_the_gpu_does_not_wait_for_what_is_computed(gpu):
    waiting = transfer.download(gpu.compute(transfer.upload(Value(gpu, HOST, 1), GPU)))
    transfer.upload(Value(gpu, HOST, 5), GPU)
    to_gpu, _ = transfer.copy_streams(GPU)
    to_gpu.finish(len(to_gpu.work))
    assert not gpu.computing.done
    assert waiting().value == 2


def test_on_the_cpu_a_tensor_stays_and_is_contiguous():
    x = torch.arange(6).reshape(2, 3)
    assert transfer.upload(x, HOST) is x
    assert torch.equal(transfer.download(x)(), x)
    assert transfer.download(x.T)().is_contiguous()
