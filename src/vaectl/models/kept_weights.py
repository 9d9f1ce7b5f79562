"""Keep what is computed from the weights of a model, for its next run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


class KeptWeights:
    """Results of functions of weights, up to `room` bytes in all. Nothing is kept until someone gives it room.

    Weights that are trained are never kept. What is kept is freed with its weight.
    """

    def __init__(self) -> None:
        self.room = 0
        self._kept = WeakIdKeyDictionary()

    def give_room(self, size: int) -> None:
        """Set the room in bytes. Forgets everything if that is more."""
        if self.used() > size:
            self._kept.clear()
        self.room = size

    def used(self) -> int:
        """Return the bytes that are kept."""
        values = self._kept.values()  # type: ignore[no-untyped-call]
        return sum(size for of_weight in values for _, _, size in of_weight.values())

    def get(self, weight: Tensor, key: object, size: int, compute: Callable[[], Any]) -> Any:
        """Return the result of `compute()`, of `size` bytes, kept or new. The `key` tells results of a weight apart."""
        if weight.requires_grad or weight.is_inference():
            return compute()
        of_weight = self._kept.get(weight, {})  # type: ignore[no-untyped-call]
        state = (weight._version, weight.data_ptr())
        if key in of_weight and of_weight[key][0] == state:
            return of_weight[key][1]
        result = compute()
        if self.used() + size <= self.room:
            self._kept[weight] = of_weight | {key: (state, result, size)}
        return result
