"""Networks, configs and checkpoints. Tensors in, tensors out."""

from vaectl.models.build import build_model
from vaectl.models.checkpoint import load_model
from vaectl.models.posterior import Posterior
from vaectl.models.save import save_model
from vaectl.models.vae import VideoVAE

__all__ = ["Posterior", "VideoVAE", "build_model", "load_model", "save_model"]
