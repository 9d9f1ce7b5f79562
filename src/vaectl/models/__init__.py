"""Networks, configs and checkpoints. Tensors in, tensors out.

Each name is imported on first use, so parts that need no network (`vaectl.models.device`) do not import all of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaectl.models.build import build_model as build_model
    from vaectl.models.checkpoint import load_model as load_model
    from vaectl.models.posterior import Posterior as Posterior
    from vaectl.models.save import save_model as save_model
    from vaectl.models.vae import VideoVAE as VideoVAE

_HOMES = {
    "Posterior": "posterior",
    "VideoVAE": "vae",
    "build_model": "build",
    "load_model": "checkpoint",
    "save_model": "save",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
