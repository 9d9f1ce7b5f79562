"""What a config describes that is no model of vaectl: for the message that refuses it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vaectl.errors import UsageError, shown

IMAGE_VAES = frozenset(
    {
        *("AsymmetricAutoencoderKL", "AutoencoderDC", "AutoencoderKL", "AutoencoderKLFlux2"),
        *("AutoencoderKLHunyuanImage", "AutoencoderKLHunyuanImageRefiner", "AutoencoderKLKVAE", "AutoencoderRAE"),
        *("AutoencoderTiny", "ConsistencyDecoderVAE", "VQModel"),
    }
)
"""Classes of diffusers that encode single images."""
VIDEO_VAES = frozenset(
    {
        *("AutoencoderKLAllegro", "AutoencoderKLCogVideoX", "AutoencoderKLCosmos", "AutoencoderKLHunyuanVideo"),
        *("AutoencoderKLHunyuanVideo15", "AutoencoderKLKVAEVideo", "AutoencoderKLLTX2Video", "AutoencoderKLLTXVideo"),
        *("AutoencoderKLMagvit", "AutoencoderKLMochi", "AutoencoderKLTemporalDecoder", "AutoencoderVidTok"),
    }
)
"""Other classes of diffusers that encode videos."""


def refuse_config(path: Path, values: Mapping[str, Any], known: Collection[str]) -> UsageError:
    """Return the error for a config.json of another model: what it describes, and what to give instead."""
    name, parts = values.get("_class_name"), values.get("architectures") or values.get("model_type")
    if name is None and parts:  # a config of the transformers library
        part = parts[0] if isinstance(parts, list) else parts
        return UsageError(f"{path}: is the config of a {shown(str(part))}, not of a VAE", vae_near(path.parent))
    called = name if isinstance(name, str) else ""
    if re.search(r"Transformer|UNet|ControlNet|^WanModel$", called):
        return UsageError(
            f"{path}: unknown _class_name {shown(repr(name))}, a diffusion network, not a VAE", vae_near(path.parent)
        )
    kind = ", an image VAE" if called in IMAGE_VAES else ", another video VAE" if called in VIDEO_VAES else ""
    *others, last = known
    return UsageError(
        f"{path}: unknown _class_name {shown(repr(name))}{kind}", f"vaectl reads {', '.join(others)} and {last}"
    )


GIVE_VAE = "give the vae/ folder, or the file of the VAE, in its repository"


def vae_near(directory: Path, otherwise: str = GIVE_VAE) -> str:
    """Return which folder to give instead of another part of the same repository; `otherwise` if it is not here."""
    for root in (directory, directory.parent):
        if (root / "vae" / "config.json").is_file():
            return f"give {root / 'vae'}"
    return otherwise
