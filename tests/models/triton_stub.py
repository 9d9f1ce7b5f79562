"""The part of Triton's language that the kernel uses, on tensors of the CPU: for machines without Triton."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor


class Pointer:
    """The address of values in a tensor."""

    def __init__(self, values: Tensor, at: Tensor | int = 0) -> None:
        self.values, self.at, self.dtype = values, at, SimpleNamespace(element_ty=values.dtype)

    def __add__(self, at: Tensor) -> Pointer:
        return Pointer(self.values, self.at + at)


def load(pointer: Pointer, *, mask: Tensor, other: float) -> Tensor:
    flat = pointer.values.view(-1)
    assert not (mask & ((pointer.at < 0) | (pointer.at >= len(flat)))).any(), "read beyond the tensor"
    return torch.where(mask, flat[pointer.at.clamp(0, len(flat) - 1)], torch.tensor(other, dtype=flat.dtype))


def store(pointer: Pointer, values: Tensor, *, mask: Tensor) -> None:
    mask = mask.expand(values.shape)
    assert values.dtype == pointer.values.dtype
    pointer.values.view(-1)[pointer.at.expand(values.shape)[mask]] = values[mask]


class Kernel:
    def __init__(self, function) -> None:
        self.function = function

    def __getitem__(self, grid: tuple[int]):
        def run(*arguments, **constants):
            pointers = [Pointer(each) if isinstance(each, Tensor) else each for each in arguments]
            for number in range(grid[0]):
                language.program_id = lambda axis, number=number: torch.tensor(number, dtype=torch.int32)
                self.function(*pointers, **constants)

        return run


language = ModuleType("triton.language")
vars(language).update(
    {name: getattr(torch, name) for name in ("float32", "int64", "arange", "where", "sqrt", "sigmoid")},
    sum=torch.sum,
    constexpr=int,
    maximum=lambda x, least: x.clamp_min(least),
    load=load,
    store=store,
)
triton = ModuleType("triton")
triton.language = language
triton.jit = lambda **_: Kernel


def install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.language", language)
