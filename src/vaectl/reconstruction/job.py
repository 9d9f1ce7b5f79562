"""The job behind `vaectl reconstruct`: stream videos through a model, one clip after the other.

Joins `video`, `models` and `metrics`. Reading, network and writing overlap. A clip is never held whole, unless its
model needs all frames at once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

import vaectl
from vaectl import memory
from vaectl.engine import HostOverhead, note_no_effect, open_model, prepare_run, retry_on_oom, run_frames
from vaectl.errors import VaectlError, unforeseen
from vaectl.io.hub import commit_of
from vaectl.io.json_values import plain, write_json
from vaectl.memory import Limits
from vaectl.metrics.psnr import mean_psnr, mean_squared_errors
from vaectl.model_names import is_builtin
from vaectl.models.device import is_faster_in_bfloat16
from vaectl.models.vae import AnyVAE
from vaectl.options import ReconstructOptions, dump
from vaectl.prefetch import prefetch
from vaectl.progress import Progress
from vaectl.reconstruction.plan import is_one_file, plan_output_paths, record_path
from vaectl.video import VideoReader, resize, target_size
from vaectl.video.clip import Clip, others_left_out
from vaectl.video.read import frames_at_once
from vaectl.video.sequence import pattern_of
from vaectl.video.write import VideoWriter


@dataclass(frozen=True)
class ClipResult:
    """The result of one source."""

    source: Path
    target: Path
    num_frames: int = 0
    width: int = 0
    """Pixels in the output file: with `side_by_side`, of both pictures."""
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
    """Its path or its name on the hub, or "built-in model"."""
    commit: str | None = None
    """The commit of a model of the hub."""
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
        options.model,
        options.device,
        options.dtype,
        limits,
        options.model_name,
        progress,
        options.weights,
        compile=options.compile,
    )
    if options.dtype == "auto" and not limits.tiled and is_faster_in_bfloat16(model):
        model = model.to(torch.bfloat16)  # not in tiles, which would no longer give exactly the same
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
    memory.return_freed()  # a small network has kept it for the next clip
    result = RunResult(
        tuple(results),
        memory.peak(model.device),
        str(model.device),
        str(model.dtype).removeprefix("torch."),
        time.monotonic() - begun,
        "built-in model" if is_builtin(options.model) else str(options.model),
        commit_of(options.model),
    )
    if any(clip.error is None for clip in result.clips):
        result = write_record(options, result, progress)
    return result


def reconstruct_clip(
    model: AnyVAE, source: Path, target: Path, limits: Limits, options: ReconstructOptions, progress: Progress
) -> ClipResult:
    """Reconstruct one source into one target."""
    begun = time.monotonic()
    with VideoReader(source, rgb_conversion=options.rgb_conversion) as reader:
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
        shown = 2 * width if options.side_by_side else width
        overhead = HostOverhead.of(stored=info.width * info.height, frame=frame, shown=shown * height)
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
                width=shown,
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
    return ClipResult(source, target, len(errors), shown, height, mean_psnr(errors), writer.codec_psnr, seconds)


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
