"""Networks through `torch.compile`, whole clips and windows. Knows no options, and no network."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

from vaectl.errors import UsageError, VaectlError, shown

Run = TypeVar("Run", bound=Callable[..., Any])

GRAPHS = 1 << 16
"""Most graphs of one function. PyTorch stops at 8: a first, a middle and a last window of both networks are 6."""


def compiled(run: Run, *args: Any, **kwargs: Any) -> Run:
    """Return `run` through `torch.compile`, which takes the other arguments.

    By default it is one graph for each shape of its inputs (`fullgraph=True, dynamic=False`). Symbolic shapes take
    seven times as long to trace, and with PyTorch 2.4 the result serves no other shape. The returned function never
    runs uncompiled: it raises VaectlError if compiling fails.
    """
    optimized = torch.compile(run, *args, **{"fullgraph": True, "dynamic": False, **kwargs})

    @wraps(run)
    def checked(*args: Any) -> Any:
        from torch._dynamo import config, exc  # slow to import: only once a network is compiled

        try:
            with config.patch(cache_size_limit=GRAPHS, accumulated_cache_size_limit=GRAPHS):
                return optimized(*args)
        except exc.TorchDynamoException as error:
            raise VaectlError(f"torch.compile failed: {reason(error)}", "leave out `compile`") from error

    return cast(Run, checked)


def check_compiler(device: torch.device) -> None:
    """Raise UsageError if `torch.compile` does not work on `device`: it needs a C++ compiler, and on a GPU Triton."""
    try:
        torch.compile(torch.neg, fullgraph=True)(torch.ones(8, device=device))
    except Exception as error:  # of the compiler, of Triton, of the operating system
        raise UsageError(
            f"`compile`: torch.compile does not work on {device}: {reason(error)}",
            "leave it out, or install what is missing",
        ) from error


def reason(error: BaseException) -> str:
    """Return the reason in one line. PyTorch wraps it in an error of its own, and adds advice."""
    error = getattr(error, "inner_exception", error)
    return shown(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__), 200)
