"""Copy between host memory and a GPU next to its computations: the host never waits for a copy that it starts.

There is one stream for each direction, because a GPU copies both ways at once. On other devices, copies are plain ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Arrived = Callable[[], Tensor]
"""Waits for a copy and returns it."""


@cache
def copy_streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """Return the streams for copies to a GPU and from it. Always the same, because PyTorch reuses memory by stream."""
    return torch.cuda.Stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def upload(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from host memory to `device`. On a GPU, what is computed next waits for it, and the host does not.

    It copies through pinned memory, so `x` may change at once.
    """
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    to_gpu, _ = copy_streams(device)
    pinned = torch.empty_like(x, pin_memory=True).copy_(x)  # dense: a single copy in the order of memory
    with torch.cuda.stream(to_gpu):
        made = pinned.to(device, non_blocking=True)
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(to_gpu)
    made.record_stream(computing)
    return made


def download(x: Tensor) -> Arrived:
    """Begin to copy a tensor to host memory. The function that it returns waits for the copy, which is contiguous."""
    if x.device.type != "cuda":
        made = x.cpu().contiguous()
        return lambda: made
    _, to_host = copy_streams(x.device)
    dense = x.contiguous()
    pinned = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    to_host.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(to_host):
        pinned.copy_(dense, non_blocking=True)
        # Blocking: the thread that waits leaves the processor to others.
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        copied.record(to_host)
    dense.record_stream(to_host)

    def wait() -> Tensor:
        copied.synchronize()
        return pinned

    return wait
