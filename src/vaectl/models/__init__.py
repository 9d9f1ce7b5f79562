"""The networks, their configs and their checkpoints: pure tensors in, tensors out."""

from .checkpoint import build_model, load_model, save_model
from .posterior import Posterior
from .vae import VideoVAE

__all__ = ["Posterior", "VideoVAE", "build_model", "load_model", "save_model"]
