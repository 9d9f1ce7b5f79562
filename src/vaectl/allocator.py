"""Control how the process keeps or returns freed memory while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vaectl.memory import obtainable, resident, return_freed, reuse_freed
from vaectl.models import winograd
from vaectl.models.layers import Layer
from vaectl.models.vae import AnyVAE

MAX_HELD_RATIO = 1.5
"""The most memory that a process may hold, as a ratio to the peak of what it uses."""
LARGE_NETWORK = 50_000_000
"""Parameters."""
LARGE_TENSOR = 2**24
"""Bytes. For smaller tensors, it is not worth the time to fetch new memory."""
KEPT_RATIO = 2.0
"""The memory at which a small network without a limit returns freed memory, as a ratio to what it uses."""
KEPT_SHARE = 0.5
"""The same, as a share of the obtainable memory. The smaller one counts."""
WEIGHTS_SHARE = 1 / 16
"""The most memory for transformed weights, as a share of the obtainable memory."""


def keep_within(model: AnyVAE, limit: int) -> None:
    """Make PyTorch refuse to exceed the limit on a GPU: cuDNN then uses less scratch space, and gaps are freed.

    Other tensors on the GPU, such as the networks of metrics, are not counted.
    """
    others = torch.cuda.memory_allocated(model.device) - sum(weight.nbytes for weight in model.parameters())
    total = torch.cuda.mem_get_info(model.device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (limit + max(0, others)) / total), model.device)


def is_large(model: AnyVAE) -> bool:
    """Whether computing takes much longer than fetching memory."""
    return sum(weight.numel() for weight in model.parameters()) >= LARGE_NETWORK


def reuse_memory(model: AnyVAE, *, tight: bool, limited: bool = True) -> None:
    """Keep freed blocks for reuse, up to a size: reuse is fast, but leaves gaps between blocks.

    The size is smaller if memory is `tight`, or for a large network within a limit. A small network without a limit
    keeps all blocks. Without a limit, transformed weights are kept too, for the next window and the next clip: with the
    same results, bit for bit. On a GPU, PyTorch does this itself.
    """
    if model.device.type != "cpu":
        return
    room = 0 if tight or limited else round(WEIGHTS_SHARE * obtainable(model.device))
    winograd.KEPT.give_room(room)
    if tight:
        reuse_freed(2**23)
    elif is_large(model) and limited:
        reuse_freed(2**24)
    elif is_large(model) or limited:
        reuse_freed()
    else:
        reuse_freed(2**30)


@contextmanager
def returning_freed(model: AnyVAE, *, limited: bool = True) -> Iterator[Callable[[], None]]:
    """Within the block, return freed memory before the layers that make the largest tensors: gaps rarely fit them.

    This means: after each layer that enlarges frames. Yields a function that does the same between windows. A small
    network without a limit on memory keeps freed memory, because new pages take a quarter of its time: until the
    process holds `KEPT_RATIO` times what it uses at these points, or `KEPT_SHARE` of what it can obtain. On a GPU,
    PyTorch does this itself.
    """
    on_cpu = model.device.type == "cpu"
    most = 0 if limited or not on_cpu or is_large(model) else round(KEPT_SHARE * obtainable(model.device))
    kept = most and min(most, resident())

    def return_excess() -> None:
        nonlocal kept
        if most == 0:
            return_freed()
        elif resident() > kept:
            return_freed()
            kept = max(kept, min(most, round(KEPT_RATIO * resident())))

    def after(_layer: nn.Module, inputs: tuple[Any, ...], y: Any) -> None:
        x = inputs[0]
        if y.nbytes > max(x.nbytes, LARGE_TENSOR) and y.shape[3] > x.shape[3]:
            return_excess()

    layers = [layer for layer in model.modules() if isinstance(layer, Layer)] if on_cpu else []
    hooks = [layer.register_forward_hook(after) for layer in layers]
    try:
        yield return_excess
    finally:
        for hook in hooks:
            hook.remove()
