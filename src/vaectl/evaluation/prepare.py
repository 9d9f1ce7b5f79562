"""The job behind `vaectl prepare-eval`: resize and crop clips by the published protocol, reconstruct and write them.

Joins `video`, the engine and the manifest. Decoding, network and writing overlap; ranks share the clips. Knows no
metric.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from vaectl import memory
from vaectl.distributed import device_of_rank, is_main, process_group, rank, share, wait_for_others, world_size
from vaectl.engine import open_model, reconstruct_frames
from vaectl.errors import UsageError, VaectlError, unforeseen
from vaectl.evaluation.manifest import MANIFEST, Manifest, ManifestClip, folder_of, open_journal, write_manifest
from vaectl.evaluation.plan import plan_clips, require_manifest, start_manifest
from vaectl.evaluation.protocol import host_overhead, protocol_of, read_windows, select
from vaectl.io.checksum import sha256_of
from vaectl.io.json_values import plain
from vaectl.io.lock import locked
from vaectl.memory import Limits
from vaectl.models.vae import AnyVAE
from vaectl.options import PrepareEvalOptions
from vaectl.prefetch import batch_by_shape, parallel_streams, prefetch
from vaectl.progress import Progress, Silent
from vaectl.rng import generator_for
from vaectl.video.clip import Clip, others_left_out
from vaectl.video.read import VideoReader
from vaectl.video.write import VideoWriter


@dataclass(frozen=True)
class PrepareResult:
    """The results of a run, over all ranks."""

    manifest: Manifest
    made: int
    kept: int
    """Clips that an earlier run finished."""
    failed: int
    seconds: float
    peak_memory: int
    """Bytes of this process: resident memory on the CPU, reserved by PyTorch on a GPU."""
    manifest_path: Path

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values: the manifest, and the counts of this run."""
        counts = {"made": self.made, "kept": self.kept, "failed": self.failed}
        run = {"seconds": self.seconds, "peak_memory": self.peak_memory, "manifest": str(self.manifest_path)}
        return {**counts, **run, **plain(asdict(self.manifest))}


def prepare(options: PrepareEvalOptions, progress: Progress) -> PrepareResult:
    """Reconstruct the clips below a folder, or one file, by the protocol, and write the results.

    A clip that fails is reported, recorded in the manifest and left out; the others continue. Raises UsageError for
    invalid requests, and VaectlError if the run cannot continue. Finished clips are kept, and the next run skips them.
    """
    begun = time.monotonic()
    folder, limits = options.generated_video_dir, Limits.of(options)
    everybody, progress = progress, progress if is_main() else Silent()
    with process_group(everybody, options.rendezvous_timeout, options.device), ExitStack() as held:
        plan = plan_clips(options, progress) if is_main() else ()
        device = device_of_rank(options.device)
        model = open_model(
            options.model,
            device,
            options.dtype,
            limits,
            options.model_name,
            progress,
            options.weights,
            compile=options.compile,
        )
        if is_main():
            held.enter_context(locked(folder, "give another `generated_video_dir`"))
            write_manifest(folder, start_manifest(options, plan, model, progress))
        wait_for_others()
        listed = require_manifest(folder).clips
        waiting = [clip for clip in listed if clip.status == "waiting"]
        mine, kept = waiting[rank() :: world_size()], sum(clip.status == "ok" for clip in listed)
        if kept:
            progress.note(f"{kept} of {len(listed)} clips are kept from an earlier run")
        before = 0 if share() else kept
        progress.start_clips(before + len(mine), before, share())
        process_clips(mine, model, limits, options, progress)
        memory.return_freed()  # a small network has kept it for the next clip
        wait_for_others()
        if is_main():
            write_manifest(folder, require_manifest(folder))
        wait_for_others()
        manifest = require_manifest(folder)
    status = {clip.name: clip.status for clip in manifest.clips}
    ended = [status[clip.name] for clip in waiting]
    seconds, peak = time.monotonic() - begun, memory.peak(model.device)
    counts = ended.count("ok"), kept, ended.count("failed")
    return PrepareResult(manifest, *counts, seconds, peak, folder / MANIFEST)


@dataclass(frozen=True)
class ClipJob:
    """A window of a clip on its way through the pipeline: the original, then the reconstruction, or why it failed."""

    entry: ManifestClip
    original: Clip | None = None
    window: int = 0
    """From 0; always 0 without `all_windows`."""
    times: tuple[Fraction, ...] = ()
    """Of the frames of all windows."""
    stored: int = 0
    """Pixels per frame in the source."""
    frames: torch.Tensor | None = None
    """(T, 3, H, W) uint8, the reconstruction."""
    reason: str | None = None
    note: str | None = None
    """A warning about the source."""


def process_clips(
    entries: Sequence[ManifestClip], model: AnyVAE, limits: Limits, options: PrepareEvalOptions, progress: Progress
) -> None:
    """Read, reconstruct, write and record clips in order. Reading and the network run ahead of writing, in threads."""
    with (
        open_journal(options.generated_video_dir, rank()) as journal,
        prefetch(reconstruct_clips(entries, model, limits, options, progress), depth=1) as clips,
    ):
        for entry, windows in groupby(clips, lambda job: job.entry):
            entry = try_write(entry, windows, options, progress)
            journal.add(entry)
            figures = f"made, {entry.frames} frames, {entry.width}x{entry.height}"
            progress.end_clip(entry.name, entry.reason or figures, failed=entry.status == "failed")


def reconstruct_clips(
    entries: Sequence[ManifestClip], model: AnyVAE, limits: Limits, options: PrepareEvalOptions, progress: Progress
) -> Generator[ClipJob, None, None]:
    """Yield the windows of each clip with their reconstructions, in order."""
    # With tiles memory is short: hold no clips that wait.
    workers, at_once = (1, 1) if limits.tiled else (max(1, options.num_workers), options.batch_size)
    readings = parallel_streams(partial(read, options), entries, workers)
    for batch in batch_by_shape(readings, shape_of, 1 if options.sample else at_once):
        yield from reconstruct_batch(batch, model, limits, options, progress)


def read(options: PrepareEvalOptions, entry: ManifestClip) -> Generator[ClipJob, None, None]:
    """Yield the windows of a clip, and the reason if one cannot be read."""
    source, protocol = source_of(options, entry), protocol_of(options)
    try:
        with VideoReader(source, rgb_conversion=protocol.rgb_conversion) as reader:
            info, selection = reader.info, select(reader, protocol)
            times = reader.timestamps(0, selection.total, selection.step)
            note = f"{source}: {others_left_out(info)}" if info.other_videos else None
            for window, clip in enumerate(read_windows(reader, protocol, selection)):
                yield ClipJob(entry, clip, window, times, info.width * info.height, note=None if window else note)
    except VaectlError as error:
        yield ClipJob(entry, reason=str(error))
    except Exception as error:  # an unexpected error in one clip must not stop the others
        yield ClipJob(entry, reason=str(unforeseen(source, error)))


def source_of(options: PrepareEvalOptions, entry: ManifestClip) -> Path:
    return folder_of(options.real_video_dir) / entry.source


def shape_of(job: ClipJob) -> torch.Size | None:
    return job.original.frames.shape if job.original else None


def reconstruct_batch(
    batch: Sequence[ClipJob], model: AnyVAE, limits: Limits, options: PrepareEvalOptions, progress: Progress
) -> Iterator[ClipJob]:
    """Reconstruct clips of one size in one batch. If that fails, run them one by one, to find the one that fails."""
    originals = [job.original.frames for job in batch if job.original]
    if not originals:
        yield from batch
        return
    frames_BT3HW, first = torch.stack(originals), batch[0]
    generator = generator_for(options.seed, first.entry.name, first.window) if options.sample else None
    try:
        results = reconstruct_frames(
            model,
            frames_BT3HW,
            source_of(options, first.entry),
            limits,
            host_overhead(frames_BT3HW, first.stored),
            progress,
            generator,
        )
    except UsageError:
        raise
    except Exception as error:
        if len(batch) == 1:
            known = error if isinstance(error, VaectlError) else unforeseen(source_of(options, first.entry), error)
            yield replace(first, reason=str(known))
        else:
            for job in batch:
                yield from reconstruct_batch([job], model, limits, options, progress)
        return
    for job, frames in zip(batch, results, strict=True):
        yield replace(job, frames=frames)


def try_write(
    entry: ManifestClip, windows: Iterator[ClipJob], options: PrepareEvalOptions, progress: Progress
) -> ManifestClip:
    """Write a clip and return its manifest entry. Raises errors of the disk, which would stop the next clip too."""
    try:
        return write(entry, windows, options, progress)
    except (VaectlError, OSError):
        raise
    except ClipError as error:
        reason = str(error)
    except Exception as error:
        reason = str(unforeseen(source_of(options, entry), error))
    return replace(entry, status="failed", reason=reason)


class ClipError(Exception):
    """Why a clip failed, in one line."""


def write(
    entry: ManifestClip, windows: Iterator[ClipJob], options: PrepareEvalOptions, progress: Progress
) -> ManifestClip:
    """Write the reconstruction, and the input if wanted, window by window; return the manifest entry.

    Raises ClipError for a window that failed, and leaves no file then.
    """
    folder, num_frames, size = options.generated_video_dir, 0, (0, 0)
    with ExitStack() as files:
        writers: dict[str, VideoWriter] = {}
        for job in windows:
            if job.note:
                progress.warn(job.note)
            if job.original is None or job.frames is None:
                raise ClipError(job.reason)
            times, clip = job.times, job.original
            if options.sample_fps is not None:
                rate = options.sample_fps / options.sample_rate
                times = tuple(index / rate for index in range(len(times)))
                clip = replace(clip, timestamps=times[num_frames : num_frames + len(clip)], frame_rate=rate)
            height, width = size = clip.frames.shape[2], clip.frames.shape[3]
            for place, frames in (entry.origin, clip.frames), (entry.generated, job.frames):
                if place and place not in writers:
                    writers[place] = files.enter_context(
                        VideoWriter(
                            folder / place,
                            width=width,
                            height=height,
                            frame_rate=clip.frame_rate,
                            timestamps=times,
                            lossless=options.format == "mkv",
                            overwrite=True,
                        )
                    )
                if place:
                    writers[place].write(replace(clip, frames=frames))
            num_frames += len(clip)
    written = {place: ((folder / place).stat().st_size, sha256_of(folder / place)) for place in writers}
    origin_bytes, origin_sha256 = written.get(entry.origin or "", (0, ""))
    generated_bytes, generated_sha256 = written[entry.generated]
    return replace(
        entry,
        status="ok",
        frames=num_frames,
        width=size[1],
        height=size[0],
        generated_bytes=generated_bytes,
        origin_bytes=origin_bytes,
        generated_sha256=generated_sha256,
        origin_sha256=origin_sha256,
    )
