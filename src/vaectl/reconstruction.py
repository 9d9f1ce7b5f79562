"""The job behind `vaectl reconstruct`: videos through a model and back, as a stream, one clip after the other.

Joins `video`, `models` and `metrics`. Reading, network and writing overlap; a clip is never held whole, unless its
model looks at the whole clip.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vaectl
from vaectl import memory
from vaectl.errors import UsageError, VaectlError
from vaectl.memory import format_size, obtainable, return_what_is_freed
from vaectl.metrics.psnr import mean_psnr, mean_squared_errors
from vaectl.models import load_model
from vaectl.models.streaming import Runner, WholeFrames, piece_frames, reconstruct_pieces
from vaectl.models.vae import AnyVAE
from vaectl.models.wfvae import WFVAE
from vaectl.options import ReconstructOptions, dump
from vaectl.pipeline import ahead
from vaectl.progress import Progress
from vaectl.targets import plan_targets, record_path
from vaectl.tiling.plan import Budget, make_plan
from vaectl.tiling.run import Tiles
from vaectl.tiling.store import InMemory, OnDisk
from vaectl.video import VideoReader, resize, target_size
from vaectl.video.clip import Clip, VideoInfo, to_frames, to_video
from vaectl.video.replace import replacing
from vaectl.video.write import VideoWriter


@dataclass(frozen=True)
class ClipResult:
    """What became of one source."""

    source: Path
    target: Path
    frames: int = 0
    width: int = 0
    height: int = 0
    psnr: float = float("nan")
    """dB, mean over frames, of the 8-bit frames that came out of the network against those that went in."""
    codec_psnr: float | None = None
    """dB, of the frames that the written file decodes to against those given to its encoder; inf if bit-exact."""
    seconds: float = 0.0
    error: str | None = None

    @property
    def frames_per_second(self) -> float | None:
        """None where no time has passed."""
        return self.frames / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True)
class RunResult:
    clips: tuple[ClipResult, ...]
    peak_memory: int
    """Bytes: of the process on the CPU, reserved by PyTorch on a GPU."""
    device: str
    dtype: str
    seconds: float
    model: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values: paths as strings, null for what was not measured, "inf" for no loss at all."""

        def plain(value: Any) -> Any:
            if isinstance(value, float) and not math.isfinite(value):
                return None if math.isnan(value) else str(value)
            return value if value is None or isinstance(value, int | float | str) else str(value)

        clips = [
            {key: plain(value) for key, value in asdict(clip).items()} | {"frames_per_second": clip.frames_per_second}
            for clip in self.clips
        ]
        return {key: plain(value) for key, value in asdict(self).items() if key != "clips"} | {"clips": clips}


def reconstruct(options: ReconstructOptions, progress: Progress) -> RunResult:
    """Reconstruct one video or image, or every one in a tree, as `options` say.

    In a tree, a clip that fails is reported in its result and the others go on. A single source that fails raises.
    Raises UsageError for requests that cannot work, VaectlError for a run that cannot go on.
    """
    begun = time.monotonic()
    pairs = plan_targets(options)
    if is_tiled(options):
        return_what_is_freed()
    model = load_model(options.ae_path, device=options.device, dtype=options.dtype)
    results = []
    for source, target in pairs:
        try:
            results.append(reconstruct_within_memory(model, source, target, options, progress))
        except VaectlError as error:
            if not options.video_path.is_dir():
                raise
            results.append(ClipResult(source, target, error=str(error)))
        finally:
            progress.finish()
    result = RunResult(
        tuple(results),
        memory.peak(model.device),
        str(model.device),
        str(model.dtype).removeprefix("torch."),
        time.monotonic() - begun,
        "built-in model" if options.ae_path is None else str(options.ae_path),
    )
    if any(clip.error is None for clip in result.clips):
        write_record(options, result, progress)
    return result


def reconstruct_within_memory(
    model: AnyVAE, source: Path, target: Path, options: ReconstructOptions, progress: Progress
) -> ClipResult:
    """One source through the model; with tiling, once more in half the memory if that was too little."""
    try:
        return reconstruct_clip(model, source, target, options, progress)
    except OutOfMemoryError as error:
        if not is_tiled(options):
            raise
        limit = (options.memory_limit or obtainable(model.device)) // 2
        progress.warn(f"{error}; tried once more within {format_size(limit)}")
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    return reconstruct_clip(model, source, target, replace(options, memory_limit=limit), progress)


def reconstruct_clip(
    model: AnyVAE, source: Path, target: Path, options: ReconstructOptions, progress: Progress
) -> ClipResult:
    """One source through the model into one target."""
    begun = time.monotonic()
    with VideoReader(source) as reader:
        info = reader.info
        if info.color.hdr:
            progress.warn(f"{source}: is HDR ({info.color.hdr}); its values are taken as they are, not tone-mapped")
        times = frame_times(reader, source, options, progress)
        rate, whole = info.frame_rate / options.sample_rate, reader.is_whole(times)
        if options.fps is not None:
            even = [times[0] + index / options.fps for index in range(len(times))]
            rate, whole, times = options.fps, whole and times == even, even
        width, height = target_size(
            info.width, info.height, to_width=options.width, to_height=options.height, short_size=options.short_size
        )
        runner, window = how_to_run(model, len(times), width, height, info, options, progress)
        clips = reader.clips(options.start, len(times), options.sample_rate, batch_size=window)
        resized = (resize(clip.frames, width, height) for clip in clips)
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
            ahead(resized) as originals,
            ahead(through_model(model, runner, originals, generator, source)) as frames,
        ):
            for original, result in frames:
                done = len(errors)
                errors += mean_squared_errors(original, result)
                shown = torch.cat([original, result], dim=3) if options.side_by_side else result
                writer.write(Clip(shown, tuple(times[done : len(errors)]), rate))
                progress.advance(len(result))
    seconds = time.monotonic() - begun
    return ClipResult(source, target, len(errors), width, height, mean_psnr(errors), writer.codec_psnr, seconds)


def frame_times(reader: VideoReader, source: Path, options: ReconstructOptions, progress: Progress) -> list[Fraction]:
    """When the frames to take are shown, in seconds. Fewer than asked for: a warning, or an error with `strict`."""
    times = list(reader.timestamps(options.start, options.num_frames, options.sample_rate))
    if options.num_frames is not None and len(times) < options.num_frames:
        message = f"{source}: gives {len(times)} of the {options.num_frames} frames asked for"
        if options.strict:
            raise VaectlError(f"{message}; ask for fewer, or leave out --strict")
        progress.warn(message)
    return times


def how_to_run(
    model: AnyVAE,
    frames: int,
    width: int,
    height: int,
    info: VideoInfo,
    options: ReconstructOptions,
    progress: Progress,
) -> tuple[Runner, int]:
    """What runs the model on one clip, and how many frames to give it at a time."""
    if not is_tiled(options):
        return WholeFrames(model), piece_frames(model.config, height, width)
    if not (isinstance(model, WFVAE) and model.streams):
        raise UsageError(
            f"{options.ae_path}: this model looks at the whole clip (GroupNorm or AttnBlock3D), so it cannot be run"
            " tile by tile; leave out --enable-tiling, --memory-limit and --save-memory"
        )
    scale = model.config.space_compression
    height, width = -(-height // scale) * scale, -(-width // scale) * scale
    there = obtainable(model.device)
    limit = options.memory_limit or there
    if limit > there:
        progress.warn(f"--memory-limit is {format_size(limit)}, but {model.device} has {format_size(there)} to give")
    budget = Budget(limit, fixed=0, per_frame=0, places=("device", "host", "disk"))
    if model.device.type == "cpu":
        shown = height * width * (2 if options.side_by_side else 1)
        stored = info.height * info.width
        budget = Budget(
            limit,
            fixed=PROCESS + ENCODER * shown + DECODER * stored,
            per_frame=READING * stored + BUFFERS * height * width + WRITING * shown,
            places=("device", "disk"),
        )
    plan = make_plan(model, frames, height, width, budget, sparing=options.save_memory)
    progress.note(
        f"tiles of {scale * plan.tile} pixels, windows of {plan.window} frames, state {WHERE[plan.state]},"
        f" about {format_size(plan.peak)} on {model.device}"
    )
    store = OnDisk() if plan.state == "disk" else InMemory(torch.device("cpu") if plan.state == "host" else None)
    return Tiles(model, plan.tile, store), plan.window


def is_tiled(options: ReconstructOptions) -> bool:
    return options.enable_tiling or options.save_memory or options.memory_limit is not None


# What a run takes beside the network: bytes of the process, per pixel of a clip, and per pixel of a frame in a window.
# The first and the encoder's from runs at 720p, the others counted from what the stages hold; all on the safe side, as
# whole runs show (docs/tiling.md).
PROCESS = 450 * 2**20
ENCODER, DECODER = 400, 45
READING, BUFFERS, WRITING = 18, 57, 9
WHERE = {"device": "in memory", "host": "in the memory of the host", "disk": "on disk"}


def through_model(
    model: AnyVAE, runner: Runner, originals: Iterator[Tensor], generator: torch.Generator | None, source: Path
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Batches of 8-bit frames (T, 3, H, W) with what became of them; the batches may be cut anew."""
    waiting: deque[Tensor] = deque()

    def inputs() -> Iterator[Tensor]:
        for frames in originals:
            waiting.append(frames)
            yield to_video(frames.to(model.device) if isinstance(runner, WholeFrames) else frames)

    try:
        for video in reconstruct_pieces(model, inputs(), runner, sample=generator is not None, generator=generator):
            if not video.isfinite().all():
                raise VaectlError(
                    f"{source}: the model gave NaN or infinity; use --dtype float32, or another checkpoint"
                )
            result = to_frames(video).cpu()
            known = torch.cat(list(waiting))
            waiting.clear()
            if len(known) > len(result):
                waiting.append(known[len(result) :])
            yield known[: len(result)], result
    except torch.cuda.OutOfMemoryError:
        raise OutOfMemoryError(source, model) from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise OutOfMemoryError(source, model) from None


class OutOfMemoryError(VaectlError):
    """The model's device has no room for what it was given."""

    def __init__(self, source: Path, model: AnyVAE) -> None:
        tiles = isinstance(model, WFVAE) and model.streams
        remedy = "--enable-tiling with a smaller --memory-limit" if tiles else "fewer --num-frames"
        super().__init__(f"{source}: out of memory on {model.device}; use {remedy}, or smaller --height and --width")


def write_record(options: ReconstructOptions, result: RunResult, progress: Progress) -> None:
    """Write the resolved options, and what came of them, beside the output."""
    target = record_path(options, result.clips[0].target)
    record = {"vaectl": vaectl.__version__, "torch": torch.__version__, "options": dump(options), **result.as_json()}
    try:
        with replacing(target, overwrite=True) as temporary:
            temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except (OSError, VaectlError) as error:
        progress.warn(f"{target}: the record of this run is missing: {error}")
