"""Numbered images as one video. `frames/%05d.png` names `frames/00001.png`, `frames/00002.png`, ..., as in FFmpeg.

The first frame is the one with the lowest number. A number that is missing before the last one is an error: FFmpeg ends
the video there. Each frame is read like a still image, and only one is in memory.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vaectl.errors import UsageError, VaectlError
from vaectl.video.clip import VideoInfo
from vaectl.video.color import RgbConversion
from vaectl.video.container import IMAGE_EXTENSIONS
from vaectl.video.facts import Layout, with_first_frame
from vaectl.video.shown import upright_rgb
from vaectl.video.source import Pictures, Source

FRAME_RATE = Fraction(25)
"""Frames per second of a sequence. FFmpeg has the same default."""
_MANY = 10
"""With fewer images, a folder is more likely to hold stills."""
_NUMBER = re.compile(r"%(0?[0-9]{0,2})d")
"""Up to 99 digits: a file name has no room for many more."""


class FrameSequence(NamedTuple):
    """The files of a sequence: `folder / f"{before}{number:0{digits}d}{after}"`."""

    folder: Path
    before: str
    digits: int
    after: str
    numbers: range

    def file(self, index: int) -> Path:
        """Return the file of frame `index`, from 0."""
        return self.folder / self.name(self.numbers[index])

    def name(self, number: int) -> str:
        """Return the name of the file with this number."""
        return f"{self.before}{number:0{self.digits}d}{self.after}"


def sequence_of(path: Path) -> FrameSequence | None:
    """Return the sequence that `path` names: its name has one `%d` or `%05d`. None if it exists, or if nothing fits it.

    Raises UsageError if the numbers have more or fewer digits, or if a frame is missing before the last.
    """
    found = list(_NUMBER.finditer(path.name))
    if len(found) != 1 or os.path.lexists(path):
        return None
    before, after = path.name[: found[0].start()], path.name[found[0].end() :]
    empty = FrameSequence(path.parent, before, int(found[0][1] or 1), after, range(0))
    numbered = _numbered(empty)
    if not numbered:
        return None
    numbers = {number for number, name in numbered if name == empty.name(number)}
    others = [name for number, name in numbered if number not in numbers]
    if others:
        raise UsageError(
            f"{path.parent / others[0]}: its number has not the digits of {path.name}",
            f"write %0{len(others[0]) - len(before + after)}d, or rename the file",
        )
    sequence = empty._replace(numbers=range(min(numbers), max(numbers) + 1))
    missing = [number for number in sequence.numbers[: len(numbers) + 1] if number not in numbers]
    if missing:
        raise UsageError(
            f"{path.parent / sequence.name(missing[0])}: is missing, and {sequence.name(max(numbers))} comes after it",
            "add the frame, or move the frames after it to another folder",
        )
    return sequence


def _numbered(sequence: FrameSequence) -> list[tuple[int, str]]:
    """Return the files that are named like those of `sequence`, with any number of digits: number and name, sorted."""
    try:
        names = os.listdir(sequence.folder)  # noqa: PTH208  # a Path for each of many names would take longer
    except OSError:
        return []
    form = re.compile(re.escape(sequence.before) + r"([0-9]+)" + re.escape(sequence.after))
    return sorted((int(found[1]), name) for name in names if (found := form.fullmatch(name)))


def is_single(path: Path) -> bool:
    """Return whether `path` names one video: a file, or numbered images. Raises as `sequence_of` does."""
    return path.is_file() or sequence_of(path) is not None


def open_sequence(path: Path, sequence: FrameSequence, rgb_conversion: RgbConversion) -> Source:
    """Return the frames of `sequence` as a video, in RGB. Its facts are those of the first frame.

    Raises UsageError and VaectlError for a first frame that is not a readable image.
    """
    first, _ = _read_still(sequence.file(0), rgb_conversion)
    num_frames = len(sequence.numbers)

    def frames(wanted: range) -> Iterator[VideoFrame]:
        for index in wanted:
            info, picture = _read_still(sequence.file(index), rgb_conversion)
            if _kind(info) != _kind(first):
                raise VaectlError(
                    f"{info.path}: is {_kind(info)}, but the first frame {first.path.name} is {_kind(first)}",
                    "the frames of a video need one size and one kind",
                )
            yield VideoFrame.from_ndarray(picture, format="rgb24")

    times = tuple(index / FRAME_RATE for index in range(num_frames))
    info = replace(first, path=path, frame_rate=FRAME_RATE, num_frames_from_header=num_frames, is_image=False)
    return Source(info, Layout(), Pictures(times, None, frames))


def _read_still(path: Path, rgb_conversion: RgbConversion) -> tuple[VideoInfo, NDArray[np.uint8]]:
    """Return the facts about a still image, and its pixels (H, W, 3) in RGB. Raises VaectlError for anything else."""
    info, layout, frame = with_first_frame(path)
    if not info.is_image:
        raise VaectlError(f"{path}: is not a still image", "number only still images")
    picture = np.stack(upright_rgb(info, layout, rgb_conversion)(frame), axis=2)
    del frame
    gc.collect(1)  # as in `facts_and_layout`
    return info, picture


def _kind(info: VideoInfo) -> str:
    return f"{info.codec} of {info.width}x{info.height} pixels"


def files_of(path: Path) -> list[Path]:
    """Return the files of the video at `path`: of a sequence all frames, else `path` itself."""
    sequence = sequence_of(path)
    return [path] if sequence is None else [sequence.file(index) for index in range(len(sequence.numbers))]


def stamp_of(path: Path) -> tuple[int, int]:
    """Return size in bytes and modification time (ns): of a sequence, the sum and the latest. Raises OSError."""
    found = [file.stat() for file in files_of(path)]
    return sum(status.st_size for status in found), max(status.st_mtime_ns for status in found)


def file_named(path: Path) -> Path:
    """Return a path without a number, to name results: `in/shot.png` for `in/shot_%04d.png`.

    It is `in/in.png` for `in/%04d.png`. The path of a file or folder is returned unchanged.
    """
    found = list(_NUMBER.finditer(path.name))
    if len(found) != 1 or os.path.lexists(path):
        return path
    before, after = path.name[: found[0].start()], path.name[found[0].end() :]
    stem = (before + after.removesuffix(path.suffix)).strip(" ._-") or path.parent.resolve().name or "frames"
    return path.with_name(stem + path.suffix)


def pattern_of(files: Sequence[Path]) -> Path | None:
    """Return the path that names `files` as one sequence; None if they are too few, have gaps, or others are there."""
    found = re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", files[0].name, re.DOTALL)
    if found is None or len(files) < _MANY or files[0].suffix.lower() not in IMAGE_EXTENSIONS:
        return None
    if any(file.parent != files[0].parent for file in files):
        return None
    before, number, after = found.groups()
    padded = number.startswith("0") or all(len(file.name) == len(files[0].name) for file in files)
    pattern = files[0].with_name(f"{before}%{f'0{len(number)}' if padded else ''}d{after}")
    try:
        sequence = sequence_of(pattern)
    except UsageError:
        return None
    return pattern if sequence is not None and len(sequence.numbers) == len(files) else None
