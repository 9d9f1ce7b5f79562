"""The manifest of a folder of results: the model and options of the run, and the status of each clip.

`manifest.json` is written when a run starts and when it ends. In between each rank appends a line to its own journal
for every finished clip, so a killed run loses at most the clips in progress. Knows nothing of frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from vaectl.errors import UsageError, VaectlError, shown
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.io.journal import Journal, read_lines
from vaectl.io.json_values import plain, write_json
from vaectl.io.output_paths import MAX_NAME_BYTES
from vaectl.io.parsing import read_json, size_of
from vaectl.model_names import Weights
from vaectl.shortage import cannot_write
from vaectl.video.sequence import is_single

MANIFEST = "manifest.json"
MANIFEST_BYTES = 2**28
"""A clip takes about 400 bytes."""
ORIGIN = "origin"
"""The subfolder of the results that holds the input clips of the network."""


@dataclass(frozen=True)
class ManifestClip:
    """One clip. Paths have forward slashes."""

    name: str
    """Path of the source below its folder, without extension unless two sources would share a name."""
    source: str
    """Path below the folder of originals; of one original, its folder."""
    source_stamp: tuple[int, int]
    """Size in bytes and modification time (ns) of the source when the run started."""
    generated: str
    """Path below the folder of results."""
    origin: str | None = None
    """Path below the folder of results of the lossless input clip of the network."""
    status: Literal["waiting", "ok", "failed"] = "waiting"
    reason: str | None = None
    """Why it failed, in one line."""
    frames: int = 0
    """Number of frames; the key in the file."""
    width: int = 0
    height: int = 0
    generated_bytes: int = 0
    origin_bytes: int = 0
    generated_sha256: str = ""
    """Hash of the file, hexadecimal; empty in manifests of earlier versions."""
    origin_sha256: str = ""


@dataclass(frozen=True)
class ManifestModel:
    """The model that made the clips."""

    path: str | None
    """Or its name on the hub; None for the built-in model."""
    family: str
    fingerprint: str
    """SHA-256 of the config and of the weights in `dtype`."""
    device: str
    dtype: str
    weights: Weights | None = None
    """ema or raw; None if the checkpoint does not say, and in manifests of earlier versions."""
    commit: str | None = None
    """The commit of a model of the hub."""
    temporal_compression: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Frames for each frame of the latent; None in manifests of earlier versions, as all that follows."""
    spatial_compression: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Pixels of a side for each position of the latent."""
    latent_channels: Annotated[int, Field(ge=1)] | None = None
    parameters: Annotated[int, Field(ge=1)] | None = None
    """The number of parameters."""


@dataclass(frozen=True)
class Manifest:
    """The content of a folder of results."""

    versions: dict[str, str]
    model: ManifestModel
    protocol: ClipProtocol
    options: dict[str, Any]
    """All options of the run, as plain JSON values."""
    real_video_dir: str
    """Absolute path of the folder of originals; of one original, its folder."""
    clips: tuple[ManifestClip, ...]


def folder_of(root: Path) -> Path:
    """Return the folder that names are relative to: `root`, or its parent if it is a single video."""
    return root.parent if is_single(root) else root


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder of results, also of an unfinished run; None if there is none.

    Raises VaectlError for an invalid manifest.
    """
    file = folder / MANIFEST
    if not file.exists() and not file.is_symlink():
        return None
    try:
        values = read_json(file, MANIFEST_BYTES)
        entries = values.pop("clips", None) if isinstance(values, dict) else None
        if not isinstance(entries, list):
            raise UsageError("it holds no list of clips")
        manifest = TypeAdapter(Manifest).validate_python({**values, "clips": ()})
    except (UsageError, ValidationError) as error:
        said = _first(error) if isinstance(error, ValidationError) else str(error).removeprefix(f"{file}: ")
        reason = shown(said, 200)
        raise VaectlError(
            f"{file}: not a readable manifest ({reason})", "remove it, or prepare with `overwrite`"
        ) from None
    listed = tuple(clip for entry in entries if (clip := clip_of(entry) or unfinished(entry)))
    finished = {clip.name: clip for journal in journals(folder) for clip in read_journal(journal)}
    return replace(manifest, clips=tuple(finished.get(clip.name, clip) for clip in listed))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically and delete the journals, which it replaces."""
    write_json(folder / MANIFEST, plain(asdict(manifest)), indent=1)
    for journal in journals(folder):
        journal.unlink(missing_ok=True)


_CLIP = TypeAdapter(ManifestClip)


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(".manifest-*.jsonl"))


def read_journal(file: Path) -> Iterator[ManifestClip]:
    """Yield the clips in a journal. Truncated and damaged lines are skipped: these clips are made again."""
    try:
        for _, value in read_lines(file):
            if value is not None and (clip := clip_of(value)) is not None:
                yield clip
    except OSError as error:
        raise VaectlError(f"{file}: cannot be read ({error.strerror})", "remove it") from None


def clip_of(values: object) -> ManifestClip | None:
    """Return a clip from its JSON value; None if that is damaged."""
    try:
        clip = _CLIP.validate_python(values)
    except ValidationError:
        return None
    places = (clip.name, clip.source, clip.generated, clip.origin or ".")
    return clip if all(map(is_below, places)) else None


def unfinished(values: object) -> ManifestClip | None:
    """Return a clip from a damaged JSON value with valid names and paths, as not made; None without those.

    So the clip is made again, and its files count as written by this job.
    """
    names = ("name", "source", "generated", "origin")
    known = {name: values.get(name) for name in names} if isinstance(values, dict) else {}
    return clip_of({**known, "source_stamp": (-1, -1)})


def is_below(place: str) -> bool:
    """Whether a path stays below its folder: relative, valid as file names, and without `..`."""
    path = PurePosixPath(place)
    try:
        fits = len(place) <= 4096 and all(len(os.fsencode(part)) <= MAX_NAME_BYTES for part in path.parts)
    except UnicodeEncodeError:  # not a valid file name
        return False
    return fits and not path.is_absolute() and ".." not in path.parts and "\0" not in place


def _first(error: ValidationError) -> str:
    """Return the first problem of a validation, in a few words."""
    first = error.errors()[0]
    return f"{shown('.'.join(map(str, first['loc'])))}: {first['msg'].lower()}"


@contextmanager
def open_journal(folder: Path, rank: int) -> Iterator[Journal]:
    """Open the journal of one rank, to append finished clips."""
    file = folder / f".manifest-{rank}.jsonl"
    size = size_of(file, "remove it") if file.exists() else 0
    try:
        yield Journal(file, size)
    except OSError as error:
        raise VaectlError(*cannot_write(file, error)) from error
