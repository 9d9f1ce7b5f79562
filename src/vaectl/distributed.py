"""The processes of a job that `torchrun` starts: ranks, rendezvous and collectives.

Reads the environment that `torchrun` sets. A process that was started alone is rank 0 of 1. Imports torch only if there
are several processes.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from vaectl.errors import UsageError, VaectlError, shown
from vaectl.options.common import RENDEZVOUS_TIMEOUT
from vaectl.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def rank() -> int:
    """Return the number of this process, from 0. Raises UsageError for an environment that torchrun does not set."""
    number, count = _from_environment("RANK", 0), world_size()
    if number >= count > 1:
        raise UsageError(f"RANK is {number}, but WORLD_SIZE is {count}", "start with torchrun, which sets both")
    return number if count > 1 else 0


def local_rank() -> int:
    """Return the number of this process on this machine, from 0. Raises as `rank` does."""
    number = _from_environment("LOCAL_RANK", rank())
    return number if world_size() > 1 else 0


def world_size() -> int:
    """Return the number of processes. Raises as `rank` does."""
    return _from_environment("WORLD_SIZE", 1, least=1)


def _from_environment(name: str, default: int, least: int = 0) -> int:
    text = os.environ.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < least:
        raise UsageError(
            f"{name} is {shown(repr(text))} in the environment, not a whole number of at least {least}",
            "start with torchrun, which sets it, or unset it to run one process",
        )
    return int(text)


def share() -> str:
    """Return how messages name the part of the work that this process does; "" for all of it."""
    return f"rank {rank()} of {world_size()}" if world_size() > 1 else ""


def is_main() -> bool:
    """Return whether this process is rank 0, which shows messages and writes files."""
    return rank() == 0


def device_of_rank(device: str) -> str:
    """Return a GPU for each process of a machine if `device` is auto or cuda, else `device`."""
    if world_size() == 1 or device not in ("auto", "cuda"):
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{local_rank() % count}" if count else device


def backends_for(device: str) -> str:
    """Return the backends of torch.distributed for tensors on the CPU and on `device` (auto, cpu, cuda:1, …).

    NCCL is only used with a GPU: CUDA builds of PyTorch always have it, but NCCL 2.30 does not start without a GPU.
    """
    import torch
    import torch.distributed as dist

    uses_gpu = device.partition(":")[0] in ("auto", "cuda") and torch.cuda.is_available()
    return "cpu:gloo,cuda:nccl" if uses_gpu and dist.is_nccl_available() else "gloo"


RENDEZVOUS = "vaectl-rendezvous"
"""Name of the thread that waits for the other processes. It cannot be stopped, and must not delay the exit."""
NOTE_AFTER_SECONDS = 10.0
"""Seconds after which a process reports what it waits for."""
STOPPED = "rank {}: another process has stopped"
STOPPED_REMEDY = "see its message, and start all again"


@contextmanager
def process_group(progress: Progress, timeout: float = RENDEZVOUS_TIMEOUT, device: str = "auto") -> Iterator[None]:
    """Connect the processes for the duration of the block. It starts when all of them are connected.

    If a process leaves the block by an exception, the others get a VaectlError at their next collective. `progress`
    shows a note if connecting takes long. `device` says where models run. Raises UsageError if not all processes are
    connected within `timeout` seconds.
    """
    if rank() == local_rank() == 0 and world_size() == 1:
        yield
        return
    backends = backends_for(device)
    if "nccl" in backends:
        import torch

        torch.cuda.set_device(device_of_rank(device))  # NCCL waits on this device
    meet(progress, timeout, backends)
    try:
        yield
    except KeyboardInterrupt:
        raise  # ending the group would wait for the others; they notice that this process ends
    except BaseException as error:
        _leave_group()
        if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in ("gloo", "nccl")):
            raise VaectlError(STOPPED.format(rank()), STOPPED_REMEDY) from error
        raise
    _leave_group()


def meet(progress: Progress, timeout: float, backends: str) -> None:
    """Wait up to `timeout` seconds until all processes are connected. Signals are handled while waiting."""
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    host, port = _rendezvous_address()
    failures: list[Exception] = []

    def join() -> None:
        try:
            # Our timeout is shorter, because PyTorch would print its own error.
            store, _, _ = next(iter(rendezvous("env://", timeout=timedelta(seconds=timeout + 60))))
            store.set_timeout(COLLECTIVE_TIMEOUT)
            dist.init_process_group(
                backends, store=store, rank=rank(), world_size=world_size(), timeout=COLLECTIVE_TIMEOUT
            )
        except Exception as error:
            failures.append(error)

    waiting = Thread(target=join, name=RENDEZVOUS, daemon=True)  # the main thread would not handle signals in there
    begun = time.monotonic()
    waiting.start()
    waiting.join(min(NOTE_AFTER_SECONDS, timeout))
    where = f"{host}:{port}"
    others = f"the other {world_size() - 1} of {world_size()} processes"
    if waiting.is_alive() and timeout > NOTE_AFTER_SECONDS:
        progress.note(f"rank {rank()}: waiting for {others} at {where}, at most {timeout:g} s")
        waiting.join(max(0.0, begun + timeout - time.monotonic()))
    if waiting.is_alive() or (failures and time.monotonic() - begun >= timeout):
        raise UsageError(
            f"rank {rank()}: {others} did not connect to {where} within {timeout:g} s",
            "start all of them with torchrun, unset WORLD_SIZE to run one process, or raise `rendezvous_timeout`",
        )
    if failures:
        reason = shown(str(failures[0]).strip().partition("\n")[0], 200)
        raise UsageError(f"rank {rank()}: cannot connect to the other processes ({reason})", "start with torchrun")


def _leave_group() -> None:
    """Destroy the process group of this process."""
    import torch.distributed as dist

    # PyTorch 2.4 waits for its threads while it holds the GIL, which they need to free the last tensors.
    time.sleep(0.1)
    dist.destroy_process_group()


def _rendezvous_address() -> tuple[str, int]:
    """Return host and port of the rendezvous. Raises UsageError if they are not valid."""
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    remedy = "start with torchrun, which sets it, or unset WORLD_SIZE to run one process"
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise UsageError(f"MASTER_PORT is {shown(repr(port))} in the environment, not a port from 1 to 65535", remedy)
    try:
        socket.getaddrinfo(host or " ", int(port))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"MASTER_ADDR is {shown(repr(host))} in the environment, a host that cannot be found ({reason})", remedy
        ) from None
    return host, int(port)


def wait_for_others() -> None:
    """Wait until every process has called this. Raises VaectlError if one has ended."""
    if world_size() == 1:
        return
    import torch.distributed as dist

    failures: list[RuntimeError] = []

    def wait() -> None:
        try:
            dist.barrier()
        except RuntimeError as error:
            failures.append(error)

    waiting = Thread(target=wait, daemon=True)  # the main thread would not handle signals in the barrier
    waiting.start()
    waiting.join()
    if failures:
        raise VaectlError(STOPPED.format(rank()), STOPPED_REMEDY)


def gather(value: T) -> list[T]:
    """Return the values of all processes by rank on rank 0, and an empty list on the others. Waits for all."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    wait_for_others()
    values: list[T] | None = [value] * world_size() if is_main() else None
    dist.gather_object(value, values)
    return values or []


COLLECTIVE_TIMEOUT = timedelta(weeks=4)
"""Long, because the slowest process may work on a clip for hours. A process that ends is noticed at once."""


def mean(tensor: Tensor) -> Tensor:
    """Return the mean over all ranks of a tensor of the same shape on each."""
    if world_size() == 1:
        return tensor
    import torch.distributed as dist

    total = tensor.clone()
    dist.all_reduce(total)
    return total / world_size()


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Copy the values of rank 0 to all ranks, in place."""
    if world_size() == 1:
        return
    import torch.distributed as dist

    for tensor in tensors:
        values = tensor.contiguous()  # convolution weights may be channels-last
        dist.broadcast(values, src=0)
        if values is not tensor:
            tensor.copy_(values)


def any_rank(flags: Sequence[bool]) -> list[bool]:
    """Return for each flag whether any rank has it set."""
    if world_size() == 1:
        return list(flags)
    import torch
    import torch.distributed as dist

    votes = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return [bool(vote) for vote in votes]
