"""The manifest of a folder of results: with which model and options each clip was made, and what became of it.

`manifest.json` is written when a run begins and when it ends. In between each process adds a line to a journal of its
own for every clip that is finished, so that whatever stops the run costs at most the clips at hand. Knows nothing of
frames.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from vaectl.errors import VaectlError
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.video.replace import replacing

MANIFEST = "manifest.json"
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
    try:
        values = json.loads(file.read_bytes())
        manifest = Manifest(
            versions=values["versions"],
            model=ManifestModel(**values["model"]),
            protocol=ClipProtocol(**values["protocol"]),
            options=values["options"],
            real_video_dir=values["real_video_dir"],
            clips=tuple(map(clip_of, values["clips"])),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise VaectlError(
            f"{file}: not a readable manifest ({type(error).__name__}: {error}); remove it, or prepare with --overwrite"
        ) from None
    finished = {clip.name: clip for journal in journals(folder) for clip in read_journal(journal)}
    return replace(manifest, clips=tuple(finished.get(clip.name, clip) for clip in manifest.clips))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, all or nothing, in place of what the journals held."""
    with replacing(folder / MANIFEST, overwrite=True) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    for journal in journals(folder):
        journal.unlink(missing_ok=True)


def checksum(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(".manifest-*.jsonl"))


def read_journal(file: Path) -> Iterator[ManifestClip]:
    """The clips in a journal; a last line that was cut off counts for nothing."""
    for line in file.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield clip_of(json.loads(line))


def clip_of(values: dict[str, Any]) -> ManifestClip:
    """A clip from what JSON holds of it."""
    size, changed = values["source_stamp"]
    return ManifestClip(**{**values, "source_stamp": (size, changed)})


class Journal:
    """Takes in clips as they are finished."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def add(self, clip: ManifestClip) -> None:
        self._file.write(json.dumps(asdict(clip)) + "\n")
        self._file.flush()


@contextmanager
def open_journal(folder: Path, rank: int) -> Iterator[Journal]:
    """The journal of one process."""
    file = folder / f".manifest-{rank}.jsonl"
    try:
        with file.open("a", encoding="utf-8") as opened:
            yield Journal(opened)
    except OSError as error:
        raise VaectlError(f"{file}: writing failed ({error.strerror}); free space or choose another folder") from error
