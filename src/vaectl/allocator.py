"""Control how the process keeps or returns freed memory while a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vaectl.memory import return_freed, reuse_freed
from vaectl.models.layers import Layer
from vaectl.models.vae import AnyVAE

MAX_HELD_RATIO = 1.5
"""The most memory that a process may hold, as a ratio to the peak of what it uses."""
LARGE_NETWORK = 50_000_000
"""Parameters."""
LARGE_TENSOR = 2**24
"""Bytes. For smaller tensors, it is not worth the time to fetch new memory."""


def keep_within(model: AnyVAE, limit: int) -> None:
    """Make PyTorch refuse to exceed the limit on a GPU: cuDNN then uses less scratch space, and gaps are freed.

    Other tensors on the GPU, such as the networks of metrics, are not counted.
    """
    others = torch.cuda.memory_allocated(model.device) - sum(weight.nbytes for weight in model.parameters())
    total = torch.cuda.mem_get_info(model.device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (limit + max(0, others)) / total), model.device)


def keep_freed(model: AnyVAE, *, tight: bool) -> None:
    """Keep freed blocks for reuse, up to a size: reuse is fast, but leaves gaps between blocks.

    The size is smaller if memory is `tight`, or if computing takes much longer than fetching memory. On a GPU, PyTorch
    does this itself.
    """
    if model.device.type != "cpu":
        return
    if tight:
        reuse_freed(2**23)
    elif sum(weight.numel() for weight in model.parameters()) >= LARGE_NETWORK:
        reuse_freed(2**24)
    else:
        reuse_freed()


@contextmanager
def returning_freed(model: AnyVAE) -> Iterator[None]:
    """Within the block, return freed memory before the layers that make the largest tensors: gaps rarely fit them.

    This means: after each layer that enlarges frames. On a GPU, PyTorch does this itself.
    """

    def after(_layer: nn.Module, inputs: tuple[Any, ...], y: Any) -> None:
        x = inputs[0]
        if y.nbytes > max(x.nbytes, LARGE_TENSOR) and y.shape[3] > x.shape[3]:
            return_freed()

    layers = [layer for layer in model.modules() if isinstance(layer, Layer)] if model.device.type == "cpu" else []
    hooks = [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
