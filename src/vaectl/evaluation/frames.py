"""Read the frames of an original and its reconstructions: which are compared, and at which size. Knows no model.

All files of a group are read window by window, in step. Clips written by `prepare-eval` are read unchanged. For a clip
from another tool:

- size: if it has the size of its original, it is resized and cropped like the original; if it has the size that the
  protocol gives, it is used as it is; any other size is an error;
- frames: if it has as many frames as the protocol selects, with or without those after the last window, it is used
  from the first on; otherwise those that the protocol selects.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.manifest import MANIFEST, Manifest
from vaectl.evaluation.pairs import Group
from vaectl.evaluation.prepared import check_options, check_order, check_same_protocol, manifest_of
from vaectl.evaluation.protocol import ClipProtocol, Selection, frame_size, protocol_of, read_windows, select
from vaectl.evaluation.results import counted
from vaectl.options import EvalOptions
from vaectl.options.clips import RESOLUTION, check_crop
from vaectl.progress import Progress
from vaectl.video import Clip, VideoReader
from vaectl.video.clip import others_left_out


@dataclass(frozen=True)
class Reading:
    """How the clips of an evaluation are read."""

    protocol: ClipProtocol
    real_is_prepared: bool
    """The originals are inputs or outputs of the network in an earlier run of `prepare-eval`."""
    are_prepared: tuple[bool, ...]
    """Whether `prepare-eval` wrote the reconstructions, for each candidate."""


@dataclass(frozen=True)
class DecodedGroup:
    """A window of an original and of its reconstructions with their frames: the whole clip, without `all_windows`."""

    group: Group
    real: Clip
    generated: tuple[Clip | None, ...]
    """None for a model that still has to run."""
    stored: int
    """Pixels per frame in the file of the original."""
    seconds: float
    """Time spent decoding."""
    note: str | None = None
    """A warning about the original."""
    window: int = 0
    """From 0."""
    windows: int = 1
    frames_left_out: int = 0
    """Frames of the original after the last window."""

    @property
    def name(self) -> str:
        """The name of the clip, and the window if there are several."""
        return f"{self.group.name}, window {self.window + 1} of {self.windows}" if self.windows > 1 else self.group.name


def how_to_read(options: EvalOptions, manifests: Sequence[Manifest | None], progress: Progress) -> Reading:
    """Return how to read the clips: by the manifests of the candidates or of the originals, else by `options`.

    `manifests` has one for each candidate. Raises UsageError if the folders are swapped, if manifests contradict each
    other, or if options contradict them without `as_prepared`.
    """
    real, of_real = options.real_video_dir, manifest_of(options.real_video_dir)
    prepared: list[tuple[Path, Manifest]] = []
    for candidate, manifest in zip(options.candidates, manifests, strict=True):
        if not candidate.is_model:
            check_order(real, candidate.path)
        if manifest:
            prepared.append((candidate.path, manifest))
            if manifest.options.get("format") == "mp4":
                progress.warn(
                    f"{candidate.path}: its clips are lossy (`format=mp4`), so every number includes the loss of the"
                    " codec"
                )
    are_prepared = tuple(manifest is not None for manifest in manifests)
    known = [*prepared, *([(real, of_real)] if of_real else [])]
    if not known:
        return Reading(protocol_without_manifest(options, progress), False, are_prepared)
    for path, manifest in prepared or known:
        check_options(options, path, manifest, progress)
    for path, manifest in known[1:]:
        check_same_protocol(*known[0], path, manifest)
    return Reading(known[0][1].protocol, of_real is not None, are_prepared)


def protocol_without_manifest(options: EvalOptions, progress: Progress) -> ClipProtocol:
    """Return the protocol that `options` define. Raises UsageError for `as_prepared`, or a crop that does not fit."""
    if options.as_prepared:
        raise UsageError(
            f"{[options.real_video_dir, *(each.path for each in options.generated_video_dir)][-1]}: has no {MANIFEST},"
            " so it is unknown how its clips were prepared",
            "leave out `as_prepared`",
        )
    if not options.model and (options.sample or (options.dtype, options.seed) != (None, None)):
        progress.note("`dtype`, `sample` and `seed` have no effect: no model runs")
    try:
        check_crop(options.resolution or RESOLUTION, options.crop_size)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return protocol_of(options)


def read_group(group: Group, reading: Reading) -> Generator[DecodedGroup, None, None]:
    """Decode all clips once, and yield them window by window.

    Before the first window, raises VaectlError, which names the file, unless size and number of frames are equal.
    """
    begun, protocol = time.monotonic(), reading.protocol
    with ExitStack() as files:
        real = files.enter_context(VideoReader(group.real, rgb_conversion=protocol.rgb_conversion))
        info = real.info
        note = f"{group.real}: {others_left_out(info)}" if info.other_videos and not reading.real_is_prepared else None
        of_real = as_prepared(protocol) if reading.real_is_prepared else protocol
        selection, size = select(real, of_real), frame_size(info, of_real)
        streams: list[Iterator[Clip]] = []
        for path, prepared in zip(group.generated, reading.are_prepared, strict=True):
            if path is None:
                continue
            result = files.enter_context(VideoReader(path, rgb_conversion=protocol.rgb_conversion))
            if prepared:
                how, step = as_prepared(protocol), 1
            else:
                how, step = how_to_read_foreign(result, real, size, selection, reading)
            chosen, chosen_size = select(result, how, step), frame_size(result.info, how)
            if (chosen.num_frames, chosen.windows, *chosen_size) != (selection.num_frames, selection.windows, *size):
                raise VaectlError(
                    f"{path}: has {_extent(chosen, chosen_size)}, its original {group.real} has"
                    f" {_extent(selection, size)}",
                    "make it again from this original",
                )
            streams.append(read_windows(result, how, chosen))
        for window, clip in enumerate(read_windows(real, of_real, selection)):
            decoded = map(next, streams)
            yield DecodedGroup(
                group,
                clip,
                tuple(None if path is None else next(decoded) for path in group.generated),
                info.width * info.height,
                time.monotonic() - begun,
                None if window else note,
                window,
                selection.windows,
                selection.left_out,
            )
            begun = time.monotonic()


def as_prepared(protocol: ClipProtocol) -> ClipProtocol:
    """Return the protocol to read what `prepare-eval` wrote by `protocol`: whole frames, all of them."""
    num_frames = protocol.num_frames if protocol.all_windows else "all"
    return replace(protocol, num_frames=num_frames, sample_rate=1, frame_rate=None, resolution="source", crop_size=None)


def how_to_read_foreign(
    result: VideoReader, real: VideoReader, size: tuple[int, int], selection: Selection, reading: Reading
) -> tuple[ClipProtocol, int]:
    """Return how to read a result that no manifest lists, and the distance of its frames.

    `size` and `selection` are those of the original `real` as it is compared. Raises VaectlError for another size.
    """
    protocol, info = reading.protocol, result.info
    source = None if reading.real_is_prepared else (real.info.width, real.info.height)
    step = protocol.step((info if reading.real_is_prepared else real.info).frame_rate)
    if len(result.timestamps()) in (selection.total, selection.total + selection.left_out):
        step = 1
    if (info.width, info.height) == source:
        return protocol, step
    if (info.width, info.height) != size:
        or_whole = f", or {_by(*source)} as the original is" if source and source != size else ""
        raise VaectlError(
            f"{info.path}: its frames are {_by(info.width, info.height)}", f"they have to be {_by(*size)}{or_whole}"
        )
    return replace(protocol, resolution="source", crop_size=None), step


def _extent(selection: Selection, size: tuple[int, int]) -> str:
    windows = f"{selection.windows} windows of " if selection.windows > 1 else ""
    return f"{windows}{counted(selection.num_frames, 'frame')} of {_by(*size)}"


def _by(width: int, height: int) -> str:
    return f"{width}x{height}"
