"""The manifest of a folder of results: with which model and options each clip was made, and what became of it.

`manifest.json` is written when a run begins and when it ends. In between each process adds a line to a journal of its
own for every clip that is finished, so that whatever stops the run costs at most the clips at hand. Knows nothing of
frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from vaectl.errors import UsageError, VaectlError, shown
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.io.journal import Journal, read_lines
from vaectl.io.json_values import write_json
from vaectl.io.output_paths import LONGEST
from vaectl.io.parsing import read_json, size_of
from vaectl.shortage import cannot_write

MANIFEST = "manifest.json"
MANIFEST_BYTES = 2**28
"""A clip takes about 400 bytes."""
ORIGIN = "origin"
"""The folder, in a folder of results, of the clips that went into the network."""


@dataclass(frozen=True)
class ManifestClip:
    """One clip. Paths have forward slashes."""

    name: str
    """Path of the source below its folder, without extension; with it where two sources would share a name."""
    source: str
    """Path below the folder of originals."""
    source_stamp: tuple[int, int]
    """Bytes and time of change (ns) of the source when the run began."""
    generated: str
    """Path below the folder of results."""
    origin: str | None = None
    """Path, below the folder of results, of the exact clip that went into the network."""
    status: Literal["waiting", "ok", "failed"] = "waiting"
    reason: str | None = None
    """Why it failed, in one line."""
    frames: int = 0
    width: int = 0
    height: int = 0
    generated_bytes: int = 0
    origin_bytes: int = 0
    generated_sha256: str = ""
    """Of the content of the file, in hexadecimal digits; empty in manifests of earlier versions."""
    origin_sha256: str = ""


@dataclass(frozen=True)
class ManifestModel:
    """What made the clips."""

    path: str | None
    """None for the built-in model."""
    family: str
    fingerprint: str
    """SHA-256 over config and weights, as they are in `dtype`."""
    device: str
    dtype: str


@dataclass(frozen=True)
class Manifest:
    """A folder of results."""

    versions: dict[str, str]
    model: ManifestModel
    protocol: ClipProtocol
    options: dict[str, Any]
    """All options of the run, as plain JSON values."""
    real_video_dir: str
    """Absolute path of the folder of originals."""
    clips: tuple[ManifestClip, ...]


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder of results, that of an unfinished run too; None where there is none.

    Raises VaectlError for one that cannot be understood.
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
    """Write `manifest.json`, all or nothing, in place of what the journals held."""
    write_json(folder / MANIFEST, asdict(manifest), indent=1)
    for journal in journals(folder):
        journal.unlink(missing_ok=True)


_CLIP = TypeAdapter(ManifestClip)


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(".manifest-*.jsonl"))


def read_journal(file: Path) -> Iterator[ManifestClip]:
    """The clips in a journal. A line that was cut off or is damaged counts for nothing: that clip is made again."""
    try:
        for _, value in read_lines(file):
            if value is not None and (clip := clip_of(value)) is not None:
                yield clip
    except OSError as error:
        raise VaectlError(f"{file}: cannot be read ({error.strerror})", "remove it") from None


def clip_of(values: object) -> ManifestClip | None:
    """A clip from what JSON holds of it; None where that is damaged."""
    try:
        clip = _CLIP.validate_python(values)
    except ValidationError:
        return None
    places = (clip.name, clip.source, clip.generated, clip.origin or ".")
    return clip if all(map(is_below, places)) else None


def unfinished(values: object) -> ManifestClip | None:
    """A clip of which only names and places are legible: it counts as not made, and its files as of this job."""
    names = ("name", "source", "generated", "origin")
    known = {name: values.get(name) for name in names} if isinstance(values, dict) else {}
    return clip_of({**known, "source_stamp": (-1, -1)})


def is_below(place: str) -> bool:
    """Whether a path is one below a folder: not absolute, and without a way out of it."""
    path = PurePosixPath(place)
    try:
        fits = len(place) <= 4096 and all(len(os.fsencode(part)) <= LONGEST for part in path.parts)
    except UnicodeEncodeError:  # no name at all
        return False
    return fits and not path.is_absolute() and ".." not in path.parts and "\0" not in place


def _first(error: ValidationError) -> str:
    """The first problem of a validation, in a few words."""
    first = error.errors()[0]
    return f"{shown('.'.join(map(str, first['loc'])))}: {first['msg'].lower()}"


@contextmanager
def open_journal(folder: Path, rank: int) -> Iterator[Journal]:
    """The journal of one process, which takes in clips as they are finished."""
    file = folder / f".manifest-{rank}.jsonl"
    size = size_of(file, "remove it") if file.exists() else 0
    try:
        yield Journal(file, size)
    except OSError as error:
        raise VaectlError(cannot_write(file, error)) from error
