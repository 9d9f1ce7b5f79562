"""Find the original of each generated clip, by the manifest of the results or else by names. Decodes no clip.

A result has the same path below its folder as its original, with another extension. If originals differ only in their
extensions, as `a.mp4` and `a.avi` do, their results keep them: `a.mp4.mkv`, `a.avi.mkv`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaectl.errors import UsageError
from vaectl.evaluation.manifest import MANIFEST, ORIGIN, Manifest, folder_of
from vaectl.video import find_videos
from vaectl.video.animation import is_still
from vaectl.video.sequence import file_named, is_single


@dataclass(frozen=True)
class Pair:
    """An original and its reconstruction."""

    name: str
    """Path of the original below its folder, with forward slashes; with extension only if names would clash."""
    real: Path
    generated: Path | None
    """None if the model runs in memory."""


@dataclass(frozen=True)
class Pairing:
    """The pairs to compare."""

    pairs: tuple[Pair, ...]
    """In the order of the originals."""
    missing: dict[str, str]
    """Clips of either side without a partner: name -> reason, in one line."""


@dataclass(frozen=True)
class Group:
    """An original and its reconstruction by each candidate."""

    name: str
    real: Path
    generated: tuple[Path | None, ...]
    """None for a model that runs in memory."""


@dataclass(frozen=True)
class Grouping:
    """The groups to compare."""

    groups: tuple[Group, ...]
    missing: dict[str, str]
    """Clips that some candidate lacks, and results without an original: name -> reason, in one line."""


def group_pairs(pairings: Sequence[Pairing], candidates: Sequence[Path]) -> Grouping:
    """Join the pairs of the candidates at these paths. A clip that one of them lacks leaves all.

    Raises UsageError if none is left.
    """
    missing = {name: reason for pairing in reversed(pairings) for name, reason in pairing.missing.items()}
    partners = [{pair.real: pair for pair in pairing.pairs} for pairing in pairings]
    groups = []
    for pair in {pair.real: pair for pairs in partners for pair in pairs.values()}.values():
        lacking = [path for path, pairs in zip(candidates, partners, strict=True) if pair.real not in pairs]
        if not lacking:
            groups.append(Group(pair.name, pair.real, tuple(pairs[pair.real].generated for pairs in partners)))
        elif pair.name not in missing:  # the folder was prepared from a subset
            missing[pair.name] = f"{pair.real}: has no partner in {lacking[0]}"
    if not groups:
        raise UsageError("no clip has a reconstruction by every candidate", f"first: {next(iter(missing.values()))}")
    return Grouping(tuple(groups), missing)


def find_pairs(
    real: Path, generated: Path | None, manifest: Manifest | None, subset_size: int = 0, stills: bool = False
) -> Pairing:
    """Pair the first `subset_size` originals (0: all) with their partners in `generated`, whose `manifest` is given.

    Without `generated`, returns the originals alone. Two files are a pair whatever their names. Images are skipped
    unless `stills`. Raises UsageError for missing or empty folders, for ambiguous names, and if no clip has a partner.
    """
    originals = find_originals(real, generated, stills)
    chosen = originals[:subset_size] if subset_size else originals
    names = names_of(originals, real)
    if generated is None:
        return Pairing(tuple(Pair(names[file], file, None) for file in chosen), {})
    if not real.is_dir() and not generated.is_dir():
        return Pairing((Pair(names[real], real, generated),), {})

    results = find_results(generated, real)
    reasons: dict[Path, str] = {}
    if manifest is None or generated.is_file():
        partners = match_by_name(originals, real, results, generated)
    else:
        partners, reasons = match_by_manifest(originals, real, results, generated, manifest)
        if manifest.options.get("subset_size"):
            chosen = [file for file in chosen if file in partners]
    pairs = tuple(
        Pair(names[file], file, partners[file]) for file in chosen if file in partners and file not in reasons
    )
    if not pairs and reasons:
        raise UsageError(next(iter(reasons.values())))
    if not pairs:
        example = results[0].relative_to(folder_of(generated))
        raise UsageError(
            f"{generated}: nothing there belongs to a clip of {real}",
            f"a result has the name of its original, except for the extension; the first one here is {example}",
        )
    missing = {
        names[file]: reasons.get(file, f"{file}: has no partner in {generated}")
        for file in chosen
        if file in reasons or file not in partners
    }
    if real.is_dir():
        used = set(partners.values())
        strays = {file: name for file, name in names_of(results, generated).items() if file not in used}
        listed = {generated / clip.generated for clip in manifest.clips} if manifest else set(results)
        unlisted = f"is not in {MANIFEST}; prepare it again, or remove it"
        missing |= {
            name: f"{file}: {f'has no original in {real}' if file in listed else unlisted}"
            for file, name in strays.items()
        }
    return Pairing(pairs, missing)


def find_originals(real: Path, generated: Path | None, stills: bool) -> list[Path]:
    """List the originals in a stable order, without files below `generated`."""
    files = find_results(real) if (real / MANIFEST).is_file() else find_videos(real)
    if generated is not None:
        files = _outside(generated, files, real)
    if not stills and real.is_dir():
        files = [file for file in files if not is_still(file)]
    if not files:
        raise UsageError(f"{real}: holds no videos", "pass `num_frames=1` to compare images")
    return files


def find_results(generated: Path, real: Path | None = None) -> list[Path]:
    """List the results in a stable order, without files below `origin/` or below `real`."""
    files = _outside(generated / ORIGIN, find_videos(generated), generated)
    return files if real is None else _outside(real, files, generated)


def _outside(folder: Path, files: Sequence[Path], root: Path) -> list[Path]:
    """Return the files that are not below `folder`; all of them if `folder` is not below `root`."""
    inner = folder.resolve()
    if inner == root.resolve() or not inner.is_relative_to(root.resolve()):
        return list(files)
    outside = [file for file in files if not file.resolve().is_relative_to(inner)]
    if not outside:
        raise UsageError(f"{root}: holds no clips but those in {folder}", "give the folder that holds them")
    return outside


def names_of(files: Iterable[Path], root: Path) -> dict[Path, str]:
    """Map each file to its path below `root`, without extension unless another file has the same path without it."""
    below = {file: file_named(file).relative_to(folder_of(root)) for file in files}
    stems = _grouped(below.values())
    return {file: _stem(path) if len(stems[_stem(path)]) == 1 else path.as_posix() for file, path in below.items()}


def match_by_name(originals: Sequence[Path], real: Path, results: Sequence[Path], generated: Path) -> dict[Path, Path]:
    """Map originals to results by name. Raises UsageError if a result or an original could have two partners."""
    full = {file.relative_to(folder_of(real)).as_posix(): file for file in originals}
    stems = _grouped(file.relative_to(folder_of(real)) for file in originals)
    partners: dict[Path, Path] = {}
    for result in results:
        path = result.relative_to(folder_of(generated))
        # a.mp4.mkv can be the result of a.mp4 or of a.mp4.avi.
        candidates = [_stem(path)] * (_stem(path) in full) + [each.as_posix() for each in stems.get(_stem(path), [])]
        if len(candidates) > 1:
            if path.as_posix() not in candidates:
                raise UsageError(
                    f"{result}: may belong to {' or to '.join(candidates)} in {real}",
                    f"name it after one of them, for example {candidates[0]}{path.suffix}",
                )
            candidates = [path.as_posix()]
        for candidate in candidates:
            original = full[candidate]
            if original in partners:
                raise UsageError(f"{partners[original]} and {result}: both belong to {original}", "keep one of them")
            partners[original] = result
    return partners


def match_by_manifest(
    originals: Sequence[Path], real: Path, results: Sequence[Path], generated: Path, manifest: Manifest
) -> tuple[dict[Path, Path], dict[Path, str]]:
    """Map originals to results by the manifest, and originals without a valid result to the reason that it gives.

    An original is found by its path, or by its name if it was moved, is itself a result, or is an input of the network.
    """
    root = folder_of(real)
    full = {file.relative_to(root).as_posix(): file for file in originals}
    stems = _grouped(file.relative_to(root) for file in originals)
    prepared_from = Path(manifest.real_video_dir)
    if is_single(real) and root.resolve().is_relative_to(prepared_from):
        full[(root.resolve().relative_to(prepared_from) / real.name).as_posix()] = real
    there = set(results)
    partners: dict[Path, Path] = {}
    reasons: dict[Path, str] = {}
    for clip in manifest.clips:
        named = stems.get(clip.name, [])
        original = full.get(clip.source) or (root / named[0] if len(named) == 1 else None)
        if original is None:
            continue
        partners[original] = result = generated / clip.generated
        if clip.status == "ok" and result in there:
            continue
        if clip.status == "ok":
            reasons[original] = f"{result}: is in the manifest but not in the folder; run prepare-eval again"
        elif clip.status == "waiting":
            reasons[original] = f"{original}: was not prepared yet; run prepare-eval again"
        else:
            reasons[original] = f"{original}: could not be prepared: {clip.reason}"
    return partners, reasons


def _stem(path: Path) -> str:
    return path.with_suffix("").as_posix()


def _grouped(paths: Iterable[Path]) -> Mapping[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(_stem(path), []).append(path)
    return groups
