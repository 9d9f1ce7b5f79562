"""The job behind `vaectl reconstruct`: stream videos through a model, one clip after the other.

Joins `video`, `models` and `metrics`. Reading, network and writing overlap. A clip is never held whole, unless its
model needs all frames at once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

import vaectl
from vaectl import memory
from vaectl.engine import HostOverhead, Limits, note_no_effect, open_model, prepare_run, retry_on_oom, run_frames
from vaectl.errors import UsageError, VaectlError, unforeseen
from vaectl.io.atomic_write import refuse_special
from vaectl.io.json_values import plain, write_json
from vaectl.io.output_paths import fitting_name, identity, keep_outside, left_out, mirror
from vaectl.io.parsing import read_json
from vaectl.metrics.psnr import mean_psnr, mean_squared_errors
from vaectl.model_names import is_builtin
from vaectl.models.vae import AnyVAE
from vaectl.options import ReconstructOptions, dump
from vaectl.prefetch import prefetch
from vaectl.progress import Progress, Silent
from vaectl.video import VideoReader, find_videos, resize, target_size
from vaectl.video.animation import is_still
from vaectl.video.clip import Clip, others_left_out
from vaectl.video.container import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from vaectl.video.read import frames_at_once
from vaectl.video.sequence import file_named, files_of, pattern_of
from vaectl.video.write import VideoWriter

RECORD = "vaectl.json"
RECORD_BYTES = 2**28
"""A larger record is not read."""


@dataclass(frozen=True)
class ClipResult:
    """The result of one source."""

    source: Path
    target: Path
    num_frames: int = 0
    width: int = 0
    height: int = 0
    psnr: float = float("nan")
    """dB, mean over frames: 8-bit output of the network against its input."""
    codec_psnr: float | None = None
    """dB, mean over frames: frames in the output file against frames given to its encoder; inf if bit-exact."""
    seconds: float = 0.0
    error: str | None = None

    @property
    def figures(self) -> str:
        """Return the main figures as text."""
        frames = "1 frame" if self.num_frames == 1 else f"{self.num_frames} frames"
        return f"{frames}, PSNR {self.psnr:.2f} dB, {self.seconds:.1f} s"

    @property
    def frames_per_second(self) -> float | None:
        """Speed; None if no time has passed."""
        return self.num_frames / self.seconds if self.seconds > 0 else None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values: the fields, and `frames_per_second`."""
        values: dict[str, Any] = {"frames" if key == "num_frames" else key: value for key, value in vars(self).items()}
        json: dict[str, Any] = plain(values | {"frames_per_second": self.frames_per_second})
        return json


@dataclass(frozen=True)
class RunResult:
    clips: tuple[ClipResult, ...]
    peak_memory: int
    """Bytes: resident memory on the CPU, reserved by PyTorch on a GPU."""
    device: str
    dtype: str
    seconds: float
    model: str
    record: Path | None = None
    """The file with the options and results of the run, if it was written."""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values: paths as strings, null for values not measured, "inf" for no loss."""
        run = {name: plain(value) for name, value in vars(self).items() if name != "clips"}
        return run | {"clips": [clip.as_json() for clip in self.clips]}


def reconstruct(options: ReconstructOptions, progress: Progress) -> RunResult:
    """Reconstruct videos and images, given as files or as folders that hold them.

    A clip that fails is reported in its result and the others continue; if the only source is a file, it raises. Raises
    UsageError for invalid requests, VaectlError if the run cannot continue.
    """
    begun = time.monotonic()
    pairs = plan_output_paths(options, progress)
    alone = is_one_file(options.video_path)
    if not alone and (pattern := pattern_of([source for source, _ in pairs])) is not None:
        progress.note(
            f"{options.video_path[0]}: its {len(pairs)} numbered images are stills; for one video of them, give"
            f" `video_path={pattern}`"
        )
    limits = Limits.of(options)
    note_no_effect(options.tile_overlap_factor, progress)
    model = open_model(
        options.model, options.device, options.dtype, limits, options.model_name, progress, options.weights
    )
    results: list[ClipResult] = []
    progress.start_clips(len(pairs))
    for source, target in pairs:
        try:
            attempt = partial(reconstruct_clip, model, source, target, options=options, progress=progress)
            results.append(retry_on_oom(attempt, model, limits, progress))
        except VaectlError as error:
            if alone:
                raise
            named = str(source) in error.problem
            results.append(ClipResult(source, target, error=str(error) if named else f"{source}: {error}"))
        except Exception as error:  # an unexpected error in one clip must not stop the others
            if alone:
                raise
            results.append(ClipResult(source, target, error=str(unforeseen(source, error))))
        finally:
            progress.finish()
        ended = results[-1]
        progress.end_clip(str(source), ended.error or ended.figures, failed=ended.error is not None)
    result = RunResult(
        tuple(results),
        memory.peak(model.device),
        str(model.device),
        str(model.dtype).removeprefix("torch."),
        time.monotonic() - begun,
        "built-in model" if is_builtin(options.model) else str(options.model),
    )
    if any(clip.error is None for clip in result.clips):
        result = write_record(options, result, progress)
    return result


def plan_output_paths(options: ReconstructOptions, progress: Progress | None = None) -> list[tuple[Path, Path]]:
    """Pair each source with its output path; note which videos are left out.

    Raises UsageError if an output path is a source or a video that was left out, is not that of a regular file, or
    exists without `overwrite`.
    """
    try:
        pairs, others = pair(options.video_path, options.rec_path, options.lossless)
        if others:
            (progress or Silent()).note(left_out(others, options.rec_path))
        output_paths, record = [target for _, target in pairs], record_path(options, pairs[0][1])
        given = [*chain.from_iterable(files_of(source) for source, _ in pairs), *filter(None, [options.config])]
        read, kept = ({identity(file) for file in files if file.exists()} for files in (given, others))
        for file in (*output_paths, record):
            refuse_special(file, "give another `rec_path`")
            if file.exists() and identity(file) in read:
                raise UsageError(f"{file}: is an input of this run", "give another `rec_path`")
            if file.exists() and identity(file) in kept:
                remedy = "give another `rec_path`, or remove it if a stopped run made it"
                raise UsageError(f"{file}: is an input of this run, as no record lists it as a result", remedy)
        existing = [file for file in output_paths if file.exists() or file.is_symlink()] or [record] * record.exists()
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}", "check the path and its permissions") from None
    if existing and not options.overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]}{more}: exists already", "pass `overwrite` to replace, or change `rec_path`")
    return pairs


def pair(sources: tuple[Path, ...], target: Path, lossless: bool) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Pair a file with its output path, or several files and the files of folders with paths in a folder.

    The paths below a source folder are kept. A target without extension is a folder for the results. Results inside a
    source folder are not sources; other videos there, which no record lists, are returned too. Raises UsageError if
    there are no sources, for two results of one name, and for several results in one file.
    """
    if is_one_file(sources):
        if is_file_name(target) and not target.is_dir():
            return [(file, target) for file in find_videos(sources[0])], []
    elif not target.is_dir() and (target.exists() or target.suffix.lower() in VIDEO_EXTENSIONS + IMAGE_EXTENSIONS):
        kind = "a file" if target.exists() else "the name of a file"
        several = f"{sources[0]} is a folder" if len(sources) == 1 else f"there are {len(sources)} inputs"
        pattern = pattern_of(sorted(chain.from_iterable(map(find_videos, sources))))
        if pattern is not None:
            raise UsageError(
                f"{target}: is {kind}, but {several}", f"for one video of these images, give `video_path={pattern}`"
            )
        raise UsageError(
            f"{target}: is {kind}, but {several}", f"name a folder, as in `rec_path={target.with_suffix('')}`"
        )
    names: dict[Path, Path] = {}
    others: list[Path] = []
    for source in sources:
        folder = source.is_dir()
        found = find_videos(source)
        if folder:
            found, inside = keep_outside(found, source, target, recorded_results)
            others += inside
        for file in found:
            name = file.relative_to(source) if folder else Path(file_named(file).name)
            if (other := names.get(name)) is not None:
                said = f"{file}: is given twice" if other == file else f"{other} and {file}: their results share a name"
                raise UsageError(said, "leave one out, or use two runs")
            if len(name.parts) > 1 and name.parts[0] == RECORD:
                raise UsageError(f"{file}: the results have a file {RECORD} of their own", "rename this folder")
            names[name] = file
    endings = [".png" if is_still(file) else ".mkv" if lossless else ".mp4" for file in names.values()]
    targets = [target / name for name in mirror([*names], endings)]
    return list(zip(names.values(), targets, strict=True)), others


def recorded_results(folder: Path) -> set[Path]:
    """Return the results in `folder` that the records of earlier runs list, as far as they can be read."""
    found = set()
    for file in folder.glob(f"*{RECORD}"):
        with suppress(VaectlError, LookupError, TypeError, ValueError):  # damaged, or of another tool
            record = read_json(file, RECORD_BYTES)
            given = Path(record["options"]["rec_path"])
            for target in [Path(clip["target"]) for clip in record["clips"] if clip["error"] is None]:
                found.add(folder / (target.name if target == given else target.relative_to(given)))
    return found


def is_one_file(sources: tuple[Path, ...]) -> bool:
    """Return whether the only source is a file, so that the target may be one, and an error ends the run."""
    return len(sources) == 1 and not sources[0].is_dir()


def is_file_name(target: Path) -> bool:
    """Return whether a name has an extension. That of `v1.0` is a number, not an extension."""
    return target.suffix[1:2].isalpha()


def record_path(options: ReconstructOptions, first: Path) -> Path:
    """Return the path of the record of the run: in the folder of results, or next to the only result, `first`."""
    if is_one_file(options.video_path):
        return first.with_name(fitting_name(first.name, f".{RECORD}"))
    return options.rec_path / RECORD


def reconstruct_clip(
    model: AnyVAE, source: Path, target: Path, limits: Limits, options: ReconstructOptions, progress: Progress
) -> ClipResult:
    """Reconstruct one source into one target."""
    begun = time.monotonic()
    with VideoReader(source) as reader:
        info = reader.info
        if info.other_videos:
            progress.warn(f"{source}: {others_left_out(info)}")
        if info.color.hdr:
            progress.warn(f"{source}: is HDR ({info.color.hdr}); its values are used as they are, without tone mapping")
        times = frame_times(reader, source, options, progress)
        rate, whole = info.frame_rate / options.sample_rate, reader.is_whole(times)
        if options.fps is not None:
            even = [times[0] + index / options.fps for index in range(len(times))]
            rate, whole, times = options.fps, whole and times == even, even
        width, height = target_size(
            info.width,
            info.height,
            to_width=options.width,
            to_height=options.height,
            short_size=options.short_size,
            even=True,
        )
        frame = width * height
        shown = 2 * frame if options.side_by_side else frame
        overhead = HostOverhead.of(stored=info.width * info.height, frame=frame, shown=shown)
        run = prepare_run(model, len(times), width, height, limits, overhead, progress)
        at_once = run.window if (width, height) == (info.width, info.height) else frames_at_once(info, run.window)
        clips = reader.clips(options.start, len(times), options.sample_rate, batch_size=at_once)
        resized = (resize(clip.frames, width, height) for clip in clips)
        if at_once < run.window:
            resized = in_windows(resized, run.window)
        generator = torch.Generator().manual_seed(options.seed) if options.sample else None
        errors: list[float] = []
        progress.start(str(source), len(times))
        with (
            VideoWriter(
                target,
                width=2 * width if options.side_by_side else width,
                height=height,
                frame_rate=rate,
                timestamps=times,
                lossless=options.lossless,
                overwrite=options.overwrite,
                color=info.color,
                sample_aspect_ratio=info.sample_aspect_ratio,
                audio_from=source if whole and info.has_audio else None,
                measure=True,
                warn=progress.warn,
            ) as writer,
            prefetch(resized) as originals,
            prefetch(run_frames(run, originals, generator, source)) as frames,
        ):
            for original, result in frames:
                done = len(errors)
                errors += mean_squared_errors(original, result)
                picture = torch.cat([original, result], dim=3) if options.side_by_side else result
                writer.write(Clip(picture, tuple(times[done : len(errors)]), rate))
                progress.advance(len(result))
    seconds = time.monotonic() - begun
    return ClipResult(source, target, len(errors), width, height, mean_psnr(errors), writer.codec_psnr, seconds)


def in_windows(batches: Iterable[torch.Tensor], window: int) -> Generator[torch.Tensor, None, None]:
    """Regroup batches of frames (T, 3, H, W) into batches of `window` frames; the last may be shorter."""
    held: list[torch.Tensor] = []
    for frame in chain.from_iterable(batches):
        held.append(frame)
        if len(held) == window:
            yield torch.stack(held)
            held.clear()
    if held:
        yield torch.stack(held)


def frame_times(reader: VideoReader, source: Path, options: ReconstructOptions, progress: Progress) -> list[Fraction]:
    """Return the times of the frames to take, in seconds.

    If a video has too few, warn. With `strict`, raise, also for a still image.
    """
    times = list(reader.timestamps(options.start, options.num_frames, options.sample_rate))
    if options.num_frames is not None and len(times) < options.num_frames:
        message = f"{source}: gives {len(times)} of the {options.num_frames} frames asked for"
        if options.strict:
            raise VaectlError(message, "ask for fewer, or leave out `strict`")
        if not reader.info.is_image:
            progress.warn(message)
    return times


def write_record(options: ReconstructOptions, result: RunResult, progress: Progress) -> RunResult:
    """Write the resolved options and the results next to the output; return the result with the path."""
    target = record_path(options, result.clips[0].target)
    record = {"vaectl": vaectl.__version__, "torch": torch.__version__, "options": dump(options), **result.as_json()}
    del record["record"]  # it is this file
    try:
        write_json(target, record)
        return replace(result, record=target)
    except (OSError, VaectlError) as error:
        progress.warn(f"{target}: the record of this run is missing: {error}")
        return result
