"""The clips of an epoch: trees of videos with weights, and replacements for clips that cannot be read.

Sample numbers count from 0 over all epochs. A sample depends only on the seed, its number and the files. Knows nothing
of batches and workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from torch import Tensor

from vaectl.data.clip_reader import ClipReader
from vaectl.data.metadata_cache import VideoTree, scan_videos
from vaectl.data.overlap import also_in
from vaectl.data.sampling import Draw, Sampling, draw
from vaectl.errors import UsageError, VaectlError
from vaectl.progress import Progress
from vaectl.rng import permuted

_MAX_LISTED = 20
"""Unreadable videos that are listed; the others are only counted."""
_MAX_ATTEMPTS = 100
"""Videos that are tried for one sample before the run fails."""


@dataclass(frozen=True)
class Source:
    """A tree of videos, or one video."""

    path: Path
    weight: float | None = None
    """Relative number of samples from this source. None, for all sources: each video once per epoch."""


@dataclass(frozen=True)
class Sample:
    """A training clip."""

    frames: Tensor
    """(T, 3, side, side) uint8 RGB."""
    number: int
    source: str
    """The file of the clip."""
    replaced: str | None
    """What could not be read and which video replaces it, in one line; None if nothing was replaced."""


@dataclass(frozen=True)
class Tree:
    """The usable videos of a source."""

    folder: Path
    names: tuple[str, ...]
    samples_per_epoch: int
    seconds: float = 0.0
    """The length of all videos. Images have none."""


@dataclass(frozen=True)
class Failures:
    """The videos that were tried for one sample and could not be read."""

    count: int = 0
    first: str = ""
    """The error of the first one, in one line that names the file."""

    def and_one(self, reason: str) -> Failures:
        """Return the failures with one more."""
        return Failures(self.count + 1, self.first or reason)


class ClipDataset:
    """Samples by their number, over any number of epochs."""

    def __init__(self, trees: Sequence[Tree], sampling: Sampling, fingerprint: str, *, strict: bool) -> None:
        self.sampling = sampling
        self.fingerprint = fingerprint
        """Changes when a usable video or its metadata changes, not when the tree is moved or copied with its times."""
        self._trees = trees
        self._strict = strict
        self._clip_reader = ClipReader()

    def __len__(self) -> int:
        """Return the number of samples of an epoch."""
        return sum(tree.samples_per_epoch for tree in self._trees)

    @property
    def videos(self) -> int:
        """The number of videos and images."""
        return sum(len(tree.names) for tree in self._trees)

    @property
    def seconds(self) -> float:
        """The length of all videos."""
        return sum(tree.seconds for tree in self._trees)

    def clip(self, number: int) -> Sample:
        """Return sample `number`, from 0. Raises VaectlError if no video can be read; if strict, if its own cannot."""
        failures = Failures()
        while True:
            path = self.path(number, failures)
            try:
                frames = self._clip_reader.read(path, self.sampling, self.draw(number))
            except VaectlError as error:
                failures = failures.and_one(str(error))
            else:
                return Sample(frames, number, str(path), replaced(failures, path))

    def path(self, number: int, failures: Failures = Failures()) -> Path:
        """Return the video of sample `number`, or its next replacement after `failures`. Raises as `clip` does."""
        if failures.count == 0:
            return self._drawn(number)
        if self._strict:
            raise VaectlError(failures.first)
        if failures.count > min(self.videos, _MAX_ATTEMPTS):
            raise VaectlError(f"{failures.count} videos in a row cannot be read; the first: {failures.first}")
        index = permuted(failures.count - 1, self.videos, "instead", self.sampling.seed, number)
        i, index = _locate(index, [len(tree.names) for tree in self._trees])
        return self._trees[i].folder / self._trees[i].names[index]

    def draw(self, number: int) -> Draw:
        """Return the position of sample `number` in its video."""
        return draw(self.sampling.seed, number)

    def _drawn(self, number: int) -> Path:
        """Return the video of sample `number`: each tree is shuffled anew after each pass over all its videos."""
        seed = self.sampling.seed
        epoch, index = divmod(number, len(self))
        index = permuted(index, len(self), "epoch", seed, epoch)
        i, index = _locate(index, [tree.samples_per_epoch for tree in self._trees])
        tree = self._trees[i]
        turn, index = divmod(epoch * tree.samples_per_epoch + index, len(tree.names))
        return tree.folder / tree.names[permuted(index, len(tree.names), "tree", seed, i, turn)]


def _locate(index: int, sizes: Sequence[int]) -> tuple[int, int]:
    """Return the row of item `index` and its position in the row, for consecutive rows of these sizes."""
    row = 0
    while index >= sizes[row]:
        index, row = index - sizes[row], row + 1
    return row, index


def replaced(failures: Failures, path: Path) -> str | None:
    """Return the note for a sample from `path` after these failures, None if there were none."""
    if failures.count == 0:
        return None
    others = f", after {failures.count - 1} more that cannot be read" if failures.count > 1 else ""
    return f"{failures.first}; {path} replaces it{others}"


def open_dataset(
    sources: Sequence[Source],
    sampling: Sampling,
    *,
    strict: bool,
    progress: Progress,
    validation: Sequence[Path] = (),
) -> ClipDataset:
    """Return a data set of all videos of the sources that are readable and long enough.

    Warns about the others, and about `validation` clips that are among the videos. Raises UsageError for a source
    without videos, without videos that are long enough or with a wrong weight; VaectlError for a source without
    readable videos, and with `strict` for any unreadable video.
    """
    weights = _weights(sources)
    scanned = []
    for source in sources:
        found = scan_videos(source.path, progress)
        _report_unreadable(source.path, found, strict, progress)
        scanned.append(_long_enough(source.path, found, sampling, progress))
    counts = [len(found.videos) for found in scanned]
    sizes = counts if weights is None else [max(1, round(sum(counts) * weight / sum(weights))) for weight in weights]
    trees = [
        Tree(found.folder, tuple(found.videos), size, _seconds(found))
        for found, size in zip(scanned, sizes, strict=True)
    ]
    if shared := also_in(scanned, validation):
        progress.warn(
            f"{len(shared)} of {len(validation)} validation clips (`eval_video_path`) are also trained on, which makes"
            f" their results too good; the first: {shared[0]}"
        )
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
        progress.warn(f"{root}: {len(reasons)} of {total} videos cannot be read and are skipped{more}")


def _long_enough(root: Path, found: VideoTree, sampling: Sampling, progress: Progress) -> VideoTree:
    need = sampling.frames_needed
    videos = {name: facts for name, facts in found.videos.items() if sampling.suits(facts.num_frames)}
    what = f"shorter than the {need} frames that {sampling.num_frames} at a sample rate of {sampling.sample_rate} need"
    if need == sampling.num_frames:
        what = f"shorter than the {need} frames of a clip"
    if not videos:
        longest = max(facts.num_frames for facts in found.videos.values())
        raise UsageError(
            f"{root}: all {len(found.videos)} videos are {what} (the longest has {longest})",
            f"lower `num_frames` or `sample_rate`{_for_images(found)}",
        )
    if short := len(found.videos) - len(videos):
        progress.warn(f"{root}: {short} of {len(found.videos)} videos are {what}, and are skipped{_for_images(found)}")
    return found._replace(videos=videos)


def _for_images(found: VideoTree) -> str:
    """Return a hint if there are images among the videos that are too short."""
    return "; `animate_images` makes clips of images" * any(facts.num_frames == 1 for facts in found.videos.values())


def _seconds(found: VideoTree) -> float:
    rate = lru_cache(lambda text: float(Fraction(text)))  # a million videos have few different rates
    return sum(facts.num_frames / rate(facts.frame_rate) for facts in found.videos.values() if facts.num_frames > 1)


def _fingerprint(scanned: Sequence[VideoTree]) -> str:
    """Return a hash of all videos and their metadata. Times are in seconds: some disks do not store fractions."""
    digest = blake2b(digest_size=16)
    for found in scanned:
        for name, facts in found.videos.items():
            line = f"{name}\0{facts.size} {facts.modified // 10**9} {facts[2:]}\n"
            digest.update(line.encode(errors="surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()
