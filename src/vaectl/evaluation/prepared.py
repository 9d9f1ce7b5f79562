"""Check a request of `vaectl eval` against the manifests of its folders: which folder is which, and which options hold.

Knows the options and the manifests. Opens no clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.manifest import MANIFEST, ORIGIN, Manifest, ManifestClip, read_manifest
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.options import EvalOptions
from vaectl.progress import Progress


class Prepared(NamedTuple):
    """A path that a manifest is about."""

    folder: Path
    """The folder of results with the manifest."""
    below: Path
    """The path below that folder."""
    manifest: Manifest

    @property
    def is_input(self) -> bool:
        """Whether it has inputs of the network."""
        return self.below.parts[:1] == (ORIGIN,)

    @property
    def results(self) -> Path:
        """The results at the same place: those of the inputs if it has inputs."""
        return self.folder / (self.below.relative_to(ORIGIN) if self.is_input else self.below)


def find_prepared(path: Path) -> Prepared | None:
    """Find the manifest about a file that `prepare-eval` finished, or a folder of its files, also through links.

    Returns None if there is none. Raises VaectlError for an invalid manifest in `path` itself.
    """
    if manifest := read_manifest(path):
        return Prepared(path, Path(), manifest)
    for place in dict.fromkeys((path, path.absolute(), path.resolve())):
        for folder in place.parents:
            with suppress(VaectlError):  # a file of another tool
                below, manifest = place.relative_to(folder), read_manifest(folder)
                if manifest and any(_has(below, clip, path.is_file()) for clip in manifest.clips):
                    return Prepared(folder, below, manifest)
    return None


def _has(below: Path, clip: ManifestClip, is_file: bool) -> bool:
    files = [Path(place) for place in (clip.generated, clip.origin) if place]
    return clip.status == "ok" and below in files if is_file else any(file.is_relative_to(below) for file in files)


def manifest_of(path: Path) -> Manifest | None:
    """Read the manifest about a file or a folder, as `find_prepared` finds it; of a subfolder, the part about it."""
    found = find_prepared(path)
    if found is None:
        return None
    part = found.results.relative_to(found.folder)
    if path.is_file() or part == Path():
        return found.manifest

    def inside(place: str) -> str:
        return Path(place).relative_to(part).as_posix()

    clips = tuple(
        replace(clip, name=inside(clip.name), source=inside(clip.source), generated=inside(clip.generated), origin=None)
        for clip in found.manifest.clips
        if all(Path(place).is_relative_to(part) for place in (clip.name, clip.source, clip.generated))
    )
    return replace(found.manifest, real_video_dir=str(Path(found.manifest.real_video_dir, part)), clips=clips)


def check_order(real: Path, generated: Path) -> None:
    """Raise UsageError, with the right order, if `generated` has originals or inputs of the network, or is `real`."""
    of_real, of_generated, manifest = find_prepared(real), find_prepared(generated), manifest_of(real)
    originals = generated if of_real else real
    if of_generated and of_generated.is_input:
        problem, known = f"{generated}: has originals, not reconstructions", of_generated
    elif of_real and manifest and has_originals(generated, manifest):
        problem, known = f"{generated}: has originals, not reconstructions", of_real
    elif of_real and manifest and of_generated and _overlap(of_real, of_generated):
        problem, known = f"{real}: has reconstructions, not their originals", of_real
        sources = {Path(clip.generated): clip.source for clip in manifest.clips}
        originals = Path(manifest.real_video_dir, sources[of_real.below] if real.is_file() else "")
    else:
        return
    raise UsageError(
        f"{problem} ({MANIFEST} of {known.folder} says so)",
        f"give `real_video_dir={originals}` and `generated_video_dir={(of_real or known).results}`",
    )


def _overlap(one: Prepared, other: Prepared) -> bool:
    """Whether two paths have the same results."""
    if one.is_input or one.folder.resolve() != other.folder.resolve():
        return False
    return one.below.is_relative_to(other.below) or other.below.is_relative_to(one.below)


def has_originals(path: Path, manifest: Manifest) -> bool:
    """Whether a folder or file is an original that `manifest` lists: by its path, or by its name and size."""
    if path.is_dir():
        files = {clip.source: clip.source_stamp[0] for clip in manifest.clips}
        return str(path.resolve()) == manifest.real_video_dir or any(
            0 < size == _size(path / source) for source, size in files.items()
        )
    sources = [(Path(manifest.real_video_dir, clip.source), clip.source_stamp[0]) for clip in manifest.clips]
    return any(
        source in (path.absolute(), path.resolve()) or (source.name == path.name and 0 < size == _size(path))
        for source, size in sources
    )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def check_options(options: EvalOptions, folder: Path, manifest: Manifest, progress: Progress) -> None:
    """Raise UsageError if options contradict the manifest of `folder`; with `as_prepared`, note them instead."""
    found = list(contradictions(options, manifest))
    if found and options.as_prepared:
        progress.note(f"{folder}: its clips were prepared {', and '.join(found)}: they are measured as prepared")
    elif found:
        these = "`protocol` and these options" if options.protocol else "these options"
        raise UsageError(
            f"{folder}: its clips were prepared {', and '.join(found)}",
            f"leave {these} out, pass `as_prepared` to ignore them, or prepare the clips again",
        )


def contradictions(options: EvalOptions, manifest: Manifest) -> Iterator[str]:
    """Yield what was prepared, and what is asked for, for each option that contradicts the manifest."""
    made = manifest.options
    for field in fields(ClipProtocol):
        asked, prepared = getattr(options, field.name), spelt(manifest.protocol, field.name)
        if asked is None or asked == prepared:
            continue
        if isinstance(asked, bool):
            yield f"{'with' if prepared else 'without'} `{field.name}`"
        else:
            yield f"with `{field.name}={prepared}`, not {asked}" if prepared is not None else f"without `{field.name}`"
    # A folder can hold fewer clips than the subset, or more from an earlier run.
    subset = made.get("subset_size")
    if isinstance(subset, int) and 0 < subset <= max(subset, len(manifest.clips)) < options.subset_size:
        yield f"with `subset_size={subset}`, not {options.subset_size}"
    if options.model:
        return  # these are the options of the model that runs now
    if options.dtype not in (None, "auto", manifest.model.dtype):
        yield f"with `dtype={manifest.model.dtype}`, not {options.dtype}"
    if options.sample and not made.get("sample"):
        yield "without `sample`"
    elif made.get("sample") and options.seed not in (None, made.get("seed")):
        yield f"with `seed={made.get('seed')}`, not {options.seed}"


def spelt(protocol: ClipProtocol, field: str) -> Any:
    """Return the value of a field as the option of its name takes it."""
    value = getattr(protocol, field)
    return 0 if field == "crop_size" and value is None else value


def check_same_protocol(generated: Path, of_generated: Manifest, real: Path, of_real: Manifest) -> None:
    """Raise UsageError if two prepared folders have other frames or another size."""
    one, other = of_generated.protocol, of_real.protocol
    differing = [
        f"`{field.name}={spelt(one, field.name)}` and {spelt(other, field.name)}"
        for field in fields(ClipProtocol)
        if getattr(one, field.name) != getattr(other, field.name)
    ]
    if differing:
        raise UsageError(
            f"{generated} and {real}: were prepared with different frames: {', '.join(differing)}",
            "prepare one of them again, with the options of the other",
        )
