"""Save model directories: `config.json` and weights, in the layout of diffusers, completely or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vaectl.arrays import describe
from vaectl.errors import UsageError, VaectlError, first_few
from vaectl.io.atomic_write import atomic_write, flush_to_disk, refuse_special
from vaectl.model_names import WEIGHTS
from vaectl.models.checkpoint import check_finite
from vaectl.models.config import FamilyConfig
from vaectl.models.vae import AnyVAE, VideoVAE
from vaectl.models.weights import STATE
from vaectl.urls import check_local


def save_model(
    model: AnyVAE,
    directory: str | Path,
    *,
    weights: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, str | int] = MappingProxyType({}),
    overwrite: bool = False,
) -> None:
    """Write the diffusers layout: `config.json` and one safetensors file, in the model's own precision.

    The original code and `load_model` load it without loss. `weights` replace those of the model. `metadata` is stored
    in the config, under names that begin with `_`. (In the header of the weights file its order would be random, so
    equal weights would give files with different hashes.)

    A directory that can be loaded is complete. Raises UsageError for a directory that holds a model, unless `overwrite`
    is set, or a training checkpoint, and for anything but a model; VaectlError for weights that are NaN or infinite,
    and if writing fails.
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    if not isinstance(model, VideoVAE):
        wrapped = isinstance(getattr(model, "module", None), VideoVAE)
        how = "give its .module" if wrapped else "vaectl.load_model gives a model"
        raise UsageError(f"save_model takes a model and a directory, and the model is {describe(model)}", how)
    if not isinstance(directory, str | PathLike):
        raise UsageError(f"save_model takes a model and a directory, and the directory is {describe(directory)}")
    check_local(directory, written=True)
    directory = Path(directory)
    if (directory / STATE).exists():
        raise UsageError(
            f"{directory}: holds {STATE}, so it is a training checkpoint of another model", "choose another directory"
        )
    state = weights or model.state_dict()
    check_finite(state, directory / f"{WEIGHTS}.safetensors")
    write_model(model.config, state, directory, metadata=metadata, overwrite=overwrite)


def write_model(
    config: FamilyConfig,
    weights: Mapping[str, Tensor],
    directory: Path,
    *,
    metadata: Mapping[str, str | int],
    overwrite: bool = False,
) -> None:
    """Write a model as `save_model` does, also one with NaN. Raises as that does for the directory."""
    if directory.is_file():
        raise UsageError(f"{directory}: is a file", "name a directory")
    if others := first_few(file.name for file in sorted(directory.glob("*.ckpt"))):
        raise UsageError(f"{directory}: holds {others}, which would be loaded instead", "choose another directory")
    about, file = directory / "config.json", directory / f"{WEIGHTS}.safetensors"
    for output in (about, file):
        refuse_special(output, "choose another directory")
    if not overwrite and (about.exists() or file.exists()):
        raise UsageError(f"{directory}: holds a model", "pass `overwrite` to replace it, or choose another directory")
    state = {name: tensor.contiguous() for name, tensor in weights.items()}
    values = {**config.to_json(), **{f"_{name}": value for name, value in metadata.items()}}
    with (
        atomic_write(about, overwrite=overwrite) as new_config,
        atomic_write(file, overwrite=overwrite) as new_file,
    ):
        new_config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        mode = new_file.stat().st_mode
        try:
            save_file(state, new_file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise VaectlError(f"{file}: writing failed ({error})", "free space or choose another directory") from error
        new_file.chmod(mode)  # safetensors writes files that only their owner can read
        flush_to_disk(new_file)
        if overwrite:
            about.unlink(missing_ok=True)  # a killed run must not leave the config of other weights
