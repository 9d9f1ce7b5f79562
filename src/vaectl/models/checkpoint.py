"""Model directories: `config.json` beside weights, in each of the containers in which they are published.

    diffusion_pytorch_model.safetensors or .bin, whole or in shards with *.index.json: the diffusers layout
    *.ckpt: a training checkpoint, of which the EMA weights win

Nothing here executes code from a pickle: they are read with `weights_only=True`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vaectl.errors import DamagedError, UsageError, VaectlError, shown
from vaectl.io.parsing import size_of
from vaectl.models.config import CausalVAEConfig, FamilyConfig, WFVAEConfig, read_config
from vaectl.models.containers import INDEX, Stored, read_outline, read_values, shards
from vaectl.models.device import choose_device, choose_dtype
from vaectl.models.families.causalvae import CausalVAE
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.vae import AnyVAE

WEIGHTS = "diffusion_pytorch_model"
BUILTIN = Path(__file__).parent / "builtin"
NEITHER = "holds neither a state dict nor a training checkpoint of a video VAE"

PUBLISHED_FORM = ("state_dict", "gen_model")
WRAPPERS = (*PUBLISHED_FORM, "model", "module", "model_state_dict")
"""Under which keys training scripts put a state dict, perhaps one within the other."""
EIGHT_BITS = frozenset(getattr(torch, name) for name in dir(torch) if name.startswith(("float8_e4m3", "float8_e5m2")))
EIGHT_BIT_NAMES = {str(kind).removeprefix("torch.") for kind in EIGHT_BITS}
FLOATS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16}) | EIGHT_BITS

Note = Callable[[str], None]


def silent(_note: str) -> None:
    """Says nothing."""


NETWORKS: dict[type[FamilyConfig], type[AnyVAE]] = {WFVAEConfig: WFVAE, CausalVAEConfig: CausalVAE}
"""The network of each family."""


def build_model(config: FamilyConfig) -> AnyVAE:
    """The network of a config, with new random weights."""
    return NETWORKS[type(config)](config)


def load_model(
    path: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    note: Note = silent,
) -> AnyVAE:
    """A published or trained model from its directory (or from one weights file in it); None is the built-in model.

    The model comes in evaluation mode, without gradients. `device` is auto (a CUDA GPU if there is one), cpu, cuda,
    cuda:N or mps; `dtype` is auto (bfloat16 on GPUs that compute in it, else float32), float32, bfloat16 or float16.

    `note` takes a line about weights that are stored in another way than the published ones.

    Raises UsageError or VaectlError, in one line: no such directory, no or an invalid config, no or several weights
    files, a damaged or unsafe file, names or shapes that do not fit, integers, values that are not finite. Names,
    shapes and types are compared before any value is read.
    """
    where = choose_device(device)
    precision = choose_dtype(dtype, where)
    directory, weights = locate(BUILTIN if path is None else Path(path))
    config = read_config(directory / "config.json")
    with torch.device("meta"):
        model = build_model(config)
    expected = model.state_dict()
    check_fit(expected, read_fitting_outline(weights, expected, note), weights)
    placed: dict[str, Tensor] = {}
    broken: list[str] = []
    too_large: list[str] = []
    for name, tensor in read_values(weights, lambda stored: select(stored, expected, weights)):
        # Copied, or every small tensor would keep what is mapped in memory; one by one, so as not to hold all twice.
        placed[name] = channels_last(exact(tensor).to(where, precision, copy=True))
        if not placed[name].isfinite().all():
            (too_large if exact(tensor).isfinite().all() else broken).append(name)
    refuse_not_finite(broken, weights)
    if too_large:
        kind = str(precision).removeprefix("torch.")
        remedy = "use another checkpoint" if precision == torch.float32 else "use `dtype=float32`"
        raise VaectlError(
            f"{weights}: values too large for {kind} in {len(too_large)} tensors: {first_few(too_large)}", remedy
        )
    model.load_state_dict(placed, assign=True)
    return model.eval().requires_grad_(False)


def save_model(
    model: AnyVAE,
    directory: str | Path,
    *,
    weights: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, str | int] = MappingProxyType({}),
) -> None:
    """Write the diffusers layout: `config.json` and one safetensors file, in the model's own precision.

    The original code loads it, and so does `load_model`, bit by bit. `weights` may stand in for the model's own.
    `metadata` goes into the config, with names that begin with `_`. (In the head of the weights file its order would be
    a matter of chance, and equal weights would give files with different hashes.)
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in (weights or model.state_dict()).items()}
    config, file = directory / "config.json", directory / f"{WEIGHTS}.safetensors"
    values = {**model.config.to_json(), **{f"_{name}": value for name, value in metadata.items()}}
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_file(state, file, metadata={"format": "pt"})
    file.chmod(config.stat().st_mode)  # safetensors lets nobody else read what it writes


def channels_last(weight: Tensor) -> Tensor:
    """The weight of a convolution in the memory layout of the activations; any other tensor as it is."""
    if weight.ndim == 4:
        return weight.contiguous(memory_format=torch.channels_last)
    return weight.contiguous(memory_format=torch.channels_last_3d) if weight.ndim == 5 else weight


def locate(path: Path) -> tuple[Path, Path]:
    """The model directory and its weights: one file, or the index of a sharded checkpoint.

    A training checkpoint goes before the other containers, as in the original code.
    """
    try:
        if not path.exists():
            raise UsageError(f"{path}: no such file or directory", "give a directory with config.json and weights")
        if not path.is_dir():
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


def read_fitting_outline(file: Path, expected: Collection[str], note: Note = silent) -> dict[str, Tensor]:
    """The generator's tensors in a weights file as `select` finds them, without values: on the device "meta".

    Raises as `read_outline` and `select` do, and DamagedError for types of numbers that are no weights.
    """
    outline = select(read_outline(file), expected, file, note)
    check_types(outline, expected, file)
    if small := {str(tensor.dtype).removeprefix("torch.") for tensor in outline.values()} & EIGHT_BIT_NAMES:
        note(f"{file}: its weights are in {', '.join(sorted(small))}, with 3 or 2 bits of precision; results are worse")
    return outline


def select(stored: Stored, expected: Collection[str], file: Path, note: Note = silent) -> dict[str, Any]:
    """The generator's entries in what a file holds, by the names that the network has for them.

    Takes a state dict, a training checkpoint around it (of which the EMA wins, and takes what it lacks from the weights
    as trained), or what other tools make of one: a mapping under a key of theirs, names with a prefix. A prefix only
    where all the rest fits exactly. `note` takes what is unusual about it. Raises DamagedError for anything else.
    """
    averages = stored.get("ema_state_dict")
    averages = averages if isinstance(averages, Mapping) else {}
    keys: list[str] = []
    while (key := next((key for key in WRAPPERS if isinstance(stored.get(key), Mapping)), None)) and len(keys) < 4:
        keys, stored = [*keys, key], stored[key]
    if averages:
        averages, _ = plain_names(named(averages, file), expected, partly=True)
        lacking = [name for name in expected if name not in averages]
        if not lacking or not keys:
            return averages
        rest, _ = plain_names(named(stored, file), expected)
        note(f"{file}: its EMA lacks {len(lacking)} of {len(expected)} tensors; these are as trained")
        return averages | {name: rest[name] for name in lacking if name in rest}
    weights, prefix = plain_names(named(stored, file), expected)
    ways = [f"under {'.'.join(keys)}"] * (bool(keys) and tuple(keys) != PUBLISHED_FORM)
    ways += [f"with {shown(prefix)} in their names"] * bool(prefix)
    if ways:
        note(f"{file}: holds its weights {' and '.join(ways)}")
    return weights


def named(state: Stored, file: Path) -> dict[str, Any]:
    """The same entries, which have names. Raises DamagedError where they have not."""
    if not all(isinstance(name, str) for name in state):
        raise DamagedError(f"{file}: {NEITHER}: its tensors have no names")
    return dict(state)


def plain_names(
    state: dict[str, Any], expected: Collection[str], *, partly: bool = False
) -> tuple[dict[str, Any], str]:
    """The same entries under the names of the network, and what was cut from these; `partly`: some may be missing.

    `torch.compile` puts `_orig_mod.` into names; DDP, Lightning and others put a prefix in front of all of them.
    """
    # The first CausalVAEs were saved with the networks of their training objective.
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
    """Those that the network expects are dense tensors of floating-point numbers; all are tensors.

    Integers are quantised weights, which mean nothing without their scales. Raises DamagedError for anything else.
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
    """The files that hold the weights: the file, or those of an index. Raises UsageError where one is missing."""
    found = shards(file) if file.name.endswith(INDEX) else [file]
    for part in found:
        size_of(part)
    return found


def exact(tensor: Tensor) -> Tensor:
    """The same values in a type in which PyTorch computes."""
    return tensor.float() if tensor.dtype in EIGHT_BITS else tensor


def check_fit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], file: Path) -> None:
    """Names and shapes must be those of the network."""
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
    """Raises VaectlError for weights of NaN or infinity."""
    refuse_not_finite([name for name, tensor in state.items() if not tensor.isfinite().all()], file)


def refuse_not_finite(names: Collection[str], file: Path) -> None:
    """Weights of NaN or infinity come from a training that diverged; nothing that they give is worth having."""
    if names:
        raise VaectlError(f"{file}: NaN or infinite values in {len(names)} tensors: {first_few(names)}")


def first_few(names: Iterable[str], count: int = 3) -> str:
    """The first of some names that come from a file."""
    names = iter(names)
    first = [shown(name) for name in islice(names, count)]
    return ", ".join(first) + (", …" if any(True for _ in names) else "")
