"""The job behind `vaectl prepare-eval`: clips brought to the published protocol, through a model, and written.

Joins `video`, the engine and the manifest. Decoding, network and writing overlap; several processes share the clips.
What is measured on the results is not known here.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from vaectl import memory
from vaectl.engine import Beside, Limits, generator_for, open_model, reconstruct_frames
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.manifest import (
    MANIFEST,
    ORIGIN,
    Manifest,
    ManifestClip,
    ManifestModel,
    open_journal,
    read_manifest,
    write_manifest,
)
from vaectl.evaluation.protocol import FRAMES_AT_ONCE, protocol_of, read_clip_and_facts
from vaectl.lock import locked
from vaectl.models.vae import AnyVAE
from vaectl.options import PrepareEvalOptions, dump
from vaectl.pipeline import ahead, in_parallel
from vaectl.progress import Progress, Silent
from vaectl.ranks import device_of_rank, is_main, rank, together, wait_for_others, world_size
from vaectl.targets import find_outside, identity, mirror
from vaectl.video.clip import Clip
from vaectl.video.container import IMAGE_EXTENSIONS
from vaectl.video.write import write_video


@dataclass(frozen=True)
class PrepareResult:
    """What became of the clips, those of all processes together."""

    manifest: Manifest
    made: int
    kept: int
    """Clips that were finished before this run."""
    failed: int
    seconds: float
    peak_memory: int
    """Bytes, of this process: in all on the CPU, reserved by PyTorch on a GPU."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values: the manifest, and how the run went."""
        counts = {"made": self.made, "kept": self.kept, "failed": self.failed}
        return {**counts, "seconds": self.seconds, "peak_memory": self.peak_memory, **asdict(self.manifest)}


def prepare(options: PrepareEvalOptions, progress: Progress) -> PrepareResult:
    """Bring the clips below a folder to the protocol and through the model, and write what comes out.

    A clip that fails is told, listed and left out; the others go on. Raises UsageError for requests that cannot work,
    VaectlError for a run that cannot go on; what was finished by then is kept, and the next run goes on from there.
    """
    begun = time.monotonic()
    folder, limits = options.generated_video_dir, Limits.of(options)
    progress = progress if is_main() else Silent()
    with together(), ExitStack() as held:
        plan = plan_clips(options, progress) if is_main() else ()
        model = open_model(options.ckpt, device_of_rank(options.device), options.dtype, limits)
        check_family(model, options)
        if is_main():
            held.enter_context(locked(folder, "give another --generated-video-dir"))
            write_manifest(folder, begin(options, plan, model))
        wait_for_others()
        waiting = [clip for clip in known_manifest(folder).clips if clip.status == "waiting"]
        make(waiting[rank() :: world_size()], model, limits, options, progress)
        wait_for_others()
        if is_main():
            write_manifest(folder, known_manifest(folder))
        wait_for_others()
        manifest = known_manifest(folder)
    became = {clip.name: clip.status for clip in manifest.clips}
    ended = [became[clip.name] for clip in waiting]
    kept = len(manifest.clips) - len(ended)
    seconds, peak = time.monotonic() - begun, memory.peak(model.device)
    return PrepareResult(manifest, ended.count("ok"), kept, ended.count("failed"), seconds, peak)


# What there is to do


def plan_clips(options: PrepareEvalOptions, progress: Progress) -> tuple[ManifestClip, ...]:
    """The clips below the folder of originals, each with its place in the folder of results."""
    real, results = options.real_video_dir, options.generated_video_dir
    if real.is_file():
        raise UsageError(f"{real}: is a file; name the folder that holds it")
    if options.tile_overlap_factor is not None:
        progress.note("--tile-overlap-factor has no effect: tiles give exactly what whole frames give")
    if options.format == "mp4":
        progress.warn("--format mp4 is lossy: for viewing; numbers measured on it are not those of the model")
    sources = find_outside(real, results)
    if (real / MANIFEST).is_file():
        sources = [file for file in sources if not file.is_relative_to(real / ORIGIN)]
    if options.num_frames > 1:
        videos = [file for file in sources if file.suffix.lower() not in IMAGE_EXTENSIONS]
        if len(videos) < len(sources):
            progress.note(f"images passed over: {len(sources) - len(videos)}; --num-frames 1 takes them")
        sources = videos
    if not sources:
        raise UsageError(f"{real}: holds no videos of more than one frame; pass --num-frames 1 for images")
    names = [file.relative_to(real) for file in sources]
    targets = mirror(names, [f".{options.format}"] * len(names))
    planned = []
    for source, name, target in list(zip(sources, names, targets, strict=True))[: options.subset_size or None]:
        if target.parts[0] == ORIGIN:
            raise UsageError(f"{source}: the results have a folder {ORIGIN} of their own; rename this one")
        planned.append(
            ManifestClip(
                name=target.with_suffix("").as_posix(),
                source=name.as_posix(),
                source_stamp=stamp(source),
                generated=target.as_posix(),
                origin=f"{ORIGIN}/{target.as_posix()}" if options.output_origin else None,
            )
        )
    return tuple(planned)


def stamp(source: Path) -> tuple[int, int]:
    """Bytes and time of change (ns); of a link that leads nowhere (0, 0): to read it will fail, and be told."""
    try:
        status = source.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def check_family(model: AnyVAE, options: PrepareEvalOptions) -> None:
    """The published `--model_name` must be that of the checkpoint."""
    family = model.config.class_name
    if options.model_name is not None and plain(options.model_name) != plain(family):
        raise UsageError(
            f"--model-name {options.model_name}: {options.ckpt or 'the built-in model'} is a {family};"
            " leave the option out, or give another --ckpt"
        )


def plain(family: str) -> str:
    return family.lower().replace("-", "").replace("_", "").removesuffix("model")


def begin(options: PrepareEvalOptions, plan: Sequence[ManifestClip], model: AnyVAE) -> Manifest:
    """The manifest of this run, in which finished is what an earlier run has finished.

    Raises UsageError where the folder holds what this run did not make, or made otherwise, unless it may be replaced.
    """
    folder = options.generated_video_dir
    manifest = Manifest(
        versions={name: version(name) for name in ("vaectl", "torch", "av")},
        model=ManifestModel(
            path=None if options.ckpt is None else str(options.ckpt),
            family=model.config.class_name,
            fingerprint=fingerprint(model),
            device=model.device.type,
            dtype=str(model.dtype).removeprefix("torch."),
        ),
        protocol=protocol_of(options),
        options=dump(options),
        real_video_dir=str(options.real_video_dir.resolve()),
        clips=tuple(plan),
    )
    before = None if options.overwrite else read_manifest(folder)
    if before:
        refuse_other(folder, before, manifest)
    listed = before.clips if before else ()
    refuse_losses(options, plan, listed)
    finished = {(clip.name, clip.source): clip for clip in listed if is_there(folder, clip)}
    clips = [resumed(finished.get((clip.name, clip.source)), clip) for clip in plan]
    planned = {clip.source for clip in plan}
    others = [clip for clip in finished.values() if clip.source not in planned]
    return replace(manifest, clips=(*clips, *others))


def fingerprint(model: AnyVAE) -> str:
    """SHA-256 over the config and the weights as they are loaded, in their type, whatever files they came in."""
    digest = hashlib.sha256(json.dumps(model.config.to_json(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def refuse_other(folder: Path, before: Manifest, now: Manifest) -> None:
    """All clips of a folder are made in one way."""
    was, wanted = deciding(before), deciding(now)
    differing = [f"{option} {was[option]} (now {wanted[option]})" for option in wanted if was[option] != wanted[option]]
    if differing:
        raise UsageError(
            f"{folder}: was prepared with {', '.join(differing)};"
            " pass --overwrite to begin anew, or change --generated-video-dir"
        )


def deciding(manifest: Manifest) -> dict[str, str]:
    """The options on which the frames depend, as they are named and resolved."""
    model, options, protocol = manifest.model, manifest.options, manifest.protocol
    return {
        "--real-video-dir": manifest.real_video_dir,
        "--num-frames": str(protocol.num_frames),
        "--sample-rate": str(protocol.sample_rate),
        "--resolution": str(protocol.resolution),
        "--crop-size": str(protocol.crop_size or 0),
        "--format": str(options.get("format")),
        "--sample-fps": str(options.get("sample_fps") or "of the source"),
        "--device": model.device,
        "--ckpt and --dtype": f"{model.path or 'built-in'} in {model.dtype} with SHA-256 {model.fingerprint[:8]}…",
        "--sample": f"with --seed {options.get('seed')}" if options.get("sample") else "off",
    }


def refuse_losses(options: PrepareEvalOptions, plan: Sequence[ManifestClip], listed: Iterable[ManifestClip]) -> None:
    """No target may be a source, nor be there already unless an earlier run has listed it."""
    folder, real = options.generated_video_dir, options.real_video_dir
    ours = {place for clip in listed for place in (clip.generated, clip.origin)}
    read = {identity(real / clip.source) for clip in plan if (real / clip.source).exists()}
    for clip in plan:
        for place in filter(None, (clip.generated, clip.origin)):
            target = folder / place
            if not (target.exists() or target.is_symlink()):
                continue
            if target.exists() and identity(target) in read:
                raise UsageError(f"{target}: is what this run reads; give another --generated-video-dir")
            if place not in ours and not options.overwrite:
                raise UsageError(
                    f"{target}: exists already, and no manifest lists it; pass --overwrite to replace it,"
                    " or change --generated-video-dir"
                )


def is_there(folder: Path, clip: ManifestClip) -> bool:
    """Whether a clip is finished and its files are as it left them."""

    def size(place: str) -> int:
        file = folder / place
        return file.stat().st_size if file.is_file() else -1

    return (
        clip.status == "ok"
        and size(clip.generated) == clip.generated_bytes
        and (clip.origin is None or size(clip.origin) == clip.origin_bytes)
    )


def resumed(finished: ManifestClip | None, planned: ManifestClip) -> ManifestClip:
    """The finished clip, if it came of the same source and all that is wanted of it is there."""
    if finished is None or finished.source_stamp != planned.source_stamp or (planned.origin and not finished.origin):
        return planned
    return finished


def known_manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise VaectlError(f"{folder / MANIFEST}: has gone while it was needed; start again")
    return manifest


# Doing it


@dataclass(frozen=True)
class Made:
    """A clip on its way: what was read, what became of it, or why nothing did."""

    entry: ManifestClip
    original: Clip | None = None
    stored: int = 0
    """Pixels of a frame in the source."""
    frames: torch.Tensor | None = None
    """(T, 3, H, W) uint8, out of the network."""
    reason: str | None = None


def make(
    entries: Sequence[ManifestClip], model: AnyVAE, limits: Limits, options: PrepareEvalOptions, progress: Progress
) -> None:
    """Read, reconstruct, write and record clips, one after the other, each stage ahead of the next."""
    folder, frames = options.generated_video_dir, options.num_frames
    progress.start("clips", frames * len(entries))
    try:
        with (
            open_journal(folder, rank()) as journal,
            ahead(through_network(entries, model, limits, options, progress), depth=1) as clips,
        ):
            for made in clips:
                if made.reason:
                    progress.warn(made.reason)
                    journal.add(replace(made.entry, status="failed", reason=made.reason))
                else:
                    journal.add(write(made, options))
                progress.advance(frames)
    finally:
        progress.finish()


def through_network(
    entries: Sequence[ManifestClip], model: AnyVAE, limits: Limits, options: PrepareEvalOptions, progress: Progress
) -> Generator[Made, None, None]:
    """Each clip with what became of it, in order."""
    # Tiles are there to save memory, which clips that wait would take.
    workers, at_once = (1, 1) if limits.tiled else (max(1, options.num_workers), options.batch_size)
    readings = in_parallel(partial(read, options), entries, workers)
    for batch in batches(readings, 1 if options.sample else at_once):
        yield from reconstruct_batch(batch, model, limits, options, progress)


def read(options: PrepareEvalOptions, entry: ManifestClip) -> Made:
    """The frames of a clip, or the reason why there are none."""
    try:
        clip, info = read_clip_and_facts(options.real_video_dir / entry.source, protocol_of(options))
    except VaectlError as error:
        return Made(entry, reason=str(error))
    return Made(entry, clip, info.width * info.height)


def batches(readings: Iterable[Made], size: int) -> Iterator[list[Made]]:
    """Neighbours whose frames have one size, at most `size` of them together."""
    for _, alike in groupby(readings, lambda made: made.original and made.original.frames.shape):
        batch: list[Made] = []
        for made in alike:
            batch.append(made)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch


def reconstruct_batch(
    batch: Sequence[Made], model: AnyVAE, limits: Limits, options: PrepareEvalOptions, progress: Progress
) -> Iterator[Made]:
    """Clips of one size through the network, together; one after the other if that fails, to know which."""
    originals = [made.original.frames for made in batch if made.original]
    if not originals:
        yield from batch
        return
    frames_BT3HW, first = torch.stack(originals), batch[0]
    generator = generator_for(options.seed, first.entry.name) if options.sample else None
    try:
        results = reconstruct_frames(
            model,
            frames_BT3HW,
            options.real_video_dir / first.entry.source,
            limits,
            memory_beside(frames_BT3HW, first.stored),
            progress,
            generator,
        )
    except UsageError:
        raise
    except VaectlError as error:
        if len(batch) == 1:
            yield replace(first, reason=str(error))
        else:
            for made in batch:
                yield from reconstruct_batch([made], model, limits, options, progress)
        return
    for made, frames in zip(batch, results, strict=True):
        yield replace(made, frames=frames)


def memory_beside(frames_BT3HW: torch.Tensor, stored: int) -> Beside:
    """What a run with tiles holds beside the network: a clip being decoded, one being written, eight in memory."""
    height, width = frames_BT3HW.shape[3:]
    reading = Beside.of(stored=stored, frame=0, shown=height * width)
    held = FRAMES_AT_ONCE * reading.per_frame + 8 * frames_BT3HW.numel()
    return Beside(reading.fixed + held, Beside.of(stored=0, frame=height * width, shown=0).per_frame)


def write(made: Made, options: PrepareEvalOptions) -> ManifestClip:
    """Write what became of a clip, and what went in where that is wanted; how the manifest lists it then."""
    assert made.original is not None
    assert made.frames is not None
    clip, entry, folder = made.original, made.entry, options.generated_video_dir
    if options.sample_fps is not None:
        times = tuple(index / options.sample_fps for index in range(len(clip)))
        clip = replace(clip, timestamps=times, frame_rate=options.sample_fps)

    def store(place: str, frames: torch.Tensor) -> int:
        file, lossless = folder / place, options.format == "mkv"
        write_video(file, replace(clip, frames=frames), lossless=lossless, overwrite=True)
        return file.stat().st_size

    height, width = clip.frames.shape[2:]
    origin_bytes = store(entry.origin, clip.frames) if entry.origin else 0
    return replace(
        entry,
        status="ok",
        frames=len(clip),
        width=width,
        height=height,
        generated_bytes=store(entry.generated, made.frames),
        origin_bytes=origin_bytes,
    )
