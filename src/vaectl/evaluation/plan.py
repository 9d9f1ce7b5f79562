"""Plan a run of `vaectl prepare-eval`: each clip with its output path, without the clips that an earlier run finished.

Runs before anything is decoded. No result replaces a file that this job did not write, and all results in a folder are
made with the same options.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from vaectl.engine import note_no_effect
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.manifest import (
    MANIFEST,
    ORIGIN,
    Manifest,
    ManifestClip,
    ManifestModel,
    folder_of,
    read_manifest,
)
from vaectl.evaluation.prepared import has_originals
from vaectl.evaluation.protocol import protocol_of
from vaectl.io.atomic_write import refuse_special
from vaectl.io.checksum import sha256_of
from vaectl.io.hub import commit_of
from vaectl.io.output_paths import identity, keep_outside, left_out, mirror
from vaectl.model_names import is_builtin
from vaectl.models.checkpoint import loaded_weights
from vaectl.models.vae import AnyVAE
from vaectl.options import PrepareEvalOptions, dump
from vaectl.progress import Progress
from vaectl.versions import versions
from vaectl.video import find_videos
from vaectl.video.animation import is_still
from vaectl.video.container import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from vaectl.video.sequence import file_named, is_single, pattern_of, stamp_of


def plan_clips(options: PrepareEvalOptions, progress: Progress) -> tuple[ManifestClip, ...]:
    """List the clips below the folder of originals, or the only one, each with its path in the folder of results."""
    real, results = options.real_video_dir, options.generated_video_dir
    root = folder_of(real)
    check_folders(real, results, progress)
    note_no_effect(options.tile_overlap_factor, progress)
    if options.format == "mp4":
        progress.warn("`format=mp4` is lossy: use it for viewing; numbers measured on it are not those of the model")
    sources, others = keep_outside(find_videos(real), root, results, listed_results)
    if others:
        progress.note(left_out(others, results))
    if (real / MANIFEST).is_file():
        sources = [file for file in sources if not file.is_relative_to(real / ORIGIN)]
    if options.num_frames != 1 and real.is_dir():
        videos = [file for file in sources if not is_still(file)]
        if not videos:
            pattern = pattern_of(sources)
            more = f", or give `real_video_dir={pattern}` for one video of them" if pattern else ""
            raise UsageError(f"{real}: holds no videos of more than one frame", f"pass `num_frames=1` for images{more}")
        if len(videos) < len(sources):
            progress.note(f"images skipped: {len(sources) - len(videos)}; `num_frames=1` takes them")
        sources = videos
    names = [file.relative_to(root) for file in sources]
    output_paths = mirror([file_named(file).relative_to(root) for file in sources], [f".{options.format}"] * len(names))
    planned = []
    for source, name, output_path in list(zip(sources, names, output_paths, strict=True))[
        : options.subset_size or None
    ]:
        if (top := output_path.parts[0]) in (ORIGIN, MANIFEST):
            kind = "folder" if top == ORIGIN else "file"
            raise UsageError(f"{source}: the results have a {kind} {top} of their own", "rename this one")
        planned.append(
            ManifestClip(
                name=output_path.with_suffix("").as_posix(),
                source=name.as_posix(),
                source_stamp=stamp(source),
                generated=output_path.as_posix(),
                origin=f"{ORIGIN}/{output_path.as_posix()}" if options.output_origin else None,
            )
        )
    held = {identity(file) for file in others if file.exists()}
    places = (MANIFEST, *(place for clip in planned for place in places_of(clip))) if results.is_dir() else ()
    for file in (results / place for place in places):
        refuse_special(file, "give another `generated_video_dir`")
        if file.exists() and identity(file) in held:
            raise UsageError(f"{file}: is an input of this run", "give another `generated_video_dir`")
    return tuple(planned)


def places_of(clip: ManifestClip) -> list[str]:
    """Return the paths of the results of a clip, in the folder of results."""
    return [clip.generated, *([clip.origin] if clip.origin else [])]


def listed_results(folder: Path) -> list[Path]:
    """Return the results in `folder` that its manifest lists, also those of a killed run; none without a manifest."""
    try:
        manifest = read_manifest(folder)
    except VaectlError:  # damaged, or of another tool
        return []
    clips = manifest.clips if manifest else ()
    return [folder / place for clip in clips if clip.status != "failed" for place in places_of(clip)]


def check_folders(real: Path, results: Path, progress: Progress) -> None:
    """Raise UsageError if `results` is a file or has the originals of `real`; warn if `real` has reconstructions."""
    is_video = results.suffix.lower() in VIDEO_EXTENSIONS + IMAGE_EXTENSIONS
    if not results.is_dir() and (is_video or (results.exists() and is_single(real))):
        raise UsageError(f"{results}: is the name of a file", "name a folder for the results")
    try:
        earlier = read_manifest(real)
    except VaectlError:  # a file of another tool
        return
    if earlier and has_originals(results, earlier):
        raise UsageError(
            f"{results}: has originals, not reconstructions ({MANIFEST} of {real} says so)",
            f"give `real_video_dir={results}` and `generated_video_dir={real}`",
        )
    if earlier:
        progress.warn(f"{real}: has reconstructions ({MANIFEST}); its clips pass through a model a second time")


def stamp(source: Path) -> tuple[int, int]:
    """Return size in bytes and modification time (ns); (0, 0) for a broken link, which fails when it is read."""
    try:
        return stamp_of(source)
    except FileNotFoundError:
        return 0, 0


def start_manifest(
    options: PrepareEvalOptions, plan: Sequence[ManifestClip], model: AnyVAE, progress: Progress
) -> Manifest:
    """Return the manifest of this run, with the clips of earlier runs that have files in the folder.

    With `overwrite`, no clip of the plan counts as finished, and clips made with other options are dropped with a
    warning. Without, raises UsageError if the folder holds files of another job, or results of other options.
    """
    folder = options.generated_video_dir
    manifest = Manifest(
        versions=versions("vaectl", "torch", "av"),
        model=ManifestModel(
            path=None if is_builtin(options.model) else str(options.model),
            family=model.config.class_name,
            fingerprint=fingerprint(model),
            device=model.device.type,
            dtype=str(model.dtype).removeprefix("torch."),
            weights=loaded_weights(options.model, options.weights),
            commit=commit_of(options.model),
            temporal_compression=model.config.time_compression,
            spatial_compression=model.config.space_compression,
            latent_channels=model.config.latent_channels,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
        ),
        protocol=protocol_of(options),
        options=dump(options),
        real_video_dir=str(folder_of(options.real_video_dir).resolve()),
        clips=tuple(plan),
    )
    before = read_manifest(folder)
    listed = before.clips if before else ()
    sources, places = {clip.source for clip in plan}, {clip.generated for clip in plan}
    others = [clip for clip in listed if clip.source not in sources and clip.generated not in places]
    others = [clip for clip in others if has_files(folder, clip)]
    if before and (differing := differences(before, manifest)):
        if not options.overwrite:
            raise UsageError(
                f"{folder}: was prepared with {', '.join(differing)}",
                "pass `overwrite` to start again, or change `generated_video_dir`",
            )
        if others:
            progress.warn(
                f"{folder}: earlier clips that {MANIFEST} no longer lists: {len(others)}; they were prepared with"
                f" {', '.join(differing)}; remove their files, or prepare them again with `overwrite`"
            )
        others = []
    listed = () if options.overwrite else listed
    check_outputs(options, plan, listed)
    known = {(clip.name, clip.source): clip for clip in listed}
    clips = [resumed(folder, known.get((clip.name, clip.source)), clip) for clip in plan]
    return replace(manifest, clips=(*clips, *(as_left(folder, clip) for clip in others)))


def fingerprint(model: AnyVAE) -> str:
    """Return the SHA-256 of the config and the loaded weights, in their dtype. It does not depend on the files."""
    digest = hashlib.sha256(json.dumps(model.config.to_json(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def differences(before: Manifest, now: Manifest) -> list[str]:
    """Return the options with which an earlier run made other frames, with both values."""
    was, wanted = deciding(before), deciding(now)
    return [f"{option} {was[option]} (now {wanted[option]})" for option in wanted if was[option] != wanted[option]]


def deciding(manifest: Manifest) -> dict[str, str]:
    """Return the options that change the frames: name, as messages show it -> resolved value."""
    model, options, protocol = manifest.model, manifest.options, manifest.protocol
    return {
        "`real_video_dir`": manifest.real_video_dir,
        "`num_frames`": str(protocol.num_frames),
        "`sample_rate`": str(protocol.sample_rate),
        "`frame_rate`": str(protocol.frame_rate or "of the source"),
        "`all_windows`": "on" if protocol.all_windows else "off",
        "`resolution`": str(protocol.resolution),
        "`crop_size`": str(protocol.crop_size or 0),
        "`rgb_conversion`": protocol.rgb_conversion,
        "`format`": str(options.get("format")),
        "`sample_fps`": str(options.get("sample_fps") or "of the source"),
        "`device`": model.device,
        "`model` and `dtype`": f"{model.path or 'built-in'} in {model.dtype} with SHA-256 {model.fingerprint[:8]}…",
        "`sample`": f"with `seed={options.get('seed')}`" if options.get("sample") else "off",
    }


def check_outputs(options: PrepareEvalOptions, plan: Sequence[ManifestClip], listed: Iterable[ManifestClip]) -> None:
    """Raise UsageError if an output path is a source, or exists and is not in the manifest of an earlier run."""
    folder, real = options.generated_video_dir, folder_of(options.real_video_dir)
    ours = {place: clip.source for clip in listed for place in places_of(clip)}
    planned = {clip.source for clip in plan}
    read = {identity(real / clip.source) for clip in plan if (real / clip.source).exists()}
    for clip in plan:
        for place in places_of(clip):
            target = folder / place
            if not (target.exists() or target.is_symlink()):
                continue
            if target.exists() and identity(target) in read:
                raise UsageError(f"{target}: is an input of this run", "give another `generated_video_dir`")
            owner = ours.get(place, clip.source)
            if owner != clip.source and owner not in planned and (real / owner).exists():
                raise UsageError(f"{target}: is the result of {real / owner}", "give another `generated_video_dir`")
            if place not in ours and not options.overwrite:
                raise UsageError(
                    f"{target}: exists already, and no manifest lists it",
                    "pass `overwrite` to replace it, or change `generated_video_dir`",
                )


def is_there(folder: Path, clip: ManifestClip) -> bool:
    """Whether a clip is finished and its files are unchanged, byte for byte."""

    def unchanged(place: str, size: int, sha256: str) -> bool:
        file = folder / place
        if not file.is_file() or file.stat().st_size != size:
            return False
        return not sha256 or sha256_of(file) == sha256  # manifests of earlier versions have none

    return (
        clip.status == "ok"
        and unchanged(clip.generated, clip.generated_bytes, clip.generated_sha256)
        and (clip.origin is None or unchanged(clip.origin, clip.origin_bytes, clip.origin_sha256))
    )


def has_files(folder: Path, clip: ManifestClip) -> bool:
    """Whether a file of the clip is in the folder, finished or not."""
    return any((folder / place).is_file() for place in places_of(clip))


def as_left(folder: Path, clip: ManifestClip) -> ManifestClip:
    """Return a clip that this run does not make: as it is if finished, else as failed."""
    if is_there(folder, clip):
        return clip
    return replace(clip, status="failed", reason=clip.reason or "it is not complete; run prepare-eval again")


def resumed(folder: Path, before: ManifestClip | None, planned: ManifestClip) -> ManifestClip:
    """Return the earlier clip if it is finished, unchanged and has all wanted files; else the planned one."""
    if before is None or before.source_stamp != planned.source_stamp or (planned.origin and not before.origin):
        return planned
    return before if is_there(folder, before) else planned


def require_manifest(folder: Path) -> Manifest:
    """Read the manifest. Raises VaectlError if there is none."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise VaectlError(f"{folder / MANIFEST}: was removed during the run", "start again")
    return manifest
