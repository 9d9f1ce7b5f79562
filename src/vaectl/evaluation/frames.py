"""Read the frames of a pair of clips: which frames are compared, and at which size. Knows no model and no metric.

Clips written by `prepare-eval` are read whole and unchanged. For a clip from another tool:

- size: if it has the size of its original, it is resized and cropped like the original; if it has the size that the
  protocol gives, it is used as it is; any other size is an error;
- frames: if it has as many frames as are compared, all are used; otherwise those that the protocol selects.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.manifest import MANIFEST, Manifest
from vaectl.evaluation.pairs import Pair
from vaectl.evaluation.prepared import check_options, check_order, check_same_protocol, manifest_of
from vaectl.evaluation.protocol import ClipProtocol, protocol_of, read_clip, read_clip_and_facts
from vaectl.options import EvalOptions
from vaectl.options.clips import RESOLUTION, check_crop
from vaectl.progress import Progress
from vaectl.video import Clip, VideoReader, read_video
from vaectl.video.clip import others_left_out


@dataclass(frozen=True)
class Reading:
    """How the clips of an evaluation are read."""

    protocol: ClipProtocol
    real_is_prepared: bool
    """The originals are inputs or outputs of the network in an earlier run of `prepare-eval`."""
    generated_is_prepared: bool


@dataclass(frozen=True)
class DecodedPair:
    """A pair with its frames."""

    pair: Pair
    real: Clip
    generated: Clip | None
    """None if the model still has to run."""
    stored: int
    """Pixels per frame in the file of the original."""
    seconds: float
    """Time spent decoding."""
    note: str | None = None
    """A warning about the original."""


def how_to_read(options: EvalOptions, manifest: Manifest | None, progress: Progress) -> Reading:
    """Return how to read the clips: by the manifest of the results or of the originals, else by `options`.

    Raises UsageError if the folders are swapped, or if options contradict the manifest without `as_prepared`.
    """
    real, generated = options.real_video_dir, options.generated_video_dir
    of_real = manifest_of(real)
    if generated:
        check_order(real, generated)
    known = manifest or of_real
    if known is None:
        return Reading(protocol_without_manifest(options, progress), False, False)
    check_options(options, generated if manifest and generated else real, known, progress)
    if manifest and generated and of_real:
        check_same_protocol(generated, manifest, real, of_real)
    if manifest and manifest.options.get("format") == "mp4":
        progress.warn(
            f"{generated}: its clips are lossy (`format=mp4`), so every number includes the loss of the codec"
        )
    return Reading(known.protocol, of_real is not None, manifest is not None)


def protocol_without_manifest(options: EvalOptions, progress: Progress) -> ClipProtocol:
    """Return the protocol that `options` define. Raises UsageError for `as_prepared`, or a crop that does not fit."""
    if options.as_prepared:
        raise UsageError(
            f"{options.generated_video_dir or options.real_video_dir}: has no {MANIFEST}, so it is unknown how its"
            " clips were prepared",
            "leave out `as_prepared`",
        )
    if options.generated_video_dir and (options.sample or (options.dtype, options.seed) != (None, None)):
        progress.note("`dtype`, `sample` and `seed` have no effect: no model runs")
    try:
        check_crop(options.resolution or RESOLUTION, options.crop_size)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return protocol_of(options)


def read_pair(pair: Pair, reading: Reading) -> DecodedPair:
    """Decode both clips. Raises VaectlError, which names the file, unless size and number of frames are equal."""
    begun = time.monotonic()
    source_size = note = None
    if reading.real_is_prepared:
        real = read_video(pair.real)
        stored = real.frames[0, 0].numel()
    else:
        real, info = read_clip_and_facts(pair.real, reading.protocol)
        source_size, stored = (info.width, info.height), info.width * info.height
        note = f"{pair.real}: {others_left_out(info)}" if info.other_videos else None
    generated = None
    if pair.generated:
        prepared = reading.generated_is_prepared
        generated = (
            read_video(pair.generated)
            if prepared
            else read_foreign(pair.generated, real, source_size, reading.protocol)
        )
        if generated.frames.shape != real.frames.shape:
            raise VaectlError(
                f"{pair.generated}: has {_extent(generated)}, its original {pair.real} has {_extent(real)}",
                "make it again from this original",
            )
    return DecodedPair(pair, real, generated, stored, time.monotonic() - begun, note)


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
