"""An exponential moving average (EMA) of the weights of a model in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """average ← decay·average + (1 - decay)·weights, for each trained parameter. Buffers are copied once."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._merge = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # untyped in PyTorch
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self._trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the averages with the weights of `model`, after a step."""
        parameters = dict(model.named_parameters())
        averages = [self.weights[name] for name in self._trained]
        self._merge(averages, [parameters[name].detach() for name in self._trained], 0)

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Swap the averages into `model` inside the block. Nothing is copied."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def _swap(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.data, self.weights[name] = self.weights[name], parameter.data
