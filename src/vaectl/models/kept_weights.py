"""Keep what is computed from the weights of a model, for its next run."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


class KeptWeights:
    """Results of functions of weights, up to `room` bytes in all. Nothing is kept until someone gives it room.

    Weights that are trained are never kept. What is kept is freed with its weight. Several threads may use it.
    """

    def __init__(self) -> None:
        self.room = 0
        self._kept = WeakIdKeyDictionary()
        self._lock = Lock()

    def give_room(self, size: int) -> None:
        """Set the room in bytes. Forgets everything if that is more."""
        with self._lock:
            if self._used() > size:
                self._kept.clear()
            self.room = size

    def used(self) -> int:
        """Return the bytes that are kept."""
        with self._lock:
            return self._used()

    def _used(self) -> int:
        values = self._kept.values()  # type: ignore[no-untyped-call]
        return sum(size for of_weight in values for _, _, size in of_weight.values())

    def get(self, weight: Tensor, key: object, size: int, compute: Callable[[], Any]) -> Any:
        """Return the result of `compute()`, of `size` bytes, kept or new. The `key` tells results of a weight apart."""
        if self.room == 0 or weight.requires_grad or weight.is_inference():
            return compute()
        state = (weight._version, weight.data_ptr(), sum_of_bits(weight))
        with self._lock:
            of_weight = self._kept.get(weight, {})  # type: ignore[no-untyped-call]
        if key in of_weight and of_weight[key][0] == state:
            return of_weight[key][1]
        result = compute()
        with self._lock:
            if self._used() + size <= self.room:
                of_weight = self._kept.get(weight, {})  # type: ignore[no-untyped-call]
                self._kept[weight] = of_weight | {key: (state, result, size)}
        return result


def sum_of_bits(weight: Tensor) -> int:
    """Return the sum of the bit patterns of a float32 weight. It takes a hundredth of the time of a transform.

    Changes through `weight.data` and by NumPy change it. PyTorch does not count these in the version of the weight.
    """
    order = sorted(range(weight.ndim), key=weight.stride, reverse=True)
    values = weight.detach().permute(order).contiguous().view(-1)
    is_even = values.numel() % 2 == values.storage_offset() % 2 == 0
    return int(values.view(torch.int64 if is_even else torch.int32).sum())  # of 64 bits: many times as fast
