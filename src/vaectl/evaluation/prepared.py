"""Check a request of `vaectl eval` against the manifests of its folders: which folder is which, and which options hold.

Knows the options and the manifests. Opens no clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.manifest import MANIFEST, ORIGIN, Manifest, ManifestClip, folder_of, read_manifest
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.options import EvalOptions
from vaectl.progress import Progress


def manifest_of_results(generated: Path) -> Manifest | None:
    """Read the manifest of a folder of results, or the one that lists a file as a result; None if there is none."""
    return manifest_that_lists(generated) if generated.is_file() else read_manifest(generated)


def manifest_of_originals(real: Path) -> Manifest | None:
    """Read the manifest of originals that are results, or inputs of the network, of an earlier run; None if not."""
    if real.is_file():
        return manifest_that_lists(real)
    return read_manifest(real) or (read_manifest(real.parent) if real.absolute().name == ORIGIN else None)


def manifest_that_lists(file: Path) -> Manifest | None:
    """Read the manifest in a folder above `file` that lists it as a result or as an input of the network."""
    for folder in file.absolute().parents:
        with suppress(VaectlError):  # a file of another tool
            manifest = read_manifest(folder)
            if manifest and any(file.absolute() in _files(folder, clip) for clip in manifest.clips):
                return manifest
    return None


def _files(folder: Path, clip: ManifestClip) -> set[Path]:
    return {folder / place for place in (clip.generated, clip.origin) if place and clip.status == "ok"}


def check_order(real: Path, generated: Path, of_real: Manifest) -> None:
    """Raise UsageError if `generated` has the originals of `real`, whose manifest is given, or its network inputs."""
    results = real if real.is_file() or (real / MANIFEST).exists() else real.parent
    if generated.resolve() == (results / ORIGIN).resolve() or has_originals(generated, of_real):
        problem, originals = f"{generated}: has originals, not reconstructions", generated
    elif generated.resolve() == real.resolve():
        problem, originals = f"{real}: has reconstructions, not their originals", Path(of_real.real_video_dir)
    else:
        return
    raise UsageError(
        f"{problem} ({MANIFEST} of {results} says so)",
        f"give `real_video_dir={originals}` and `generated_video_dir={results}`",
    )


def has_originals(path: Path, manifest: Manifest) -> bool:
    """Whether a folder or file is an original that `manifest` lists: by its path, or by its name and size."""
    if str(path.resolve()) == manifest.real_video_dir:
        return True
    root = folder_of(path)
    files = {root / clip.source: clip.source_stamp[0] for clip in manifest.clips}
    return any(0 < size == _size(file) for file, size in files.items() if path.is_dir() or file == path)


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
        raise UsageError(
            f"{folder}: its clips were prepared {', and '.join(found)}",
            "leave these options out, pass `as_prepared` to ignore them, or prepare the clips again",
        )


def contradictions(options: EvalOptions, manifest: Manifest) -> Iterator[str]:
    """Yield what was prepared, and what is asked for, for each option that contradicts the manifest."""
    made = manifest.options
    for field in fields(ClipProtocol):
        asked, prepared = getattr(options, field.name), getattr(manifest.protocol, field.name) or 0
        if asked is not None and asked != prepared:
            yield f"with `{field.name}={prepared}`, not {asked}"
    # A folder can hold fewer clips than the subset, or more from an earlier run.
    subset = made.get("subset_size")
    if isinstance(subset, int) and 0 < subset <= max(subset, len(manifest.clips)) < options.subset_size:
        yield f"with `subset_size={subset}`, not {options.subset_size}"
    if options.generated_video_dir is None:
        return  # the options of the model are those of the model that runs now
    if options.dtype not in (None, "auto", manifest.model.dtype):
        yield f"with `dtype={manifest.model.dtype}`, not {options.dtype}"
    if options.sample and not made.get("sample"):
        yield "without `sample`"
    elif options.sample and options.seed != made.get("seed"):
        yield f"with `seed={made.get('seed')}`, not {options.seed}"


def check_same_protocol(generated: Path, of_generated: Manifest, real: Path, of_real: Manifest) -> None:
    """Raise UsageError if two prepared folders have other frames or another size."""
    one, other = of_generated.protocol, of_real.protocol
    differing = [
        f"`{field.name}={getattr(one, field.name) or 0}` and {getattr(other, field.name) or 0}"
        for field in fields(ClipProtocol)
        if getattr(one, field.name) != getattr(other, field.name)
    ]
    if differing:
        raise UsageError(
            f"{generated} and {real}: were prepared with different frames: {', '.join(differing)}",
            "prepare one of them again, with the options of the other",
        )
