"""The clips of an epoch: trees of videos with their weights, and what stands in for a clip that cannot be read.

Sample `number` counts from 0 over all epochs; it follows from the seed, the number and the files alone. Knows nothing
of batches and workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from torch import Tensor

from vaectl.data.clip_reader import ClipReader
from vaectl.data.metadata_cache import VideoTree, scan_videos
from vaectl.data.sampling import Draw, Sampling, draw
from vaectl.errors import UsageError, VaectlError
from vaectl.progress import Progress
from vaectl.rng import permuted

_MAX_LISTED = 20
"""Unreadable videos that are named; the others are counted."""
_MAX_ATTEMPTS = 100
"""Videos that are tried for one sample before the data is given up."""


@dataclass(frozen=True)
class Source:
    """A tree of videos, or one video."""

    path: Path
    weight: float | None = None
    """How often its videos are drawn beside those of the other sources; None, for all: each video once an epoch."""


@dataclass(frozen=True)
class Sample:
    """A clip as the training takes it."""

    frames: Tensor
    """(T, 3, side, side) uint8 RGB."""
    number: int
    source: str
    """The file that it was cut from."""
    replaced: str | None
    """One line: what could not be read, and what stands in its place."""


@dataclass(frozen=True)
class Tree:
    """The usable videos of a source."""

    folder: Path
    names: tuple[str, ...]
    samples_per_epoch: int
    """How many samples of an epoch come from here."""


@dataclass(frozen=True)
class Failures:
    """The videos that were tried for one sample, and could not be read."""

    count: int = 0
    first: str = ""
    """What is wrong with the first of them, in one line that names it."""

    def and_one(self, reason: str) -> Failures:
        return Failures(self.count + 1, self.first or reason)


class ClipDataset:
    """Samples by their number, epoch after epoch without end."""

    def __init__(self, trees: Sequence[Tree], sampling: Sampling, fingerprint: str, *, strict: bool) -> None:
        self.sampling = sampling
        self.fingerprint = fingerprint
        """Changes when a usable video or its facts change, not when the tree is moved or copied with its times."""
        self._trees = trees
        self._strict = strict
        self._clip_reader = ClipReader()

    def __len__(self) -> int:
        """Samples of an epoch."""
        return sum(tree.samples_per_epoch for tree in self._trees)

    def clip(self, number: int) -> Sample:
        """Sample `number`, from 0. Raises VaectlError where no video can be read; if strict, where its own cannot."""
        failures = Failures()
        while True:
            path = self.path(number, failures)
            try:
                frames = self._clip_reader.read(path, self.sampling, self.draw(number))
            except VaectlError as error:
                failures = failures.and_one(str(error))
            else:
                return Sample(frames, number, str(path), replaced(failures, path))

    def path(self, number: int, failures: Failures) -> Path:
        """The video that sample `number` is cut from, after those in `failures`. Raises as `clip` does."""
        if failures.count == 0:
            return self._drawn(number)
        if self._strict:
            raise VaectlError(failures.first)
        videos = sum(len(tree.names) for tree in self._trees)
        if failures.count > min(videos, _MAX_ATTEMPTS):
            raise VaectlError(f"{failures.count} videos in a row cannot be read any more; the first: {failures.first}")
        index = permuted(failures.count - 1, videos, "instead", self.sampling.seed, number)
        i, index = _locate(index, [len(tree.names) for tree in self._trees])
        return self._trees[i].folder / self._trees[i].names[index]

    def draw(self, number: int) -> Draw:
        """Where in its video sample `number` lies."""
        return draw(self.sampling.seed, number)

    def _drawn(self, number: int) -> Path:
        """Goes through the videos of a tree in a new order each time, and begins again only after the last."""
        seed = self.sampling.seed
        epoch, index = divmod(number, len(self))
        index = permuted(index, len(self), "epoch", seed, epoch)
        i, index = _locate(index, [tree.samples_per_epoch for tree in self._trees])
        tree = self._trees[i]
        turn, index = divmod(epoch * tree.samples_per_epoch + index, len(tree.names))
        return tree.folder / tree.names[permuted(index, len(tree.names), "tree", seed, i, turn)]


def _locate(index: int, sizes: Sequence[int]) -> tuple[int, int]:
    """The row that holds item `index`, and its place there, where rows of these sizes are laid end to end."""
    row = 0
    while index >= sizes[row]:
        index, row = index - sizes[row], row + 1
    return row, index


def replaced(failures: Failures, path: Path) -> str | None:
    """What to say about a sample that was cut from `path` after these failures."""
    if failures.count == 0:
        return None
    others = f", after {failures.count - 1} more that cannot be read either" if failures.count > 1 else ""
    return f"{failures.first}; {path} stands in its place{others}"


def open_dataset(sources: Sequence[Source], sampling: Sampling, *, strict: bool, progress: Progress) -> ClipDataset:
    """Look at the videos of all sources, and make a data set of those that are readable and long enough.

    The others are reported; with `strict`, one that is unreadable is an error. Raises UsageError for a source without
    videos, or without one that is long enough, or with a wrong weight; VaectlError for a source of which nothing can be
    read.
    """
    weights = _weights(sources)
    scanned = []
    for source in sources:
        found = scan_videos(source.path, progress)
        _report_unreadable(source.path, found, strict, progress)
        scanned.append(_long_enough(source.path, found, sampling, progress))
    counts = [len(found.videos) for found in scanned]
    sizes = counts if weights is None else [max(1, round(sum(counts) * weight / sum(weights))) for weight in weights]
    trees = [Tree(found.folder, tuple(found.videos), size) for found, size in zip(scanned, sizes, strict=True)]
    return ClipDataset(trees, sampling, _fingerprint(scanned), strict=strict)


def _weights(sources: Sequence[Source]) -> list[float] | None:
    weights = [source.weight for source in sources if source.weight is not None]
    if weights and len(weights) < len(sources):
        raise UsageError("only some sources of videos have a weight", "give one to each or to none")
    if not all(0 < weight < float("inf") for weight in weights):
        raise UsageError(f"the weights of sources of videos must be above 0 and finite, not {weights}")
    return weights or None


def _report_unreadable(root: Path, found: VideoTree, strict: bool, progress: Progress) -> None:
    reasons = list(found.unreadable.values())
    total = len(reasons) + len(found.videos)
    if reasons and (strict or not found.videos):
        raise VaectlError(f"{root}: {len(reasons)} of {total} videos cannot be read; the first: {reasons[0]}")
    for reason in reasons[:_MAX_LISTED]:
        progress.warn(reason)
    if reasons:
        more = f" ({len(reasons) - _MAX_LISTED} of them are not listed)" if len(reasons) > _MAX_LISTED else ""
        progress.warn(f"{root}: {len(reasons)} of {total} videos cannot be read and are left out{more}")


def _long_enough(root: Path, found: VideoTree, sampling: Sampling, progress: Progress) -> VideoTree:
    need = sampling.frames_needed
    videos = {name: facts for name, facts in found.videos.items() if sampling.suits(facts.num_frames)}
    what = f"shorter than the {need} frames that {sampling.num_frames} at a sample rate of {sampling.sample_rate} need"
    if not videos:
        longest = max(facts.num_frames for facts in found.videos.values())
        raise UsageError(
            f"{root}: all {len(found.videos)} videos are {what} (the longest has {longest})",
            f"lower `num_frames` or `sample_rate`{_for_images(found)}",
        )
    if short := len(found.videos) - len(videos):
        progress.warn(f"{root}: {short} of {len(found.videos)} videos are {what}, and are left out{_for_images(found)}")
    return found._replace(videos=videos)


def _for_images(found: VideoTree) -> str:
    """What to say where images are among the videos that are too short."""
    return "; `animate_images` makes clips of images" * any(facts.num_frames == 1 for facts in found.videos.values())


def _fingerprint(scanned: Sequence[VideoTree]) -> str:
    """Times count in seconds, because not every disk keeps more."""
    digest = blake2b(digest_size=16)
    for found in scanned:
        for name, facts in found.videos.items():
            line = f"{name}\0{facts.size} {facts.modified // 10**9} {facts[2:]}\n"
            digest.update(line.encode(errors="surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()
