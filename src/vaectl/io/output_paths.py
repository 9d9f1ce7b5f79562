"""Which file goes where: sources paired with targets, so that nothing is lost and no two results meet.

Decided before anything is read or written. Knows names and options, and nothing of what becomes of the frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vaectl.errors import UsageError
from vaectl.io.names import fitting_name
from vaectl.options import ReconstructOptions
from vaectl.video import find_videos
from vaectl.video.container import IMAGE_EXTENSIONS

RECORD = "vaectl.json"


def plan_targets(options: ReconstructOptions) -> list[tuple[Path, Path]]:
    """Every source with its target: all different, none of them a source, none of them there without `overwrite`."""
    try:
        pairs = pair(options.video_path, options.rec_path, options.lossless)
        targets, record = [target for _, target in pairs], record_path(options, pairs[0][1])
        given = [*(source for source, _ in pairs), *filter(None, [options.config])]
        read = {identity(file) for file in given if file.exists()}
        for file in (*targets, record):
            if file.exists() and identity(file) in read:
                raise UsageError(f"{file}: is what this run reads; give another --rec-path")
        existing = [file for file in targets if file.exists() or file.is_symlink()] or [record] * record.exists()
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}; check the path and its permissions") from None
    if existing and not options.overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]}{more}: exists already; pass --overwrite to replace, or change --rec-path")
    return pairs


def pair(source: Path, target: Path, lossless: bool) -> list[tuple[Path, Path]]:
    """A file with its target; or the files of a tree, each with its place in another tree.

    A target without extension is a folder for the result. Results that lie in a folder of the tree are not sources.
    Raises UsageError where this leaves none.
    """
    if source.is_dir():
        sources = find_outside(source, target)
        names = [file.relative_to(source) for file in sources]
    else:
        sources = find_videos(source)
        if target.suffix and not target.is_dir():
            return [(source, target)]
        names = [Path(source.name)]
    endings = [
        ".png" if file.suffix.lower() in IMAGE_EXTENSIONS else ".mkv" if lossless else ".mp4" for file in sources
    ]
    return [(file, target / name) for file, name in zip(sources, mirror(names, endings), strict=True)]


def find_outside(source: Path, results: Path) -> list[Path]:
    """The videos and images of the folder `source` that do not lie in `results`. Raises UsageError for none."""
    sources = find_videos(source)
    if results.exists() and not results.is_dir():
        raise UsageError(f"{results}: is a file, but {source} is a folder; name a folder for the results")
    inside = results.resolve()
    if inside.is_relative_to(source.resolve()):
        sources = [file for file in sources if not file.resolve().is_relative_to(inside)]
    if not sources:
        raise UsageError(f"{results}: holds all the videos of {source}; name another folder for the results")
    return sources


def identity(file: Path) -> tuple[int, int]:
    """Equal for two names of one file: links, or another case where that does not matter."""
    status = file.stat()
    return status.st_dev, status.st_ino


def mirror(sources: Sequence[Path], endings: Sequence[str]) -> list[Path]:
    """A name for the result of each source, with the ending that it is given.

    `a.mov` gives `a.mp4`; where two sources would meet in one name, they keep their own extension: `a.mov.mp4`. A name
    that becomes too long by that is shortened.
    """
    names = [source.with_suffix(ending) for source, ending in zip(sources, endings, strict=True)]
    while clashes := {name for name, count in Counter(names).items() if count > 1}:
        names = [
            source.with_name(source.name + ending) if name in clashes else name
            for source, ending, name in zip(sources, endings, names, strict=True)
        ]
    return [
        name.with_name(fitting_name(name.name.removesuffix(ending), ending))
        for name, ending in zip(names, endings, strict=True)
    ]


def record_path(options: ReconstructOptions, first: Path) -> Path:
    """Where the run is recorded: in the folder of results, or next to the `first` and only one."""
    if options.video_path.is_dir():
        return options.rec_path / RECORD
    return first.with_name(fitting_name(first.name, f".{RECORD}"))
