"""The job behind `vaectl prepare-eval`: resize and crop clips by the published protocol, reconstruct and write them.

Joins `video`, the engine and the manifest. Decoding, network and writing overlap; ranks share the clips. Knows no
metric.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vaectl import memory
from vaectl.distributed import device_of_rank, is_main, process_group, rank, share, wait_for_others, world_size
from vaectl.engine import Limits, open_model, reconstruct_frames
from vaectl.errors import UsageError, VaectlError, unforeseen
from vaectl.evaluation.manifest import MANIFEST, Manifest, ManifestClip, folder_of, open_journal, write_manifest
from vaectl.evaluation.plan import plan_clips, require_manifest, start_manifest
from vaectl.evaluation.protocol import host_overhead, protocol_of, read_clip_and_facts
from vaectl.io.checksum import sha256_of
from vaectl.io.lock import locked
from vaectl.models.vae import AnyVAE
from vaectl.options import PrepareEvalOptions
from vaectl.prefetch import batch_by_shape, parallel_map, prefetch
from vaectl.progress import Progress, Silent
from vaectl.rng import generator_for
from vaectl.video.clip import Clip, others_left_out
from vaectl.video.write import write_video


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
        return {**counts, **run, **asdict(self.manifest)}


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
        model = open_model(options.model, device, options.dtype, limits, options.model_name, progress, options.weights)
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
    """A clip on its way through the pipeline: the original, then the reconstruction, or the reason for a failure."""

    entry: ManifestClip
    original: Clip | None = None
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
        for job in clips:
            if job.note:
                progress.warn(job.note)
            entry = replace(job.entry, status="failed", reason=job.reason) if job.reason else try_write(job, options)
            journal.add(entry)
            figures = f"made, {entry.frames} frames, {entry.width}x{entry.height}"
            progress.end_clip(entry.name, entry.reason or figures, failed=entry.status == "failed")


def reconstruct_clips(
    entries: Sequence[ManifestClip], model: AnyVAE, limits: Limits, options: PrepareEvalOptions, progress: Progress
) -> Generator[ClipJob, None, None]:
    """Yield each clip with its reconstruction, in order."""
    # With tiles memory is short: hold no clips that wait.
    workers, at_once = (1, 1) if limits.tiled else (max(1, options.num_workers), options.batch_size)
    readings = parallel_map(partial(read, options), entries, workers)
    for batch in batch_by_shape(readings, shape_of, 1 if options.sample else at_once):
        yield from reconstruct_batch(batch, model, limits, options, progress)


def read(options: PrepareEvalOptions, entry: ManifestClip) -> ClipJob:
    """Read the frames of a clip, or return the reason for the failure."""
    source = source_of(options, entry)
    try:
        clip, info = read_clip_and_facts(source, protocol_of(options))
    except VaectlError as error:
        return ClipJob(entry, reason=str(error))
    except Exception as error:  # an unexpected error in one clip must not stop the others
        return ClipJob(entry, reason=str(unforeseen(source, error)))
    note = f"{source}: {others_left_out(info)}" if info.other_videos else None
    return ClipJob(entry, clip, info.width * info.height, note=note)


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
    generator = generator_for(options.seed, first.entry.name) if options.sample else None
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


def try_write(job: ClipJob, options: PrepareEvalOptions) -> ManifestClip:
    """Write a clip and return its manifest entry. Raises errors of the disk, which would stop the next clip too."""
    try:
        return write(job, options)
    except (VaectlError, OSError):
        raise
    except Exception as error:
        reason = str(unforeseen(source_of(options, job.entry), error))
        return replace(job.entry, status="failed", reason=reason)


def write(job: ClipJob, options: PrepareEvalOptions) -> ManifestClip:
    """Write the reconstruction, and the input if wanted; return the manifest entry."""
    assert job.original is not None
    assert job.frames is not None
    clip, entry, folder = job.original, job.entry, options.generated_video_dir
    if options.sample_fps is not None:
        rate = options.sample_fps / options.sample_rate
        clip = replace(clip, timestamps=tuple(index / rate for index in range(len(clip))), frame_rate=rate)

    def store(place: str, frames: torch.Tensor) -> tuple[int, str]:
        file, lossless = folder / place, options.format == "mkv"
        write_video(file, replace(clip, frames=frames), lossless=lossless, overwrite=True)
        return file.stat().st_size, sha256_of(file)

    height, width = clip.frames.shape[2:]
    origin_bytes, origin_sha256 = store(entry.origin, clip.frames) if entry.origin else (0, "")
    generated_bytes, generated_sha256 = store(entry.generated, job.frames)
    return replace(
        entry,
        status="ok",
        frames=len(clip),
        width=width,
        height=height,
        generated_bytes=generated_bytes,
        origin_bytes=origin_bytes,
        generated_sha256=generated_sha256,
        origin_sha256=origin_sha256,
    )
