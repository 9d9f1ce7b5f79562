"""Checkpoints: everything that a run needs to resume, in a directory that is also a model.

    config.json, diffusion_pytorch_model.safetensors   the model, with its EMA weights if there are any
    training_state.pt                                  raw weights, optimizers, discriminator, position
    training.json                                      the options and other facts of the run

A checkpoint is written under a temporary name and then renamed, so a directory with its final name is complete. No file
is called *.ckpt, because the original code would load that instead.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from vaectl.errors import DamagedError, OutOfMemoryError, UsageError, VaectlError
from vaectl.io.atomic_write import atomic_write, flush_to_disk
from vaectl.io.json_values import write_json
from vaectl.models.containers import load_pickle
from vaectl.models.weights import STATE
from vaectl.shortage import is_memory_shortage, system_reason
from vaectl.training.run_dir import UNFINISHED, checkpoint_name
from vaectl.training.whole import FACTS, sums_of


def write_checkpoint(
    run: Path, step: int, write_model: Callable[[Path], None], state: Mapping[str, Any], facts: Mapping[str, Any]
) -> Path:
    """Write the checkpoint of `step` and return its path. Raises VaectlError if that fails, and leaves no files."""
    target, temporary = run / checkpoint_name(step), run / f"{UNFINISHED}{checkpoint_name(step)}-{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_model(temporary)
        with (temporary / STATE).open("wb") as state_file:  # if PyTorch opens the file, its errors give no reason
            torch.save(dict(state), state_file)
        whole = {**facts, "files": sums_of(temporary)}
        (temporary / FACTS).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        for file in (*temporary.iterdir(), temporary):
            flush_to_disk(file)
        temporary.rename(target)
        flush_to_disk(run)
    except (OSError, RuntimeError, MemoryError, SafetensorError, VaectlError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_memory_shortage(error):
            raise OutOfMemoryError(f"{target}: not written, out of memory", "free some") from error
        raise VaectlError(f"{target}: not written ({system_reason(error)})", "free space, or check the disk") from error
    return target


def amend_facts(checkpoint: Path, changes: Mapping[str, Any]) -> None:
    """Replace some values in the training.json of a complete checkpoint. Raises as `atomic_write` does, or OSError."""
    file = checkpoint / FACTS
    text = json.dumps({**json.loads(file.read_bytes()), **changes}, indent=2)
    with atomic_write(file, overwrite=True) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_options(run: Path, options: Mapping[str, Any]) -> None:
    """Write options.json. Raises as `atomic_write` does."""
    write_json(run / "options.json", options)


def read_state(checkpoint: Path, device: torch.device) -> dict[str, Any]:
    """Return the `state` that `write_checkpoint` stored, on `device`. Raises VaectlError for a damaged file."""
    return read_pickle(checkpoint / STATE, device)


def read_discriminator(path: Path) -> dict[str, Tensor]:
    """Return the discriminator's weights from a checkpoint of vaectl or a published training checkpoint (*.ckpt).

    Raises UsageError if it has none, VaectlError for a damaged file.
    """
    ours = path / STATE
    stored = read_pickle(ours if ours.is_file() else path, torch.device("cpu"))
    inner = stored.get("state_dict")
    weights = stored.get("discriminator") or (inner.get("dics_model") if isinstance(inner, dict) else None)
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise UsageError(f"{path}: holds no discriminator", "leave out `load_disc_from_checkpoint`")
    names = {name: name.removeprefix("module.").removeprefix("discriminator.") for name in weights}
    found = {name: weights[stored_name] for stored_name, name in names.items() if name.startswith("main.")}
    if not all(isinstance(value, Tensor) for value in found.values()):
        raise DamagedError(f"{path}: its discriminator is damaged", "leave out `load_disc_from_checkpoint`")
    return found


def read_pickle(file: Path, device: torch.device) -> dict[str, Any]:
    """Return the content of a pickle of PyTorch, on `device`. Raises DamagedError if that is not possible."""
    try:
        return load_pickle(file, device, mapped=False)
    except DamagedError:
        raise DamagedError(f"{file}: cannot be read as a training checkpoint", "take another checkpoint") from None
