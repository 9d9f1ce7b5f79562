"""Networks, configs and checkpoints. Tensors in, tensors out.

Each name is imported on first use, so parts that need no network (`vaectl.models.device`) do not import all of them.
"""

from typing import TYPE_CHECKING

from vaectl.lazy import attributes

if TYPE_CHECKING:
    from vaectl.models.build import build_model as build_model
    from vaectl.models.checkpoint import load_model as load_model
    from vaectl.models.posterior import Posterior as Posterior
    from vaectl.models.save import save_model as save_model
    from vaectl.models.vae import VideoVAE as VideoVAE

_HOMES = {
    "Posterior": "vaectl.models.posterior",
    "VideoVAE": "vaectl.models.vae",
    "build_model": "vaectl.models.build",
    "load_model": "vaectl.models.checkpoint",
    "save_model": "vaectl.models.save",
}

__all__ = list(_HOMES)
__getattr__, __dir__ = attributes(__name__, _HOMES)
