"""Read files of weights: safetensors, pickles, and indexes of shards.

First the outline is read (names, shapes and types), then the values. So a file that does not fit costs neither memory
nor time. Pickles are read with `weights_only=True`, so no code in them runs. Knows no network and no tensor names.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import safe_open
from torch import Tensor

from vaectl.errors import DamagedError, UsageError, VaectlError, first_few, shown
from vaectl.io.parsing import parsing, read_json, refuse_lfs_pointer, size_of
from vaectl.model_names import WEIGHTS_SUFFIXES

INDEX_BYTES = 2**24
HEADER_BYTES = 2**23
"""Limit of the header of a safetensors file, and of the rest of a pickle without tensors. Published: below 2 MiB."""
SHARDS = 1000
TENSORS = 2**14
SMALL_HEADER, SMALL_FILE = 2**20, 2**25
"""Bytes. For a larger header opening the file takes long, and for a smaller file its memory does not matter."""

Stored: TypeAlias = Mapping[Any, Any]
"""Content of a file: tensors by name, possibly inside other mappings."""
Choose: TypeAlias = Callable[[Stored], Mapping[str, Any]]
"""Selects entries from the content of a file, and gives them their new names."""

UNREADABLE = "cannot be read as weights", "download it again"
UNQUANTISED = "get the weights in float32, bfloat16 or float16"

# Names of the safetensors specification. PyTorch has no type for the others.
_TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64, "BOOL": torch.bool},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16},
}


def read_outline(file: Path) -> Stored:
    """Read the content of a weights file, or of the shards of an index, with tensors on the device "meta".

    Raises UsageError if a file is missing or not regular, DamagedError if it cannot be read as weights, or contains
    more than tensors and plain values.
    """
    if is_index(file):
        outline: dict[Any, Any] = {}
        for shard in shards(file):
            size_of(shard, "the index of the checkpoint names it: download it again")
            part = read_outline(shard)
            if both := [str(name) for name in part if name in outline]:
                raise DamagedError(f"{file}: several of its shards hold {first_few(both)}", "download it again")
            outline |= part
        return outline
    size_of(file, "give a file of weights")
    return _safetensors_outline(file) if is_safetensors(file) else load_pickle(file, "meta")


def read_values(file: Path, choose: Choose) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a weights file that `choose` selects, one by one, on the CPU.

    Safetensors files and pickles in zip format are memory-mapped, so unused tensors are not read.
    """
    if is_index(file):
        places = {name: shard for shard in shards(file) for name in read_outline(shard)}
        wanted = choose({name: name for name in places})
        for shard in dict.fromkeys(places.values()):
            held = {name: stored for name, stored in wanted.items() if places[stored] == shard}
            yield from read_values(shard, partial(_pick, held))
    elif is_safetensors(file):
        yield from _safetensors_values(file, choose)
    else:
        yield from choose(load_pickle(file, "cpu")).items()


def _pick(wanted: Mapping[str, str], stored: Stored) -> dict[str, Any]:
    return {name: stored[own_name] for name, own_name in wanted.items()}


def shards(index: Path) -> list[Path]:
    """Return the shards of an index. Raises UsageError if it is invalid."""
    values = read_json(index, INDEX_BYTES)
    places = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise UsageError(f"{index}: holds no weight_map from names to files", "download it again")
    names = sorted({Path(name).name for name in places.values()})
    if len(names) > SHARDS or any(
        is_index(Path(name)) or name in ("", "..") or len(name) > 255 or not name.isprintable() for name in names
    ):
        raise UsageError(f"{index}: names files that are no shards of weights", "download it again")
    return [index.parent / name for name in names]


def _safetensors_outline(file: Path) -> dict[str, Tensor]:
    with parsing(file, *UNREADABLE):
        _header_bytes(file)
        with safe_open(file, "pt") as opened:
            outline = {}
            for name in opened.keys():  # noqa: SIM118  # not a mapping
                part = opened.get_slice(name)
                kind = part.get_dtype()
                if kind not in _TYPES:
                    raise VaectlError(f"{file}: {shown(name)} is of the type {shown(kind)}, which cannot be loaded")
                outline[name] = torch.empty(part.get_shape(), dtype=_TYPES[kind], device="meta")
            return outline


def is_weights(file: Path) -> bool:
    """Return whether a file has the name of weights, or of an index of shards."""
    suffix = file.suffix.lower()
    return is_index(file) if suffix == ".json" else suffix in (*WEIGHTS_SUFFIXES, ".sft")


def is_index(file: Path) -> bool:
    """Return whether a file has the name of an index of shards: x.index.json, or x.index.fp16.json of a variant."""
    return re.search(r"\.index(\.\w+)?\.json$", file.name) is not None


def is_shard(file: Path) -> bool:
    """Return whether a file has the name of one of several shards: x-00001-of-00002.safetensors."""
    found = re.search(r"-\d{5}-of-(\d{5})\.\w+$", file.name)
    return found is not None and int(found[1]) > 1


def is_safetensors(file: Path) -> bool:
    """Return whether weights are a safetensors file, else a pickle: by the content, or by the name if it is neither.

    Raises VaectlError for a GGUF file (by its first bytes: GGUF specification, file structure), a Git LFS pointer, and
    a pickle with the name of a safetensors file, which `torch.load` refuses.
    """
    with parsing(file, *UNREADABLE), file.open("rb") as opened:
        head = opened.read(100)
    refuse_lfs_pointer(file, head)
    if head.startswith(b"GGUF"):
        raise VaectlError(f"{file}: is a GGUF file, and vaectl reads no quantised weights", UNQUANTISED)
    if head[8:9] == b"{":
        return True
    is_named = file.suffix.lower() in (".safetensors", ".sft")
    if is_named and head.startswith((b"PK\3\4", b"\x80\2")):
        raise DamagedError(f"{file}: is a pickle, not a safetensors file", f"rename it to {file.stem}.pth")
    return is_named


def _header_bytes(file: Path) -> int:
    with file.open("rb") as opened:
        (size,) = struct.unpack("<Q", opened.read(8))
    if size > HEADER_BYTES:
        raise ValueError(f"a head of {size} bytes")
    return int(size)


def _safetensors_values(file: Path, choose: Choose) -> Iterator[tuple[str, Tensor]]:
    with parsing(file, *UNREADABLE):
        with safe_open(file, "pt") as opened:
            wanted = choose({name: name for name in opened.keys()})  # noqa: SIM118
            if _header_bytes(file) > SMALL_HEADER or size_of(file) <= SMALL_FILE:
                yield from ((name, opened.get_tensor(stored)) for name, stored in wanted.items())
                return
        # A large file is opened for each tensor, to free its memory at once.
        for name, stored in wanted.items():
            with safe_open(file, "pt") as opened:
                yield name, opened.get_tensor(stored)


def load_pickle(file: Path, device: str | torch.device, *, mapped: bool = True) -> dict[Any, Any]:
    """Load the tensors and plain values of a PyTorch pickle to `device`; on "meta" without values.

    `mapped`: memory-map tensors on the CPU instead of copying them.
    Raises UsageError and DamagedError like `read_outline`, OutOfMemoryError if memory is short.
    """
    size = size_of(file)
    with parsing(file, *UNREADABLE, needed=size), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about pickles before it refuses them
        try:
            if zipfile.is_zipfile(file):
                _check_zip(file)
                mmap = mapped and torch.device(device).type in ("cpu", "meta")
                stored = torch.load(file, map_location=device, weights_only=True, mmap=mmap)
            elif torch.device(device).type == "meta":
                stored = _old_outline(file)
            else:
                stored = torch.load(file, map_location=device, weights_only=True)
        except pickle.UnpicklingError:
            raise DamagedError(
                f"{file}: refused: it is damaged, or holds more than tensors and would run code when loaded",
                "get it as .safetensors from a source you trust",
            ) from None
    if not isinstance(stored, dict):
        raise DamagedError(
            f"{file}: holds neither a state dict nor a training checkpoint, but a value of type {type(stored).__name__}"
        )
    return stored


def _old_outline(file: Path) -> Any:
    """Content of a pickle from before PyTorch 1.6, without the values, which are at the end of the file."""
    if not hasattr(torch.serialization, "skip_data"):  # PyTorch 2.5 and older
        return torch.load(file, map_location="cpu", weights_only=True)
    with file.open("rb") as opened:
        head = io.BytesIO(opened.read(HEADER_BYTES))
    with torch.serialization.skip_data():  # memory is reserved, but not written
        return torch.load(head, map_location="cpu", weights_only=True)


def _check_zip(file: Path) -> None:
    """Refuse archives that `torch.save` does not write: huge ones, and compressed ones, which expand to any size."""
    with file.open("rb") as opened:
        opened.seek(max(0, size_of(file) - 2**16))
        end = opened.read()
    # End records of a zip archive, with 32-bit and 64-bit numbers (APPNOTE.TXT of PKWARE, 4.3.14 and 4.3.16).
    short, long = end.rfind(b"PK\5\6"), end.rfind(b"PK\6\6")
    count, size = struct.unpack_from("<HI", end, short + 10)
    if long >= 0:
        count, size = struct.unpack_from("<QQ", end, long + 32)
    if count > TENSORS or size > HEADER_BYTES:
        raise ValueError(f"an archive of {count} files")
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("its tensors are compressed")
    plain = sum(part.file_size for part in parts if "/data/" not in part.filename)
    if plain > HEADER_BYTES:
        raise ValueError(f"{plain} bytes that are no tensors")
