"""The networks of diffusers, which ours are compared with."""

from __future__ import annotations

import sys
from typing import Any

import pytest


def diffusers_class(name: str) -> Any:
    """Return a class of diffusers, such as AutoencoderKLWan.

    A torchvision built for CUDA cannot be imported next to a CPU-only PyTorch. Nothing here needs it, so diffusers is
    imported as if it were not installed. Modules that diffusers imports stay: PyTorch has some that import only once.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)
        import diffusers

        return getattr(diffusers, name)
