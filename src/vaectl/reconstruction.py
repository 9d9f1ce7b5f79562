"""The job behind `vaectl reconstruct`: videos through a model and back, as a stream, one clip after the other.

Joins `video`, `models` and `metrics`. Reading, network and writing overlap; a clip is never held whole, unless its
model looks at the whole clip.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

import vaectl
from vaectl.errors import UsageError, VaectlError
from vaectl.metrics.psnr import mean_psnr, mean_squared_errors
from vaectl.models import load_model
from vaectl.models.streaming import piece_frames, reconstruct_pieces
from vaectl.models.vae import AnyVAE
from vaectl.options import ReconstructOptions, dump
from vaectl.pipeline import ahead
from vaectl.progress import Progress
from vaectl.video import VideoReader, find_videos, resize, target_size
from vaectl.video.clip import Clip, to_frames, to_video
from vaectl.video.container import IMAGE_EXTENSIONS
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


@dataclass(frozen=True)
class RunResult:
    clips: tuple[ClipResult, ...]
    peak_memory: int
    """Bytes: of the process on the CPU, reserved by PyTorch on a GPU."""
    device: str
    dtype: str
    seconds: float
    model: str


def reconstruct(options: ReconstructOptions, progress: Progress) -> RunResult:
    """Reconstruct one video or image, or every one in a tree, as `options` say.

    In a tree, a clip that fails is reported in its result and the others go on. A single source that fails raises.
    Raises UsageError for requests that cannot work, VaectlError for a run that cannot go on.
    """
    begun = time.monotonic()
    pairs = plan(options)
    model = load_model(options.ae_path, device=options.device, dtype=options.dtype)
    results = []
    for source, target in pairs:
        try:
            results.append(reconstruct_clip(model, source, target, options, progress))
        except VaectlError as error:
            if not options.video_path.is_dir():
                raise
            results.append(ClipResult(source, target, error=str(error)))
        finally:
            progress.finish()
    result = RunResult(
        tuple(results),
        peak_memory(model.device),
        str(model.device),
        str(model.dtype).removeprefix("torch."),
        time.monotonic() - begun,
        "built-in model" if options.ae_path is None else str(options.ae_path),
    )
    write_record(options, result)
    return result


# Sources and targets


def plan(options: ReconstructOptions) -> list[tuple[Path, Path]]:
    """Every source with its target: all different, none of them a source, none of them there without `overwrite`."""
    source, target = options.video_path, options.rec_path
    if source.is_dir():
        if target.is_file():
            raise UsageError(f"{target}: is a file, but {source} is a folder; name a folder for the results")
        sources = [file for file in find_videos(source) if not file.resolve().is_relative_to(target.resolve())]
        names = mirror([file.relative_to(source) for file in sources], options.lossless)
        pairs = [(file, target / name) for file, name in zip(sources, names, strict=True)]
        if not pairs:
            raise UsageError(f"{source}: all its videos lie in {target}; name another folder for the results")
    else:
        if target.is_dir():
            target = target / mirror([Path(source.name)], options.lossless)[0]
        pairs = [(source, target)]
    known = {file.resolve() for file, _ in pairs}
    for _, file in pairs:
        if file.resolve() in known:
            raise UsageError(f"{file}: is a source itself; give another --rec-path")
    existing = [file for _, file in pairs if file.exists() or file.is_symlink()]
    if existing and not options.overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]}{more}: exists already; pass --overwrite to replace, or change --rec-path")
    return pairs


def mirror(sources: Sequence[Path], lossless: bool) -> list[Path]:
    """A name for the result of each source, in the format that is written by default.

    `a.mov` gives `a.mp4`; where two sources would meet in one name, they keep their own extension: `a.mov.mp4`.
    """
    endings = [
        ".png" if source.suffix.lower() in IMAGE_EXTENSIONS else ".mkv" if lossless else ".mp4" for source in sources
    ]
    names = [source.with_suffix(ending) for source, ending in zip(sources, endings, strict=True)]
    while clashes := {name for name, count in Counter(names).items() if count > 1}:
        names = [
            source.with_name(source.name + ending) if name in clashes else name
            for source, ending, name in zip(sources, endings, names, strict=True)
        ]
    return names


# One clip


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
        whole = len(times) == len(reader.timestamps())
        rate = info.frame_rate / options.sample_rate
        if options.fps is not None and options.fps != rate:
            rate, whole = options.fps, False
            times = [index / rate for index in range(len(times))]
        width, height = target_size(
            info.width, info.height, to_width=options.width, to_height=options.height, short_size=options.short_size
        )
        stretched = options.width is not None and options.height is not None

        progress.start(str(source), len(times))
        piece = piece_frames(model.config, height, width)
        batches = reader.clips(options.start, len(times), options.sample_rate, batch_size=piece)
        originals = ahead(resize(batch.frames, width, height) for batch in batches)
        generator = torch.Generator().manual_seed(options.seed) if options.sample else None
        errors: list[float] = []
        with (
            closing(ahead(through_model(model, originals, generator, source))) as frames,
            VideoWriter(
                target,
                width=2 * width if options.side_by_side else width,
                height=height,
                frame_rate=rate,
                timestamps=times,
                lossless=options.lossless,
                overwrite=options.overwrite,
                color=info.color,
                sample_aspect_ratio=Fraction(1) if stretched else info.sample_aspect_ratio,
                audio_from=source if whole and info.has_audio else None,
                measure=True,
                warn=progress.warn,
            ) as writer,
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
    times = list(reader.timestamps()[options.start :: options.sample_rate][: options.num_frames])
    if not times:
        raise UsageError(f"{source}: has no frame {options.start}; begin earlier")
    if options.num_frames is not None and len(times) < options.num_frames:
        message = f"{source}: gives {len(times)} frames, not the {options.num_frames} asked for"
        if options.strict:
            raise VaectlError(f"{message}; ask for fewer, or leave out --strict")
        progress.warn(message)
    return times


def through_model(
    model: AnyVAE, originals: Iterator[Tensor], generator: torch.Generator | None, source: Path
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of 8-bit frames (T, 3, H, W) with what became of them; the batches may be cut anew."""
    waiting: deque[Tensor] = deque()

    def inputs() -> Iterator[Tensor]:
        for frames in originals:
            waiting.append(frames)
            yield to_video(frames.to(model.device))

    try:
        for video in reconstruct_pieces(model, inputs(), sample=generator is not None, generator=generator):
            if video.isnan().any():
                raise VaectlError(f"{source}: the model gave NaN; use --dtype float32, or another checkpoint")
            result = to_frames(video).cpu()
            known = torch.cat(list(waiting))
            waiting.clear()
            if len(known) > len(result):
                waiting.append(known[len(result) :])
            yield known[: len(result)], result
    except torch.OutOfMemoryError:
        raise out_of_memory(source, model) from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise out_of_memory(source, model) from None


def out_of_memory(source: Path, model: AnyVAE) -> VaectlError:
    remedy = "smaller --height and --width" if model.streams else "smaller --height and --width, or fewer --num-frames"
    return VaectlError(f"{source}: out of memory on {model.device}; use {remedy}")


# The run


def peak_memory(device: torch.device) -> int:
    """Bytes, at most, since the process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_record(options: ReconstructOptions, result: RunResult) -> None:
    """Write the resolved options, and what came of them, beside the output."""
    first = result.clips[0].target
    target = options.rec_path / RECORD if options.video_path.is_dir() else first.with_name(f"{first.name}.{RECORD}")
    record = {"vaectl": vaectl.__version__, "torch": torch.__version__, "options": dump(options), **asdict(result)}
    with replacing(target, overwrite=True) as temporary:
        temporary.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")


RECORD = "vaectl.json"
