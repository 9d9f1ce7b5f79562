"""The job behind `vaectl models`: describe a model directory, and list the published checkpoints.

Only the header of a file is read, so a large checkpoint needs no memory.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vaectl.io.hub import commit_of
from vaectl.model_names import PUBLISHED as PUBLISHED
from vaectl.model_names import Published as Published
from vaectl.models.checkpoint import build_on_meta, check_fit, check_types, config_of, downloaded, locate, parts
from vaectl.models.containers import read_outline
from vaectl.models.names import select
from vaectl.models.weights import Weights, available, file_with, metadata
from vaectl.progress import Progress, Silent


@dataclass(frozen=True)
class ModelFacts:
    """The content of a model directory."""

    path: str
    """The weights file, or the index of several."""
    family: str
    """Short name of the class, which `model_name` takes."""
    class_name: str
    """`_class_name` of the config."""
    version: str | None
    """Which of the models that share the class: Wan 2.1 or Wan 2.2; None for other classes."""
    parameters: int
    compression: str
    """Factors for time, height and width: 4x8x8."""
    latent_channels: int
    dtype: str
    """Type of the stored values; if there are several, the most frequent first."""
    bytes: int
    """Size on disk."""
    weights: Weights | None
    """The weights described here: ema, a moving average over the training, or raw; None if unknown."""
    available: tuple[Weights, ...]
    """The weights in the checkpoint, the default first; empty if unknown."""
    step: int | None
    """Training step; None if unknown."""
    streams: bool
    """Whether clips run window by window, so that memory does not grow with their length."""
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    """Normalization of latents for training on them: (z - shift)·scale."""
    commit: str | None = None
    """The commit of a model of the hub."""


def describe(
    path: str | Path | None = None, weights: Weights | None = None, *, progress: Progress | None = None
) -> ModelFacts:
    """Describe the model at `path`: as in `load_model`; None and "builtin": the built-in model.

    `weights`: of a checkpoint that has both; None for the default. `progress` shows a download and notes.
    Raises UsageError or VaectlError as `load_model` does, but does not check for NaN and infinity.
    """
    directory, file = locate(downloaded(path, progress=progress))
    config = config_of(directory, file, (progress or Silent()).note)
    model = build_on_meta(config)
    found = available(directory, file, read_outline(file))
    file = file_with(weights, directory, file)
    stored = read_outline(file)
    expected = model.state_dict()
    tensors = select(stored, expected, file, weights)
    check_types(tensors, expected, file)
    check_fit(expected, tensors, file, config)
    step = stored.get("current_step", metadata(directory, file).get("_step"))
    dtypes = Counter[str]()
    for tensor in tensors.values():
        dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    shift, scale = config.latent_statistics
    return ModelFacts(
        path=str(file),
        family=config.family,
        class_name=config.class_name,
        version=config.version,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        compression=f"{config.time_compression}x{config.space_compression}x{config.space_compression}",
        latent_channels=config.latent_channels,
        dtype=", ".join(name for name, _ in dtypes.most_common()),
        bytes=sum(part.stat().st_size for part in parts(file)),
        weights=weights or (found[0] if found else None),
        available=found,
        step=step if isinstance(step, int) else None,
        streams=model.streams,
        shift=shift,
        scale=scale,
        commit=commit_of(path),
    )
