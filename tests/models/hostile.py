"""Damaged and hostile checkpoint folders, and the error of each.

Each function gets a valid folder with config and weights, and damages it. Used by the tests and by the fuzzer.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vaectl.model_names import WEIGHTS

State = dict[str, Tensor]
SAFETENSORS, BIN = f"{WEIGHTS}.safetensors", f"{WEIGHTS}.bin"


def config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def text(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(content)


def weights(change: Callable[[State], Any]) -> Callable[[Path], None]:
    """Write other tensors into the safetensors file."""

    def spoil(folder: Path) -> None:
        file = folder / SAFETENSORS
        state = load_file(file)
        file.unlink()
        save_file(change(state), file)

    return spoil


def pickled(change: Callable[[State], Any], *, old: bool = False) -> Callable[[Path], None]:
    """Replace the safetensors file by a pickle of another value."""

    def spoil(folder: Path) -> None:
        state = load_file(folder / SAFETENSORS)
        (folder / SAFETENSORS).unlink()
        torch.save(change(state), folder / BIN, _use_new_zipfile_serialization=not old)

    return spoil


def one_changed(change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    """Change the first tensor with several dimensions."""

    def spoil(state: State) -> State:
        name = next(name for name in sorted(state) if state[name].ndim > 1)
        return state | {name: change(state[name])}

    return spoil


def all_changed(change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {name: change(tensor) for name, tensor in state.items()}


def index(content: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / SAFETENSORS).unlink()
        (folder / f"{SAFETENSORS}.index.json").write_text(content if isinstance(content, str) else json.dumps(content))

    return spoil


def replaced_by(make: Callable[[Path], object], name: str = SAFETENSORS) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for file in {name, name if name == "config.json" else SAFETENSORS}:
            (folder / file).unlink(missing_ok=True)
        make(folder / name)

    return spoil


def cut_to(share: float, *, old: bool) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        pickled(lambda state: state, old=old)(folder)
        content = (folder / BIN).read_bytes()
        (folder / BIN).write_bytes(content[: int(len(content) * share)])

    return spoil


def packed(size: int) -> Callable[[Path], None]:
    """Write a tensor of `size` zero bytes, compressed to a thousandth."""

    def spoil(folder: Path) -> None:
        pickled(lambda state: {"one": torch.zeros(1)})(folder)
        with zipfile.ZipFile(folder / BIN) as archive:
            parts = {part.filename: archive.read(part) for part in archive.infolist()}
        with zipfile.ZipFile(folder / BIN, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in parts.items():
                archive.writestr(name, bytes(size) if "/data/" in name else content)

    return spoil


def sparse_file(size: int, name: str) -> Callable[[Path], None]:
    """Write a file of zeros that uses no space on the disk."""

    def make(folder: Path) -> None:
        with (folder / name).open("r+b" if (folder / name).exists() else "wb") as file:
            file.truncate(size)

    return make


def claims(numel: int) -> bytes:
    """Write an old pickle whose only tensor declares `numel` missing numbers."""
    storage = ("storage", torch.FloatStorage, "0", "cpu", numel, None)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return storage if value is storage_mark else None

    storage_mark = object()

    class Weight:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (storage_mark, 0, (numel,), (1,), False, {})

    file = io.BytesIO()
    pickle.dump(torch.serialization.MAGIC_NUMBER, file, protocol=2)
    pickle.dump(torch.serialization.PROTOCOL_VERSION, file, protocol=2)
    pickle.dump({}, file, protocol=2)
    Pickler(file, protocol=2).dump({"weight": Weight()})
    pickle.dump(["0"], file, protocol=2)
    return file.getvalue()


LONG = "n" * 100_000
DIGITS = "1" * 5000

SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    # config.json
    "class of another type": (lambda f: config(f, _class_name=["WFVAEModel"]), "unknown _class_name"),
    "class is a number": (lambda f: config(f, _class_name=7), "unknown _class_name 7"),
    "long class": (lambda f: config(f, _class_name=LONG), "unknown _class_name 'nnn"),
    "digits": (text('{"_class_name": "WFVAEModel", "latent_dim": ' + DIGITS + "}"), "cannot be read as JSON"),
    "deep config": (text("[" * 100_000), "cannot be read as JSON"),
    "deeper config": (text('{"a":' * 100_000 + "1" + "}" * 100_000), "cannot be read as JSON"),
    "many channels": (lambda f: config(f, base_channels=10**9), "base_channels"),
    "many blocks": (lambda f: config(f, encoder_num_resblocks=10**9), "encoder_num_resblocks"),
    "endless number": (text('{"_class_name": "WFVAEModel", "latent_dim": 1e999999999}'), "latent_dim"),
    "long key": (lambda f: config(f, **{LONG: 1}), "unknown key"),
    "long value": (lambda f: config(f, norm_type=LONG), "norm_type"),
    "many scales": (lambda f: config(f, scale=[1.0] * 100_000), "scale"),
    "4 GiB config": (sparse_file(2**32, "config.json"), "bytes"),
    "config is a pipe": (replaced_by(os.mkfifo, "config.json"), "not an ordinary file"),
    "config is a device": (replaced_by(lambda p: p.symlink_to("/dev/zero"), "config.json"), "not an ordinary file"),
    "config is a folder": (replaced_by(Path.mkdir, "config.json"), "not an ordinary file"),
    # safetensors
    "int8": (weights(all_changed(lambda t: (t * 10).to(torch.int8))), "int8"),
    "float8_e4m3fn": (weights(all_changed(lambda t: t.to(torch.float8_e4m3fn))), "tensors are float8_e4m3fn"),
    "float8_e5m2 in a pickle": (pickled(all_changed(lambda t: t.to(torch.float8_e5m2))), "tensors are float8_e5m2"),
    "GGUF of another name": (replaced_by(lambda p: p.write_bytes(b"GGUF" + bytes(99))), "is a GGUF file"),
    "GGUF of another name, a pickle": (
        replaced_by(lambda p: p.write_bytes(b"GGUF" + bytes(99)), BIN),
        "is a GGUF file",
    ),
    "one tensor of int64": (weights(one_changed(lambda t: t.to(torch.int64))), "1 tensor is int64"),
    "bool": (weights(one_changed(lambda t: t > 0)), "1 tensor is bool"),
    "complex": (weights(one_changed(lambda t: t.to(torch.complex64))), "1 tensor is complex64"),
    "float64 that overflows": (
        weights(all_changed(lambda t: t.double().sign() * 1e300)),
        "values too large for float32",
    ),
    "20,000 more tensors": (
        weights(lambda state: state | {f"more.{i}": torch.zeros(1) for i in range(20_000)}),
        "20000 unexpected",
    ),
    "long name": (weights(lambda state: state | {LONG: torch.zeros(1)}), "1 unexpected"),
    "name with control characters": (
        weights(lambda state: state | {"a\x1b[31m\nb": torch.zeros(1)}),
        r"1 unexpected: a\x1b[31m\nb",
    ),
    "weights are a pipe": (replaced_by(os.mkfifo), "not an ordinary file"),
    "weights are a device": (replaced_by(lambda p: p.symlink_to("/dev/zero")), "not an ordinary file"),
    "4 GiB of zeros": (replaced_by(lambda p: sparse_file(2**32, p.name)(p.parent)), "cannot be read as weights"),
    "a head of 2 EiB": (
        replaced_by(lambda p: p.write_bytes(struct.pack("<Q", 2**61) + b"{}")),
        "cannot be read as weights",
    ),
    # an index
    "index is a list": (index([1, 2]), "holds no weight_map"),
    "index without a map": (index({"weight_map": 3}), "holds no weight_map"),
    "index to numbers": (index({"weight_map": {"a": 1}}), "holds no weight_map"),
    "index to itself": (index({"weight_map": {"a": f"{SAFETENSORS}.index.json"}}), "no shards of weights"),
    "index to a long name": (index({"weight_map": {"a": LONG}}), "no shards of weights"),
    "index to control characters": (index({"weight_map": {"a": "a\x1b[31m\nb"}}), "no shards of weights"),
    "index to a folder": (index({"weight_map": {"a": ".."}}), "no shards of weights"),
    "index to many": (index({"weight_map": {str(i): f"{i}.bin" for i in range(20_000)}}), "no shards of weights"),
    "deep index": (index("[" * 100_000), "cannot be read as JSON"),
    # pickles
    "keys that are no strings": (pickled(lambda state: {1: state, (2, 3): torch.zeros(1)}), "neither a state dict"),
    "one key that is no string": (pickled(lambda state: state | {7: torch.zeros(1)}), "neither a state dict"),
    "values that are no tensors": (pickled(lambda state: state | {"a": 3}), ""),
    "only a number": (pickled(lambda state: 3), "neither a state dict"),
    "sparse": (pickled(one_changed(lambda t: t.to_sparse())), ""),
    "quantised": (
        pickled(one_changed(lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8))),
        "",
    ),
    "int8 in a pickle": (pickled(all_changed(lambda t: (t * 10).to(torch.int8))), "int8"),
    "complex in a pickle": (pickled(one_changed(lambda t: t.to(torch.complex64))), "complex64"),
    "old pickle, half": (cut_to(0.5, old=True), "bytes, but its tensors are of|it is damaged"),
    "old pickle, nearly whole": (cut_to(0.99, old=True), "cannot be read as weights|it is damaged"),
    "old pickle, the beginning": (cut_to(0.001, old=True), "cannot be read as weights"),
    "pickle, half": (cut_to(0.5, old=False), ""),
    "old pickle that claims a terabyte": (replaced_by(lambda p: p.write_bytes(claims(2**38)), BIN), ""),
    "packed": (packed(2**26), "compressed"),
    "20,000 more tensors in a pickle": (
        pickled(lambda state: state | {f"more.{i}": torch.zeros(1) for i in range(20_000)}),
        "an archive of 20",
    ),
    "16,000 more tensors in a pickle": (
        pickled(lambda state: state | {f"more.{i}": torch.zeros(1) for i in range(16_000)}),
        "16000 unexpected",
    ),
    "long name in a pickle": (pickled(lambda state: state | {LONG: torch.zeros(1)}), "1 unexpected"),
    "pickle is a pipe": (replaced_by(os.mkfifo, "model.ckpt"), "not an ordinary file"),
    "pickle is a device": (replaced_by(lambda p: p.symlink_to("/dev/zero"), "model.ckpt"), "not an ordinary file"),
    "deep pickle": (
        pickled(lambda state: reduce(lambda inner, _: {"state_dict": inner}, range(200), state)),
        "",
    ),
}
