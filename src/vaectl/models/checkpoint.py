"""Model directories: `config.json` beside weights, in each of the containers in which they are published.

    diffusion_pytorch_model.safetensors or .bin, whole or in shards with *.index.json: the diffusers layout
    *.ckpt: a training checkpoint, of which the EMA weights win

Nothing here executes code from a pickle: they are read with `weights_only=True`.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaectl.errors import UsageError, VaectlError
from vaectl.models.causalvae import CausalVAE
from vaectl.models.config import CausalVAEConfig, WFVAEConfig, read_config
from vaectl.models.placement import choose_device, choose_dtype
from vaectl.models.vae import AnyVAE
from vaectl.models.wfvae import WFVAE

WEIGHTS = "diffusion_pytorch_model"
BUILTIN = Path(__file__).parent / "builtin"
NEITHER = "holds neither a state dict nor a training checkpoint of a video VAE"


def build_model(config: WFVAEConfig | CausalVAEConfig) -> WFVAE | CausalVAE:
    """The network of a config, with freshly initialised weights."""
    return WFVAE(config) if isinstance(config, WFVAEConfig) else CausalVAE(config)


def load_model(
    path: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> WFVAE | CausalVAE:
    """A published or trained model from its directory (or from one weights file in it); None is the built-in model.

    The model comes in evaluation mode, without gradients. `device` is auto (a CUDA GPU if there is one), cpu, cuda,
    cuda:N or mps; `dtype` is auto (bfloat16 on GPUs that compute in it, else float32), float32, bfloat16 or float16.

    Raises UsageError or VaectlError, in one line: no such directory, no or an invalid config, no or several weights
    files, a damaged or unsafe file, names or shapes that do not fit, values that are not finite.
    """
    where = choose_device(device)
    precision = choose_dtype(dtype, where)
    try:
        directory, weights = locate(BUILTIN if path is None else Path(path))
        config = read_config(directory / "config.json")
        state = read_weights(weights)
    except PermissionError as error:
        raise UsageError(f"{error.filename}: no permission to read it; change its permissions or its owner") from None
    with torch.device("meta"):
        model = build_model(config)
    check_fit(model.state_dict(), state, weights)
    check_finite(state, weights)
    # Copied, or else every small tensor would keep what is mapped in memory; one by one, so as not to hold all twice.
    placed = {name: channels_last(state.pop(name).to(where, precision, copy=True)) for name in list(state)}
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
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory; give a directory with config.json and weights")
    if path.is_file():
        return path.parent, path
    if not (path / "config.json").is_file():
        inside = sorted(child.parent for child in path.glob("*/config.json"))
        hint = f"; did you mean {inside[0]}?" if inside else ""
        raise UsageError(f"{path}: holds no config.json, so it is not a model directory{hint}")
    checkpoints = sorted(path.glob("*.ckpt"))
    if len(checkpoints) > 1:
        names = ", ".join(file.name for file in checkpoints)
        raise UsageError(f"{path}: holds several checkpoints ({names}); give the path of one")
    layouts = [f"{WEIGHTS}{end}" for end in (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")]
    found = [*checkpoints, *(path / name for name in layouts if (path / name).is_file())]
    if not found:
        raise UsageError(f"{path}: holds no weights; expected {WEIGHTS}.safetensors or .bin, sharded or not, or *.ckpt")
    return path, found[0]


def read_weights(file: Path) -> dict[str, Tensor]:
    """The state dict in a weights file or in the shards that an index names."""
    return state_dict(read_container(file), file)


def read_container(file: Path, device: str = "cpu") -> dict[str, Any]:
    """All that a weights file holds, or the shards that an index names.

    Files are mapped into memory where that is possible: what is not used is not read. On the device "meta", what a
    pickle holds has names, shapes and types and no values.
    """
    try:
        if file.name.endswith(".index.json"):
            parts = [read_container(shard, device) for shard in shards(file)]
            return {name: tensor for part in parts for name, tensor in part.items()}
        file.open("rb").close()  # safetensors reports whatever prevents this as a missing file
        if file.suffix == ".safetensors":
            return dict(mapped_one_by_one(file))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it comments on pickles that it then refuses
            stored = torch.load(file, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(file))
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file; the checkpoint's index names it, download it again") from None
    except PermissionError:
        raise
    except pickle.UnpicklingError:
        raise VaectlError(
            f"{file}: refused: it is damaged, or holds more than tensors and would run code when loaded;"
            " get it as .safetensors from a source you trust"
        ) from None
    except (OSError, SafetensorError, RuntimeError, EOFError, KeyError, AttributeError, ValueError) as error:
        raise VaectlError(f"{file}: cannot be read as weights, download it again ({one_line(error)})") from None
    if not isinstance(stored, dict):
        raise VaectlError(f"{file}: {NEITHER}")
    return stored


def mapped_one_by_one(file: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file: the memory of each is free when it is gone, not when all of them are."""
    with safe_open(file, "pt") as opened:
        names = list(opened.keys())
    for name in names:
        with safe_open(file, "pt") as opened:
            yield name, opened.get_tensor(name)


def shards(index: Path) -> list[Path]:
    """The files that an index names."""
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [index.parent / Path(name).name for name in sorted(set(names))]


def state_dict(stored: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """The generator's tensors in what a file holds: a state dict, or a training checkpoint around it."""
    if stored.get("ema_state_dict"):
        stored = {name.removeprefix("module."): tensor for name, tensor in stored["ema_state_dict"].items()}
    elif isinstance(stored.get("state_dict"), dict):
        stored = stored["state_dict"].get("gen_model", stored["state_dict"])
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise VaectlError(f"{file}: {NEITHER}")
    # The first CausalVAEs were saved with the networks of their training objective.
    return {name: tensor for name, tensor in stored.items() if not name.startswith("loss.")}


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
        listed = "; ".join(f"{len(names)} {what}: {first_few(names)}" for what, names in problems.items() if names)
        raise VaectlError(f"{file}: does not fit the config.json beside it: {listed}")


def check_finite(state: Mapping[str, Tensor], file: Path) -> None:
    """Weights of NaN or infinity come from a training that diverged; nothing that they give is worth having."""
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise VaectlError(f"{file}: NaN or infinite values in {len(broken)} tensors: {first_few(broken)}")


def first_few(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


def one_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
