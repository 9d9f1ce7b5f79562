"""Plan a run of `vaectl reconstruct`: each source with its output path.

Runs before a model is opened. No result replaces a source.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from pathlib import Path

from vaectl.errors import UsageError, VaectlError
from vaectl.io.atomic_write import refuse_special
from vaectl.io.output_paths import fitting_name, identity, keep_outside, left_out, mirror
from vaectl.io.parsing import read_json
from vaectl.options import ReconstructOptions
from vaectl.progress import Progress, Silent
from vaectl.video import find_videos
from vaectl.video.animation import is_still
from vaectl.video.container import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from vaectl.video.sequence import file_named, files_of, pattern_of

RECORD = "vaectl.json"
RECORD_BYTES = 2**28
"""A larger record is not read."""


def plan_output_paths(options: ReconstructOptions, progress: Progress | None = None) -> list[tuple[Path, Path]]:
    """Pair each source with its output path; note which videos are left out.

    Raises UsageError if an output path is a source or a video that was left out, is not that of a regular file, or
    exists without `overwrite`.
    """
    try:
        pairs, others = pair(options.video_path, options.rec_path, options.lossless)
        if others:
            (progress or Silent()).note(left_out(others, options.rec_path))
        output_paths, record = [target for _, target in pairs], record_path(options, pairs[0][1])
        given = [*chain.from_iterable(files_of(source) for source, _ in pairs), *filter(None, [options.config])]
        read, kept = ({identity(file) for file in files if file.exists()} for files in (given, others))
        for file in (*output_paths, record):
            refuse_special(file, "give another `rec_path`")
            if file.exists() and identity(file) in read:
                raise UsageError(f"{file}: is an input of this run", "give another `rec_path`")
            if file.exists() and identity(file) in kept:
                remedy = "give another `rec_path`, or remove it if a stopped run made it"
                raise UsageError(f"{file}: is an input of this run, as no record lists it as a result", remedy)
        existing = [file for file in output_paths if file.exists() or file.is_symlink()] or [record] * record.exists()
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}", "check the path and its permissions") from None
    if existing and not options.overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]}{more}: exists already", "pass `overwrite` to replace, or change `rec_path`")
    return pairs


def pair(sources: tuple[Path, ...], target: Path, lossless: bool) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Pair a file with its output path, or several files and the files of folders with paths in a folder.

    The paths below a source folder are kept. A target without extension is a folder for the results. Results inside a
    source folder are not sources; other videos there, which no record lists, are returned too. Raises UsageError if
    there are no sources, for two results of one name, and for several results in one file.
    """
    if is_one_file(sources):
        if is_file_name(target) and not target.is_dir():
            return [(file, target) for file in find_videos(sources[0])], []
    elif not target.is_dir() and (target.exists() or target.suffix.lower() in VIDEO_EXTENSIONS + IMAGE_EXTENSIONS):
        kind = "a file" if target.exists() else "the name of a file"
        several = f"{sources[0]} is a folder" if len(sources) == 1 else f"there are {len(sources)} inputs"
        pattern = pattern_of(sorted(chain.from_iterable(map(find_videos, sources))))
        if pattern is not None:
            raise UsageError(
                f"{target}: is {kind}, but {several}", f"for one video of these images, give `video_path={pattern}`"
            )
        raise UsageError(
            f"{target}: is {kind}, but {several}", f"name a folder, as in `rec_path={target.with_suffix('')}`"
        )
    names: dict[Path, Path] = {}
    others: list[Path] = []
    for source in sources:
        folder = source.is_dir()
        found = find_videos(source)
        if folder:
            found, inside = keep_outside(found, source, target, recorded_results)
            others += inside
        for file in found:
            name = file.relative_to(source) if folder else Path(file_named(file).name)
            if (other := names.get(name)) is not None:
                said = f"{file}: is given twice" if other == file else f"{other} and {file}: their results share a name"
                raise UsageError(said, "leave one out, or use two runs")
            if len(name.parts) > 1 and name.parts[0] == RECORD:
                raise UsageError(f"{file}: the results have a file {RECORD} of their own", "rename this folder")
            names[name] = file
    endings = [".png" if is_still(file) else ".mkv" if lossless else ".mp4" for file in names.values()]
    targets = [target / name for name in mirror([*names], endings)]
    return list(zip(names.values(), targets, strict=True)), others


def recorded_results(folder: Path) -> set[Path]:
    """Return the results in `folder` that the records of earlier runs list, as far as they can be read."""
    found = set()
    for file in folder.glob(f"*{RECORD}"):
        with suppress(VaectlError, LookupError, TypeError, ValueError):  # damaged, or of another tool
            record = read_json(file, RECORD_BYTES)
            given = Path(record["options"]["rec_path"])
            for target in [Path(clip["target"]) for clip in record["clips"] if clip["error"] is None]:
                found.add(folder / (target.name if target == given else target.relative_to(given)))
    return found


def is_one_file(sources: tuple[Path, ...]) -> bool:
    """Return whether the only source is a file, so that the target may be one, and an error ends the run."""
    return len(sources) == 1 and not sources[0].is_dir()


def is_file_name(target: Path) -> bool:
    """Return whether a name has an extension. That of `v1.0` is a number, not an extension."""
    return target.suffix[1:2].isalpha()


def record_path(options: ReconstructOptions, first: Path) -> Path:
    """Return the path of the record of the run: in the folder of results, or next to the only result, `first`."""
    if is_one_file(options.video_path):
        return first.with_name(fitting_name(first.name, f".{RECORD}"))
    return options.rec_path / RECORD
