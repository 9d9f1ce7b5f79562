"""Models that have a name: the built-in one, and the published ones with the command that downloads each.

Imports no torch. Downloads nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

BUILTIN_NAME = "builtin"
"""The built-in model, wherever the path of a model is expected. A folder of that name is `./builtin`."""

WEIGHTS_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".json")


@dataclass(frozen=True)
class Published:
    """A checkpoint that its authors published."""

    name: str
    family: str
    parameters: int
    compression: str
    latent_channels: int
    hub: str
    """owner/name of the repository on the Hugging Face hub."""
    folder: str | None
    """Its folder in the repository; empty if it is the whole repository, None if the authors do not say."""
    streams: bool

    @property
    def download(self) -> tuple[str, ...]:
        """The command that downloads it, in parts of a line."""
        return download(self.hub, self.folder)

    @property
    def path(self) -> str | None:
        """Where the command puts it; None if the folder in the repository is unknown."""
        target = self.hub.partition("/")[2]
        return None if self.folder is None else f"{target}/{self.folder}".rstrip("/")


PUBLISHED = (
    Published("Wan 2.1", "Wan", 126_892_531, "4x8x8", 16, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "vae", True),
    Published("Wan 2.2 TI2V-5B", "Wan", 704_688_668, "4x16x16", 48, "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "vae", True),
    Published("Qwen-Image", "QwenImage", 126_892_531, "4x8x8", 16, "Qwen/Qwen-Image", "vae", True),
    Published("WF-VAE-L-16Chn", "WFVAE", 317_081_244, "4x8x8", 16, "chestnutlzj/WF-VAE-L-16Chn", "", True),
    Published(
        "Open-Sora Plan v1.5", "WFVAE", 227_035_624, "8x8x8", 32, "LanguageBind/Open-Sora-Plan-v1.5.0", None, True
    ),
    Published(
        "Open-Sora Plan v1.3", "WFVAE", 147_347_660, "4x8x8", 8, "LanguageBind/Open-Sora-Plan-v1.3.0", "vae", True
    ),
    Published(
        "Open-Sora Plan v1.2", "CausalVAE", 239_189_991, "4x8x8", 4, "LanguageBind/Open-Sora-Plan-v1.2.0", "vae", False
    ),
    Published(
        "Open-Sora Plan v1.1", "CausalVAE", 246_859_499, "4x8x8", 4, "LanguageBind/Open-Sora-Plan-v1.1.0", "vae", False
    ),
)
"""The numbers of parameters follow from the published configurations."""


def is_builtin(model: str | Path | None) -> bool:
    """Return whether `model` means the built-in model. The string `./builtin` is a path."""
    return model is None or str(model) == BUILTIN_NAME


def download(repository: str, folder: str | None = "") -> tuple[str, ...]:
    """Return the command that downloads a repository of the hub, or a folder of it, in parts of a line.

    With an unknown folder (None), all files with "vae" in their path.
    """
    files = "*vae*" if folder is None else f"{folder}/*" if folder else ""
    include = (f'--include "{files}"',) if files else ()
    return (f"hf download {repository}", *include, f"--local-dir {repository.partition('/')[2]}")


def how_to_get(model: Path) -> str | None:
    """Return how to download a model that is not here, if `model` looks like a name of the hub or of a known model."""
    name = model.as_posix()
    for known in PUBLISHED:
        repository = f"/{known.hub.partition('/')[2]}/".lower()
        places = (repository, f"{repository}{known.folder}/")
        if name.lower() == known.name.lower() or f"/{name}/".lower().endswith(places):
            where = f"pass `model={known.path}`" if known.path else "pass its folder with config.json as `model`"
            return f"download it: {' '.join(known.download)}; then {where}"
    is_hub_name = re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) and model.suffix not in WEIGHTS_SUFFIXES
    if is_hub_name and not model.parent.exists():
        line = " ".join(download(name))
        return (
            f"check the path; or, if it is a WF-VAE or CausalVAE on Hugging Face, download it: {line}; then pass"
            f" `model={model.name}`"
        )
    return None
