"""How the process allocates memory while a model runs: which freed blocks it keeps, and when it returns them."""

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
"""Bytes. For smaller tensors, fetching new memory costs more time than returning it saves."""


def keep_within(model: AnyVAE, limit: int) -> None:
    """Make PyTorch refuse to go beyond the limit on a GPU: cuDNN then uses less scratch space, and gaps are freed.

    What others hold there, such as the networks of metrics, is not counted.
    """
    others = torch.cuda.memory_allocated(model.device) - sum(weight.nbytes for weight in model.parameters())
    total = torch.cuda.mem_get_info(model.device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (limit + max(0, others)) / total), model.device)


def keep_freed(model: AnyVAE, *, tight: bool) -> None:
    """Keep freed blocks for reuse, which is fast, up to a size: there are gaps between them.

    Small ones only if memory is `tight`, and if fetching memory is cheap compared with the computation. On a GPU,
    PyTorch does this itself.
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

    That is after a layer that enlarges frames. On a GPU, PyTorch does this itself.
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
