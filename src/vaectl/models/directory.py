"""Find the weights in a directory, in the layouts that people have.

    a diffusers directory       config.json and diffusion_pytorch_model.*
    a training checkpoint       config.json and *.ckpt
    a pipeline repository       model_index.json, and a diffusers directory vae/
    a repository of Wan         Wan2.1_VAE.pth or Wan2.2_VAE.pth, and the files of other networks

Looks at the names of files and at config.json.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vaectl.errors import UsageError, first_few
from vaectl.io.parsing import exists
from vaectl.model_names import LAYOUTS, WEIGHTS
from vaectl.models.build import has_config, read_config
from vaectl.models.containers import UNQUANTISED, is_index, is_shard
from vaectl.models.other_models import vae_near

PIPELINE = "model_index.json"
ORIGINAL_SUFFIXES = (".pth", ".pt", ".safetensors", ".sft")
CACHED = "models--"
"""How the folder of a repository in the cache of Hugging Face begins. It has snapshots/, blobs/ and refs/."""


def find_weights(directory: Path) -> tuple[Path, Path]:
    """Return the model directory, which may be the vae/ in this one, and its weights: a file, or the index of shards.

    A training checkpoint comes before the other files, as in the original code. Raises UsageError if something is
    missing or ambiguous, and for the directory of another model.
    """
    directory = vae_of(directory)
    ours, described = has_config(directory), exists(directory / "config.json")
    if ours and (checkpoints := sorted(directory.glob("*.ckpt"))):
        return directory, only(checkpoints, "checkpoints")
    if ours or not described:
        if found := [directory / name for name in LAYOUTS if exists(directory / name)]:
            return directory, found[0]
        parts = sorted(
            file
            for file in directory.glob(f"{WEIGHTS}[.-]*")
            if file.suffix in (".safetensors", ".bin") or is_index(file)
        )
        variants = [file for file in parts if file.name.startswith(f"{WEIGHTS}.") and not is_shard(file)]
        if variants:
            return directory, only(variants, "variants of the weights")
        for file in parts:
            check_whole(file)
    files = sorted(file for file in directory.iterdir() if not file.name.startswith("."))
    if originals := [file for file in files if file.suffix.lower() in ORIGINAL_SUFFIXES and "vae" in file.name.lower()]:
        return directory, only(originals, "VAEs")
    if described and not ours:
        read_config(directory / "config.json")  # raises, and says what it is
    if quantised := [file.name for file in files if file.suffix == ".gguf"]:
        raise UsageError(f"{directory}: holds only GGUF files ({first_few(quantised)})", UNQUANTISED)
    if ours:
        raise UsageError(
            f"{directory}: holds no weights", f"expected {WEIGHTS}.safetensors or .bin, sharded or not, or *.ckpt"
        )
    if exists(directory / PIPELINE):
        raise UsageError(f"{directory}: holds a pipeline without its vae/", "download that folder too")
    inside = sorted(
        (file.parent for file in directory.glob("*/config.json")), key=lambda part: (part.name != "vae", part)
    )
    hint = f"did you mean {inside[0]}?" if inside else in_cache(directory) or vae_near(directory, "")
    raise UsageError(f"{directory}: holds no config.json, so it is not a model directory", hint)


def vae_of(directory: Path) -> Path:
    """Return the vae/ of a pipeline repository, or the directory itself if it is a model or has none."""
    vae = directory / "vae"
    if has_config(directory) or not exists(directory / PIPELINE):
        return directory
    return vae if exists(vae / "config.json") else directory


def check_whole(file: Path) -> None:
    """Raise UsageError for one of several shards: with their index, which is what to give, or that it is missing."""
    if is_shard(file):
        index = file.with_name(re.sub(r"(\.\w+)?-\d{5}-of-\d{5}(\.\w+)$", r"\2.index\1.json", file.name))
        remedy = f"give their index, {index}" if index.exists() else f"download their index too, {index.name}"
        raise UsageError(f"{file}: is one of several shards", remedy)


def in_cache(directory: Path) -> str:
    """Return which folder to give instead of one of the cache of Hugging Face; empty for another directory."""
    root = next((each for each in (directory, directory.parent) if each.name.startswith(CACHED)), None)
    snapshots = sorted(root.glob("snapshots/*")) if root else []
    if root is None or not snapshots:
        return ""
    main = root / "refs" / "main"
    commit = main.read_text(errors="replace").strip() if main.is_file() else ""
    snapshot = next((each for each in snapshots if each.name == commit), snapshots[0])
    return f"it is in the cache of Hugging Face: give {snapshot}"


def only(files: Sequence[Path], what: str) -> Path:
    """Return the only file. Raises UsageError if there are several."""
    if len(files) > 1:
        names = first_few(file.name for file in files)
        raise UsageError(f"{files[0].parent}: holds several {what} ({names})", "give the path of one")
    return files[0]
