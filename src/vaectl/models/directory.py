"""Find the weights in a directory, in the layouts that people have.

    a diffusers directory       config.json and diffusion_pytorch_model.*
    a training checkpoint       config.json and *.ckpt
    a pipeline repository       model_index.json, and a diffusers directory vae/
    a repository of Wan         Wan2.1_VAE.pth or Wan2.2_VAE.pth, and the files of other networks

Looks at the names of files and at config.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vaectl.errors import UsageError, first_few
from vaectl.model_names import LAYOUTS, WEIGHTS
from vaectl.models.build import has_config, read_config
from vaectl.models.containers import UNQUANTISED

PIPELINE = "model_index.json"
ORIGINAL_SUFFIXES = (".pth", ".pt", ".safetensors")


def find_weights(directory: Path) -> tuple[Path, Path]:
    """Return the model directory, which may be the vae/ in this one, and its weights: a file, or the index of shards.

    A training checkpoint comes before the other files, as in the original code. Raises UsageError if something is
    missing or ambiguous, and for the directory of another model.
    """
    directory = vae_of(directory)
    ours, described = has_config(directory), (directory / "config.json").exists()
    if ours and (checkpoints := sorted(directory.glob("*.ckpt"))):
        return directory, only(checkpoints, "checkpoints")
    if ours or not described:
        if found := [directory / name for name in LAYOUTS if (directory / name).exists()]:
            return directory, found[0]
        if variants := sorted(file for end in ("safetensors", "bin") for file in directory.glob(f"{WEIGHTS}.*.{end}")):
            return directory, only(variants, "variants of the weights")
    files = sorted(file for file in directory.iterdir() if not file.name.startswith("."))
    if originals := [file for file in files if file.suffix in ORIGINAL_SUFFIXES and "vae" in file.name.lower()]:
        return directory, only(originals, "VAEs")
    if described and not ours:
        read_config(directory / "config.json")  # raises, and says what it is
    if quantised := [file.name for file in files if file.suffix == ".gguf"]:
        raise UsageError(f"{directory}: holds only GGUF files ({first_few(quantised)})", UNQUANTISED)
    if ours:
        raise UsageError(
            f"{directory}: holds no weights", f"expected {WEIGHTS}.safetensors or .bin, sharded or not, or *.ckpt"
        )
    if (directory / PIPELINE).exists():
        raise UsageError(f"{directory}: holds a pipeline without its vae/", "download that folder too")
    inside = sorted(
        (file.parent for file in directory.glob("*/config.json")), key=lambda part: (part.name != "vae", part)
    )
    hint = f"did you mean {inside[0]}?" if inside else ""
    raise UsageError(f"{directory}: holds no config.json, so it is not a model directory", hint)


def vae_of(directory: Path) -> Path:
    """Return the vae/ of a pipeline repository, or the directory itself if it is a model or has none."""
    vae = directory / "vae"
    is_pipeline = (directory / PIPELINE).exists() and (vae / "config.json").exists()
    return vae if is_pipeline and not has_config(directory) else directory


def only(files: Sequence[Path], what: str) -> Path:
    """Return the only file. Raises UsageError if there are several."""
    if len(files) > 1:
        names = first_few(file.name for file in files)
        raise UsageError(f"{files[0].parent}: holds several {what} ({names})", "give the path of one")
    return files[0]
