"""Load models: a `config.json` and weights, in all layouts that `directory.py` and `names.py` know.

Of a checkpoint that has EMA weights and raw ones (`weights.py`), the EMA weights are the default.

Pickles are read with `weights_only=True`, so no code in them runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vaectl.errors import DamagedError, UsageError, VaectlError, first_few, shown
from vaectl.io.hub import fetch
from vaectl.io.parsing import exists, size_of
from vaectl.model_names import how_to_get, hub_name, is_builtin
from vaectl.models.build import Note, build_model, has_config, read_config, silent, validated
from vaectl.models.config import FamilyConfig
from vaectl.models.containers import UNQUANTISED, is_index, is_weights, read_outline, read_values, shards
from vaectl.models.device import choose_device, choose_dtype
from vaectl.models.directory import check_whole, find_weights, vae_of
from vaectl.models.families.wan_config import AutoencoderKLWanConfig
from vaectl.models.families.wan_original import config_fields, differences, incomplete, is_original
from vaectl.models.names import NEITHER, named, select, unwrapped
from vaectl.models.vae import AnyVAE
from vaectl.models.weights import Weights, available, file_with
from vaectl.progress import Progress
from vaectl.urls import check_local

BUILTIN = Path(__file__).parent / "builtin"
FLOATS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})

P = TypeVar("P", str, Path, str | Path, Path | None, str | Path | None)


def load_model(
    path: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    weights: Weights | None = None,
    note: Note = silent,
) -> AnyVAE:
    """Load a model from its directory, or from one weights file in it. None and "builtin" load the built-in model.

    The root of a pipeline repository means the vae/ in it. A file of the VAE of Wan or Qwen-Image needs no config.json.
    `owner/name`, `owner/name@revision` and `owner/name/folder` load a model from the Hugging Face hub.

    The model is in evaluation mode, without gradients. `device` is auto (a CUDA GPU if there is one), cpu, cuda, cuda:N
    or mps. `dtype` is auto (bfloat16 on GPUs that support it, else float32), float32, bfloat16 or float16. `weights`
    chooses between the weights of a training checkpoint: ema (their moving average) or raw; None loads the EMA weights
    if there are any. `note` is called with one line if the weights are stored in an unusual way.

    Raises UsageError or VaectlError for a missing directory, a missing or invalid config, no or several weights files,
    a damaged or unsafe file, names or shapes that do not match, integers, values that are not finite, and a checkpoint
    without the `weights`. Names, shapes and types are checked before values are read.
    """
    where = choose_device(device)
    precision = choose_dtype(dtype, where)
    directory, file = locate(downloaded(path, note))
    config = config_of(directory, file, note)
    file = file_with(weights, directory, file)
    model = build_on_meta(config).to(precision)
    expected = model.state_dict()
    check_fit(expected, read_fitting_outline(file, expected, weights, note), file, config)
    placed: dict[str, Tensor] = {}
    broken: list[str] = []
    too_large: list[str] = []
    for name, tensor in read_values(file, lambda stored: select(stored, expected, file, weights)):
        # A copy, because a view would keep the mapped file in memory. One by one, so that not all are in memory twice.
        placed[name] = channels_last(tensor.to(where, expected[name].dtype, copy=True))
        if not placed[name].isfinite().all():
            (too_large if tensor.isfinite().all() else broken).append(name)
    refuse_not_finite(broken, file)
    if too_large:
        kind = str(precision).removeprefix("torch.")
        remedy = "use another checkpoint" if precision == torch.float32 else "use `dtype=float32`"
        raise VaectlError(
            f"{file}: values too large for {kind} in {counted(too_large)}: {first_few(too_large)}", remedy
        )
    model.load_state_dict(placed, assign=True)
    return model.eval().requires_grad_(False)


def loaded_weights(path: Path | None, weights: Weights | None) -> Weights | None:
    """Return which weights `load_model` loads; None if the checkpoint does not say."""
    directory, file = locate(path)
    found = available(directory, file, read_outline(file))
    return weights or (found[0] if found else None)


def build_on_meta(config: FamilyConfig) -> AnyVAE:
    """Build the network of a config without values, on the device "meta"."""
    with torch.device("meta"):
        return build_model(config)


def channels_last(weight: Tensor) -> Tensor:
    """Convert the weight of a convolution to channels-last memory format. Other tensors are unchanged."""
    if weight.ndim == 4:
        return weight.contiguous(memory_format=torch.channels_last)
    return weight.contiguous(memory_format=torch.channels_last_3d) if weight.ndim == 5 else weight


def downloaded(path: P, note: Note = silent, progress: Progress | None = None) -> P | Path:
    """Return the path of a model in the cache if `path` is its name on the hub, else `path`. Raises as `fetch` does."""
    name = hub_name(path)
    return fetch(name, read_config, progress.note if progress else note, progress) if name else path


def locate(path: str | Path | None) -> tuple[Path, Path]:
    """Return the model directory and its weights: one file, or the index of a sharded checkpoint.

    None and "builtin" are the built-in model. A name on the hub is downloaded if it is not in the cache. A training
    checkpoint comes before the other files, as in the original code. Raises UsageError if something is missing or
    ambiguous, and as `downloaded` does.
    """
    check_local(path)
    path = BUILTIN if path is None or is_builtin(path) else Path(downloaded(path))
    try:
        if not exists(path):
            remedy = how_to_get(path) or "give a directory with config.json and weights"
            raise UsageError(f"{in_message(path)}: no such file or directory", remedy)
        if path.is_dir():
            return find_weights(path)
        check_whole(path)
        return path.parent, path
    except PermissionError as error:
        raise UsageError(f"{error.filename}: no permission to read it", "change its permissions or its owner") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{in_message(path)}: cannot be opened ({reason})", "check the path and its permissions"
        ) from None


def in_message(path: Path) -> str:
    """Return a path for a message: a long one is cut, and one that ends with a space is quoted."""
    text = shown(str(path), 300)
    return repr(text) if text != text.strip() else text


def config_of(directory: Path, file: Path, note: Note = silent) -> FamilyConfig:
    """Return the config of a located model: its config.json, or what the names and shapes of the weights imply.

    These are enough for Wan. A config.json of a class that vaectl does not have is that of another network in the same
    repository. `note` is called as `read_config` does, and for diffusers weights without a config. Raises UsageError if
    there is no config, and as `read_config`, `read_outline` and `check_fit` do.
    """
    path = directory / "config.json"
    ours = has_config(directory)
    if not (is_weights(file) or (ours and file.suffix.lower() != ".json")):
        raise UsageError(f"{file}: is no model", "give a model directory, or a file of weights")
    if ours:
        return read_config(path, note)
    stored = read_outline(file)
    state = named(unwrapped(stored)[1], file)
    original, fields = is_original(unwrapped(stored)[1]), config_fields(state)
    if fields is None:
        lost = incomplete(state)
        if lost and (original or len(lost) < 3):
            raise DamagedError(
                f"{file}: is not a whole AutoencoderKLWan: missing or of another shape: {first_few(lost)}",
                "download it again",
            )
        if exists(path):
            return read_config(path, note)
        raise UsageError(
            f"{file}: its folder holds no config.json, and its names are not those of Wan or Qwen-Image",
            "give a folder with both",
        )
    config = validated(fields, AutoencoderKLWanConfig, file)
    expected = build_on_meta(config).state_dict()
    outline = select(stored, expected, file)
    check_types(outline, expected, file)
    check_fit(expected, outline, file, implied=True)
    if not original:
        note(f"{file}: has no config.json of its own; its names and shapes are those of an AutoencoderKLWan")
    return config


def locate_config(path: Path, progress: Progress | None = None) -> Path:
    """Return the `config.json` that a path means: a file, that of a model directory, or that of the built-in model.

    Of a model without one, its weights. Raises UsageError if it does not exist; with the command that downloads it, for
    the name of a published model; and as `locate` does. Of a model on the hub, only the config is downloaded.
    """
    if name := hub_name(path):
        path = fetch(name, read_config, progress.note if progress else silent, progress, config_only=True)
    place = BUILTIN if is_builtin(path) else path
    if not exists(place):
        raise UsageError(f"{in_message(place)}: no such file", how_to_get(path) or "give the config.json of a model")
    if not place.is_dir():
        return place
    directory = vae_of(place)
    return directory / "config.json" if has_config(directory) else locate(place)[1]


def config_at(file: Path, note: Note = silent) -> FamilyConfig:
    """Read what `locate_config` returns. Raises as `read_config` and `config_of` do."""
    return config_of(file.parent, file, note) if is_weights(file) else read_config(file, note)


def read_fitting_outline(
    file: Path, expected: Collection[str], weights: Weights | None = None, note: Note = silent
) -> dict[str, Tensor]:
    """Return the tensors that `select` finds in a weights file, without values, on the device "meta".

    Raises like `read_outline` and `select`, and DamagedError for types that cannot be weights.
    """
    outline = select(read_outline(file), expected, file, weights, note)
    check_types(outline, expected, file)
    return outline


def check_types(given: Mapping[str, Any], expected: Collection[str], file: Path) -> None:
    """Check that all values are tensors, and those that the network expects are dense floating-point tensors.

    Integers are quantised weights, which are useless without their scales. Raises DamagedError.
    """
    if plain := [str(name) for name, value in given.items() if not isinstance(value, Tensor)]:
        raise DamagedError(f"{file}: {NEITHER}: these are no tensors: {first_few(plain)}")
    given = {name: given[name] for name in expected if name in given}
    odd = {
        name: "sparse" if tensor.layout != torch.strided else str(tensor.dtype).removeprefix("torch.")
        for name, tensor in given.items()
        if tensor.dtype not in FLOATS or tensor.layout != torch.strided or tensor.is_nested
    }
    if odd:
        kinds = ", ".join(sorted(set(odd.values())))
        count = f"{len(odd)} tensors are" if len(odd) > 1 else "1 tensor is"
        raise DamagedError(f"{file}: {count} {kinds}: {first_few(odd)}", UNQUANTISED)
    held = sum(part.stat().st_size for part in parts(file))
    if (claimed := sum(tensor.numel() * tensor.element_size() for tensor in given.values())) > held:
        raise DamagedError(f"{file}: has {held} bytes, but its tensors are of {claimed}", "download it again")


def parts(file: Path) -> list[Path]:
    """Return the weights files: the file, or those of an index. Raises UsageError if one is missing."""
    found = shards(file) if is_index(file) else [file]
    for part in found:
        size_of(part)
    return found


def check_fit(
    expected: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    file: Path,
    config: FamilyConfig | None = None,
    *,
    implied: bool = False,
) -> None:
    """Compare names and shapes with those of the network. Raises VaectlError if they differ.

    With `config`, the error names the fields in which weights of Wan differ from it. `implied`: the network is the one
    that the weights of a Wan imply.
    """
    problems = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in given and given[name].shape != tensor.shape
        ],
    }
    if any(problems.values()):
        listed = " / ".join(f"{len(names)} {what}: {first_few(names)}" for what, names in problems.items() if names)
        if implied:
            raise VaectlError(f"{file}: is not a whole AutoencoderKLWan: {listed}", "download it again")
        differing = differences(config, given) if config else ""
        raise VaectlError(
            f"{file}: does not fit the config.json next to it: {differing or listed}",
            "get the config.json of these weights" if differing else "",
        )


def check_finite(state: Mapping[str, Tensor], file: Path) -> None:
    """Raise VaectlError if a weight is NaN or infinite."""
    refuse_not_finite([name for name, tensor in state.items() if not tensor.isfinite().all()], file)


def refuse_not_finite(names: Collection[str], file: Path) -> None:
    """Raise VaectlError for the named tensors, if any. Such weights come from a training run that diverged."""
    if names:
        problem = f"{file}: NaN or infinite values in {counted(names)}: {first_few(names)}"
        raise VaectlError(problem, "use an earlier checkpoint, or download it again")


def counted(names: Collection[str]) -> str:
    """Return the number of named tensors in words: 1 tensor, 2 tensors."""
    return f"{len(names)} tensor{'s' * (len(names) != 1)}"
