"""What the tests of `vaectl reconstruct` share: the job with a listener, and what lies in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaectl.options import ReconstructOptions
from vaectl.reconstruction import ClipResult, RunResult, reconstruct


class Listener:
    """A `Progress` that remembers."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.clips: list[tuple[str, int | None, int]] = []
        """Of each finished task: its name, the frames announced, the frames done."""
        self.rows: dict[str, str] = {}
        """The facts that the job begins with."""
        self.states: list[str] = []
        self._clip: tuple[str, int | None, int] | None = None
        self.run: tuple[int, int, str] | None = None
        """The clips of the run, those of an earlier run, and the process."""
        self.ended: list[tuple[str, str, bool]] = []
        """Of each clip of the run: its name, its figures or the reason, whether it failed."""

    def start_clips(self, total: int, done: int = 0, share: str = "") -> None:
        self.run = (total, done, share)

    def end_clip(self, name: str, result: str, *, failed: bool = False) -> None:
        self.ended.append((name, result, failed))

    def start(self, name: str, total: int | None, unit: str = "frames", done: int = 0) -> None:
        self._clip = (name, total, done)

    def advance(self, count: int) -> None:
        assert self._clip
        self._clip = (*self._clip[:2], self._clip[2] + count)

    def status(self, message: str) -> None:
        self.states.append(message)

    def finish(self) -> None:
        if self._clip:
            self.clips.append(self._clip)
        self._clip = None

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        self.rows = dict(rows)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def run(source: Path | tuple[Path, ...], target: Path, listener: Listener | None = None, **options: Any) -> RunResult:
    """Reconstruct on the CPU, with the built-in model unless `options` name another."""
    sources = source if isinstance(source, tuple) else (source,)
    chosen = ReconstructOptions(video_path=sources, rec_path=target, **{"device": "cpu", **options})
    return reconstruct(chosen, listener or Listener())


def run_one(source: Path, target: Path, listener: Listener | None = None, **options: Any) -> ClipResult:
    """The same for a single clip."""
    (clip,) = run(source, target, listener, **options).clips
    return clip


def files(root: Path) -> dict[str, bytes | None]:
    """Everything below `root`, hidden or not, with its content; None for folders."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() if path.exists() else b"dangling"
        for path in sorted(root.rglob("*"))
    }
