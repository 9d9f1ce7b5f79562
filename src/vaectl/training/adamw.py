"""AdamW, fast for convolutions in channels-last memory format."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class AdamW(torch.optim.AdamW):
    """PyTorch's AdamW. Its fused kernel for the CPU takes a third of the time.

    The kernel copies tensors whose dimensions have another order in memory, so it gets views in that order. It takes
    values by their place in memory, so gradients and states get the memory format of their weight.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of any memory format."""
        super().load_state_dict(state_dict)
        for weight, state in self.state.items():
            for name, value in state.items():
                if value.shape == weight.shape:
                    state[name] = in_format_of(weight, value)

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        result = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        weights: list[Tensor] = lists[0]
        if group["fused"]:
            gradients: list[Tensor] = lists[1]
            gradients[:] = map(in_format_of, weights, gradients)
            orders = [sorted(range(weight.ndim), key=weight.stride, reverse=True) for weight in weights]
            for tensors in (each for each in lists if isinstance(each, list) and each):
                if tensors[0].ndim == weights[0].ndim:  # not the numbers of steps
                    tensors[:] = [x.permute(order) for x, order in zip(tensors, orders, strict=True)]
        return result


def in_format_of(weight: Tensor, x: Tensor) -> Tensor:
    """Return `x` in the memory format of a weight."""
    return x if x.stride() == weight.stride() else torch.empty_like(weight, dtype=x.dtype).copy_(x)
