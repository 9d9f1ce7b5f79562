"""Load model directories: `config.json` and weights, in all published layouts.

    diffusion_pytorch_model.safetensors or .bin, one file or shards with *.index.json: the diffusers layout
    *.ckpt: a training checkpoint

Of a checkpoint that has EMA weights and raw ones (`weights.py`), the EMA weights are the default.

Pickles are read with `weights_only=True`, so no code in them runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vaectl.errors import DamagedError, UsageError, VaectlError, shown
from vaectl.io.hub import fetch
from vaectl.io.parsing import size_of
from vaectl.model_names import how_to_get, hub_name, is_builtin
from vaectl.models.build import build_model, read_config
from vaectl.models.containers import INDEX, Stored, read_outline, read_values, shards
from vaectl.models.device import choose_device, choose_dtype
from vaectl.models.vae import AnyVAE
from vaectl.models.weights import STATE, WEIGHTS, Weights, available, file_with
from vaectl.progress import Progress
from vaectl.urls import check_local

BUILTIN = Path(__file__).parent / "builtin"
NEITHER = "holds neither a state dict nor a training checkpoint of a video VAE"

PUBLISHED_FORM = ("state_dict", "gen_model")
WRAPPERS = (*PUBLISHED_FORM, "model", "module", "model_state_dict")
"""Keys under which training scripts store a state dict. They may be nested."""
EIGHT_BITS = frozenset(getattr(torch, name) for name in dir(torch) if name.startswith(("float8_e4m3", "float8_e5m2")))
EIGHT_BIT_NAMES = {str(kind).removeprefix("torch.") for kind in EIGHT_BITS}
FLOATS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16}) | EIGHT_BITS

Note = Callable[[str], None]
P = TypeVar("P", str, Path, str | Path, Path | None, str | Path | None)


def silent(_note: str) -> None:
    """Ignore a note."""


def load_model(
    path: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    weights: Weights | None = None,
    note: Note = silent,
) -> AnyVAE:
    """Load a model from its directory, or from one weights file in it. None and "builtin" load the built-in model.

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
    config = read_config(directory / "config.json")
    file = file_with(weights, directory, file)
    with torch.device("meta"):
        model = build_model(config)
    expected = model.state_dict()
    check_fit(expected, read_fitting_outline(file, expected, weights, note), file)
    placed: dict[str, Tensor] = {}
    broken: list[str] = []
    too_large: list[str] = []
    for name, tensor in read_values(file, lambda stored: select(stored, expected, file, weights)):
        # A copy, because a view would keep the mapped file in memory. One by one, so that not all are in memory twice.
        placed[name] = channels_last(exact(tensor).to(where, precision, copy=True))
        if not placed[name].isfinite().all():
            (too_large if exact(tensor).isfinite().all() else broken).append(name)
    refuse_not_finite(broken, file)
    if too_large:
        kind = str(precision).removeprefix("torch.")
        remedy = "use another checkpoint" if precision == torch.float32 else "use `dtype=float32`"
        raise VaectlError(
            f"{file}: values too large for {kind} in {len(too_large)} tensors: {first_few(too_large)}", remedy
        )
    model.load_state_dict(placed, assign=True)
    return model.eval().requires_grad_(False)


def loaded_weights(path: Path | None, weights: Weights | None) -> Weights | None:
    """Return which weights `load_model` loads; None if the checkpoint does not say."""
    directory, file = locate(path)
    found = available(directory, file, read_outline(file))
    return weights or (found[0] if found else None)


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
        if not path.exists():
            remedy = how_to_get(path) or "give a directory with config.json and weights"
            raise UsageError(f"{path}: no such file or directory", remedy)
        if not path.is_dir():
            if not (path.parent / "config.json").exists():
                raise UsageError(
                    f"{path}: is no model: there is no config.json next to it",
                    "give a model directory, or one weights file in it",
                )
            return path.parent, path
        readable = (path / "config.json").exists()
    except PermissionError as error:
        raise UsageError(f"{error.filename}: no permission to read it", "change its permissions or its owner") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be opened ({reason})", "check the path and its permissions") from None
    if not readable:
        inside = sorted(child.parent for child in path.glob("*/config.json"))
        hint = f"did you mean {inside[0]}?" if inside else ""
        raise UsageError(f"{path}: holds no config.json, so it is not a model directory", hint)
    checkpoints = sorted(path.glob("*.ckpt"))
    if len(checkpoints) > 1:
        names = first_few(file.name for file in checkpoints)
        raise UsageError(f"{path}: holds several checkpoints ({names})", "give the path of one")
    layouts = [f"{WEIGHTS}{end}" for end in (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")]
    found = [*checkpoints, *(path / name for name in layouts if (path / name).exists())]
    if not found:
        raise UsageError(
            f"{path}: holds no weights", f"expected {WEIGHTS}.safetensors or .bin, sharded or not, or *.ckpt"
        )
    return path, found[0]


def locate_config(path: Path, progress: Progress | None = None) -> Path:
    """Return the `config.json` that a path means: a file, that of a model directory, or that of the built-in model.

    Raises UsageError if it does not exist; with the command that downloads it, for the name of a published model. Of a
    model on the hub, only the config is downloaded.
    """
    if name := hub_name(path):
        path = fetch(name, read_config, progress.note if progress else silent, progress, config_only=True)
    place = BUILTIN if is_builtin(path) else path
    config = place / "config.json" if place.is_dir() else place
    if not config.exists():
        raise UsageError(f"{config}: no such file", how_to_get(path) or "give the config.json of a model")
    return config


def read_fitting_outline(
    file: Path, expected: Collection[str], weights: Weights | None = None, note: Note = silent
) -> dict[str, Tensor]:
    """Return the tensors that `select` finds in a weights file, without values, on the device "meta".

    Raises like `read_outline` and `select`, and DamagedError for types that cannot be weights.
    """
    outline = select(read_outline(file), expected, file, weights, note)
    check_types(outline, expected, file)
    if small := {str(tensor.dtype).removeprefix("torch.") for tensor in outline.values()} & EIGHT_BIT_NAMES:
        note(f"{file}: its weights are in {', '.join(sorted(small))}, with 3 or 2 bits of precision: results are worse")
    return outline


def select(
    stored: Stored, expected: Collection[str], file: Path, weights: Weights | None = None, note: Note = silent
) -> dict[str, Any]:
    """Find the weights of the VAE in the content of a file, and return them under the names of the network.

    Accepts a state dict, a training checkpoint (its EMA weights, with raw weights where the EMA lacks tensors; only the
    raw weights if `weights` is raw), and formats of other tools: a mapping under another key, or names with a prefix. A
    prefix is removed only if all names match without it. `note` is called for unusual content. Raises DamagedError for
    anything else.
    """
    averages = stored.get("ema_state_dict")
    averages = averages if isinstance(averages, Mapping) and weights != "raw" else {}
    keys: list[str] = []
    while (key := next((key for key in WRAPPERS if isinstance(stored.get(key), Mapping)), None)) and len(keys) < 4:
        keys, stored = [*keys, key], stored[key]
    if averages:
        averages, _ = plain_names(named(averages, file), expected, partly=True)
        lacking = [name for name in expected if name not in averages]
        if not lacking or not keys:
            return averages
        rest, _ = plain_names(named(stored, file), expected)
        note(f"{file}: its EMA lacks {len(lacking)} of {len(expected)} tensors; their raw weights are used")
        return averages | {name: rest[name] for name in lacking if name in rest}
    plain, prefix = plain_names(named(stored, file), expected)
    usual = not keys or tuple(keys) == PUBLISHED_FORM or file.name == STATE
    ways = [] if usual else [f"under {'.'.join(keys)}"]
    ways += [f"with {shown(prefix)} in their names"] * bool(prefix)
    if ways:
        note(f"{file}: holds its weights {' and '.join(ways)}")
    return plain


def named(state: Stored, file: Path) -> dict[str, Any]:
    """Check that all keys are names. Raises DamagedError if not."""
    if not all(isinstance(name, str) for name in state):
        raise DamagedError(f"{file}: {NEITHER}: its tensors have no names")
    return dict(state)


def plain_names(
    state: dict[str, Any], expected: Collection[str], *, partly: bool = False
) -> tuple[dict[str, Any], str]:
    """Rename entries to the names of the network. Return them and the removed prefix. `partly`: some may be missing.

    `torch.compile` inserts `_orig_mod.` into names. DDP, Lightning and others put a prefix in front of all names.
    """
    # The first CausalVAE checkpoints contain the networks of their loss.
    own = {name: value for name, value in state.items() if not name.startswith("loss.")}
    names, some = set(expected), next(iter(own), "").replace("_orig_mod.", "")
    prefixes = ["", *(some.removesuffix(name) for name in expected if some.endswith(f".{name}"))]
    for compiled in ("", "_orig_mod."):
        for prefix in prefixes:
            plain = {name.replace(compiled, "") if compiled else name: value for name, value in own.items()}
            plain = {name.removeprefix(prefix): value for name, value in plain.items() if name.startswith(prefix)}
            plain = {name: value for name, value in plain.items() if not name.startswith("loss.")}
            if (plain.keys() <= names if partly else plain.keys() == names) and plain:
                return plain, compiled + prefix
    return own, ""


def check_types(given: Mapping[str, Any], expected: Collection[str], file: Path) -> None:
    """Check that all values are tensors, and those that the network expects are dense floating-point tensors.

    Integers are quantised weights, which are useless without their scales. Raises DamagedError.
    """
    if not all(isinstance(value, Tensor) for value in given.values()):
        raise DamagedError(f"{file}: {NEITHER}")
    given = {name: given[name] for name in expected if name in given}
    odd = {
        name: "sparse" if tensor.layout != torch.strided else str(tensor.dtype).removeprefix("torch.")
        for name, tensor in given.items()
        if tensor.dtype not in FLOATS or tensor.layout != torch.strided or tensor.is_nested
    }
    if odd:
        kinds = ", ".join(sorted(set(odd.values())))
        raise DamagedError(
            f"{file}: {len(odd)} tensors are {kinds}: {first_few(odd)}",
            "get the weights in float32, bfloat16 or float16",
        )
    held = sum(part.stat().st_size for part in parts(file))
    if (claimed := sum(tensor.numel() * tensor.element_size() for tensor in given.values())) > held:
        raise DamagedError(f"{file}: has {held} bytes, but its tensors are of {claimed}", "download it again")


def parts(file: Path) -> list[Path]:
    """Return the weights files: the file, or those of an index. Raises UsageError if one is missing."""
    found = shards(file) if file.name.endswith(INDEX) else [file]
    for part in found:
        size_of(part)
    return found


def exact(tensor: Tensor) -> Tensor:
    """Convert float8 to float32, because PyTorch does not compute in float8. Exact."""
    return tensor.float() if tensor.dtype in EIGHT_BITS else tensor


def check_fit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], file: Path) -> None:
    """Compare names and shapes with those of the network. Raises VaectlError if they differ."""
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
        raise VaectlError(f"{file}: does not fit the config.json next to it: {listed}")


def check_finite(state: Mapping[str, Tensor], file: Path) -> None:
    """Raise VaectlError if a weight is NaN or infinite."""
    refuse_not_finite([name for name, tensor in state.items() if not tensor.isfinite().all()], file)


def refuse_not_finite(names: Collection[str], file: Path) -> None:
    """Raise VaectlError for the named tensors, if any. Such weights come from a training run that diverged."""
    if names:
        raise VaectlError(f"{file}: NaN or infinite values in {len(names)} tensors: {first_few(names)}")


def first_few(names: Iterable[str], count: int = 3) -> str:
    """Format the first names from a file for a message."""
    names = iter(names)
    first = [shown(name) for name in islice(names, count)]
    return ", ".join(first) + (", …" if any(True for _ in names) else "")
