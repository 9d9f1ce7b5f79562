"""The frames of a pair of clips as they are compared: which of them, and at which size. Knows no model and no metric.

What `prepare-eval` wrote is taken as it is, all of it. A clip from elsewhere goes by what it is:

- of the size of its original, it is brought to the size of the protocol as the original is; of the size that the
  protocol gives, it is taken as it is; of any other size, it is refused;
- with as many frames as are compared, all are taken; else those of the protocol are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

from vaectl.errors import VaectlError
from vaectl.evaluation.manifest import ORIGIN, Manifest, read_manifest
from vaectl.evaluation.pairs import Pair
from vaectl.evaluation.protocol import ClipProtocol, read_clip, read_clip_and_facts
from vaectl.options import EvalOptions
from vaectl.options.clips import NUM_FRAMES, RESOLUTION
from vaectl.progress import Progress
from vaectl.video import Clip, VideoReader, read_video
from vaectl.video.clip import others_left_out


@dataclass(frozen=True)
class Reading:
    """How the clips of an evaluation are read."""

    protocol: ClipProtocol
    real_is_prepared: bool
    """The originals are what went into a network, or came out of one, in an earlier run of `prepare-eval`."""
    generated_is_prepared: bool


@dataclass(frozen=True)
class DecodedPair:
    """A pair with its frames."""

    pair: Pair
    real: Clip
    generated: Clip | None
    """None where the model is still to be run."""
    stored: int
    """Pixels of a frame in the file of the original."""
    seconds: float
    """Spent decoding."""
    note: str | None = None
    """What the user should know about the original."""


def how_to_read(options: EvalOptions, manifest: Manifest | None, progress: Progress) -> Reading:
    """By the manifest of the results, or of what the originals are, if there is one; else by the options.

    Warns where the two contradict each other.
    """
    real = options.real_video_dir
    of_real = read_manifest(real) or (read_manifest(real.parent) if real.name == ORIGIN else None)
    known = manifest or of_real
    if known is None:
        resolution = options.resolution or RESOLUTION
        crop = resolution if options.crop_size is None else options.crop_size or None
        protocol = ClipProtocol(options.num_frames or NUM_FRAMES, options.sample_rate or 1, resolution, crop)
        return Reading(protocol, False, False)
    folder = options.generated_video_dir if manifest else real
    for field in fields(ClipProtocol):
        asked, prepared = getattr(options, field.name), getattr(known.protocol, field.name)
        if asked is not None and asked != (prepared or 0):
            progress.warn(
                f"{folder}: its clips were prepared with `{field.name}={prepared or 0}`, not {asked}; they are"
                " compared as they were prepared"
            )
    if manifest and manifest.options.get("format") == "mp4":
        progress.warn(f"{folder}: its clips were written with loss (`format=mp4`), which every number here includes")
    return Reading(known.protocol, of_real is not None, manifest is not None)


def read_pair(pair: Pair, reading: Reading) -> DecodedPair:
    """Both clips, of one size and number of frames. Raises VaectlError, naming the file, for any that are not."""
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
    """A result that no manifest tells of, whose original became `real` and was of `source_size` (width, height) before.

    None where the original was taken as it was.
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
