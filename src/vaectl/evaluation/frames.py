"""Read the frames of an original and its reconstructions: which are compared, and at which size. Knows no model.

Clips written by `prepare-eval` are read whole and unchanged. For a clip from another tool:

- size: if it has the size of its original, it is resized and cropped like the original; if it has the size that the
  protocol gives, it is used as it is; any other size is an error;
- frames: if it has as many frames as are compared, all are used; otherwise those that the protocol selects.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.manifest import MANIFEST, Manifest
from vaectl.evaluation.pairs import Group
from vaectl.evaluation.prepared import check_options, check_order, check_same_protocol, manifest_of
from vaectl.evaluation.protocol import ClipProtocol, read_clip, read_clip_and_facts
from vaectl.options import EvalOptions
from vaectl.options.clips import NUM_FRAMES, RESOLUTION, check_crop
from vaectl.progress import Progress
from vaectl.video import Clip, VideoReader, read_video
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
    """An original and its reconstructions with their frames."""

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
    resolution = options.resolution or RESOLUTION
    try:
        check_crop(resolution, options.crop_size)
    except ValueError as error:
        raise UsageError(str(error)) from None
    crop = resolution if options.crop_size is None else options.crop_size or None
    rgb_conversion = options.rgb_conversion or "accurate"
    return ClipProtocol(options.num_frames or NUM_FRAMES, options.sample_rate or 1, resolution, crop, rgb_conversion)


def read_group(group: Group, reading: Reading) -> DecodedGroup:
    """Decode all clips. Raises VaectlError, which names the file, unless size and number of frames are equal."""
    begun = time.monotonic()
    source_size = note = None
    read_prepared = partial(read_video, rgb_conversion=reading.protocol.rgb_conversion)  # `format=mp4` is not RGB
    if reading.real_is_prepared:
        real = read_prepared(group.real)
        stored = real.frames[0, 0].numel()
    else:
        real, info = read_clip_and_facts(group.real, reading.protocol)
        source_size, stored = (info.width, info.height), info.width * info.height
        note = f"{group.real}: {others_left_out(info)}" if info.other_videos else None
    clips: list[Clip | None] = []
    for path, prepared in zip(group.generated, reading.are_prepared, strict=True):
        if path is None:
            clips.append(None)
            continue
        clip = read_prepared(path) if prepared else read_foreign(path, real, source_size, reading.protocol)
        if clip.frames.shape != real.frames.shape:
            raise VaectlError(
                f"{path}: has {_extent(clip)}, its original {group.real} has {_extent(real)}",
                "make it again from this original",
            )
        clips.append(clip)
    return DecodedGroup(group, real, tuple(clips), stored, time.monotonic() - begun, note)


def read_foreign(path: Path, real: Clip, source_size: tuple[int, int] | None, protocol: ClipProtocol) -> Clip:
    """Decode a result that no manifest lists, for comparison with `real`.

    `source_size` is (width, height) of the original before resizing; None if it was not resized. Raises VaectlError for
    a result of another size.
    """
    with VideoReader(path) as reader:
        size, num_frames = (reader.info.width, reader.info.height), len(reader.timestamps())
    if num_frames == protocol.num_frames:
        protocol = replace(protocol, sample_rate=1)
    if size != source_size:
        height, width = real.frames.shape[2:]
        if size != (width, height):
            or_whole = f", or {_by(*source_size)} as the original is" if source_size else ""
            raise VaectlError(f"{path}: its frames are {_by(*size)}", f"they have to be {_by(width, height)}{or_whole}")
        protocol = replace(protocol, resolution=min(size), crop_size=None)
    return read_clip(path, protocol)


def _extent(clip: Clip) -> str:
    height, width = clip.frames.shape[2:]
    return f"{len(clip)} frames of {_by(width, height)}"


def _by(width: int, height: int) -> str:
    return f"{width}x{height}"
