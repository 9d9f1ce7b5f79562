"""`vaectl.evaluate`: compare clips from Python, with the code of `vaectl eval`.

Files and folders go through the job of that command. Clips in memory go through its metrics as they are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from torch import Tensor

from vaectl import memory
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation import evaluate as job
from vaectl.evaluation.frames import DecodedGroup
from vaectl.evaluation.pairs import Group
from vaectl.evaluation.pipeline import PartialResults, compare
from vaectl.evaluation.protocols import options_of_protocol
from vaectl.evaluation.provenance import measurement
from vaectl.evaluation.results import Evaluation
from vaectl.models.device import choose_device
from vaectl.options import EvalOptions, options_of, parse
from vaectl.options.clips import Count, Side
from vaectl.prefetch import batch_by_shape
from vaectl.progress import Progress, Warnings
from vaectl.video.arrays import Frames, frames_of
from vaectl.video.clip import Clip

Clips: TypeAlias = Frames | Sequence[Frames]
"""One clip or several: what `frames_of` takes, lists of that, and batches (B, 3, T, H, W) or (B, T, 3, H, W)."""
OF_COMMAND = {"real_video_dir", "generated_video_dir", "metric", "json", "all_pairs", "config", "debug"}
"""Options of the command that have another name in Python, or no meaning."""
IN_MEMORY = {"lpips_net", "lpips_weights", "fvd_detector", "vmaf_model", "batch_size"}
"""Options that clips in memory take."""


def evaluate(
    real: Path | str | Clips,
    generated: Path | str | Clips | None = None,
    *,
    metrics: str | Sequence[str] | None = None,
    protocol: str | Path | None = None,
    num_frames: Count | None = None,
    sample_rate: int | None = None,
    resolution: Side | None = None,
    crop_size: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> Evaluation:
    """Compare reconstructions with their originals.

    Args:
        real: the originals: a file, a folder, a clip, frames as `vaectl.write_video` takes them, or a list of clips.
        generated: the reconstructions, in the same form.
        metrics: psnr, ssim, lpips, fvd, flicker, ms_ssim, vmaf, vmaf_neg, psnr_y, xpsnr. By default those of the
            protocol, else the first three.
        protocol: the name or the TOML file of a protocol, which sets options that are not given.
        num_frames, sample_rate, resolution, crop_size: of files, as in `vaectl eval`: by default as prepared, else the
            first 33 frames, the shorter side resized to 256 and the centre cropped to 256x256. Clips in memory are
            compared as they are: whole, and neither resized nor cropped.
        device: where metrics run.
        progress: receives progress and warnings. By default, warnings are Python warnings.
        options: any other option of `vaectl eval`, by its name in Python: rgb_conversion, allow_missing, lpips_net, ...

    Frames are rounded to 8 bits. `.means` of the result has the mean of each metric over the clips; `.clips` has the
    numbers of each clip. Raises UsageError for wrong requests, VaectlError if a clip cannot be compared.
    """
    if wrong := sorted(options.keys() - (options_of(EvalOptions).keys() - OF_COMMAND)):
        raise UsageError(f"`{wrong[0]}` is no parameter of vaectl.evaluate", "help(vaectl.evaluate) lists them")
    of_files = {
        "protocol": None if protocol is None else str(protocol),
        "num_frames": num_frames,
        "sample_rate": sample_rate,
        "resolution": resolution,
        "crop_size": crop_size,
    }
    given = options | {"device": str(device)} | ({} if metrics is None else {"metric": metrics})
    if isinstance(real, str | Path) and isinstance(generated, str | Path | None):
        paths = {"real_video_dir": real} | ({} if generated is None else {"generated_video_dir": generated})
        given |= {name: value for name, value in of_files.items() if value is not None}
        parsed = parse(EvalOptions, options_of_protocol(given) | given | paths, in_python)
        if len(parsed.candidates) > 1:
            raise UsageError("vaectl.evaluate takes one candidate", "evaluate each, and pass them to vaectl.compare")
        (evaluation,) = job.evaluate(parsed, progress or Warnings()).evaluations
        if evaluation.failures:
            more = f" (and {len(evaluation.failures) - 1} more)" if len(evaluation.failures) > 1 else ""
            raise VaectlError(f"{evaluation.failures[0]}{more}")
        return evaluation
    if isinstance(real, str | Path) or isinstance(generated, str | Path | None):
        raise UsageError("give two paths, or two clips in memory", "read a file with vaectl.read_video")
    given_of_files = [name for name, value in of_files.items() if value is not None]
    if for_files := [*given_of_files, *sorted(options.keys() - IN_MEMORY)]:
        raise UsageError(f"`{for_files[0]}` is for files: clips in memory are compared as they are")
    paths = {"real_video_dir": "in memory", "generated_video_dir": "in memory"}
    parsed = parse(EvalOptions, given | paths, in_python)
    return compare_clips(clips_of(real), clips_of(generated), parsed, progress or Warnings())


def in_python(name: str) -> str:
    """Return the name of an option in messages."""
    return "`metrics`" if name == "metric" else f"`{name}`"


def compare_clips(
    real: Sequence[Tensor], generated: Sequence[Tensor], options: EvalOptions, progress: Progress
) -> Evaluation:
    """Compute the metrics of clips (T, 3, H, W) uint8, the first with the first and so on. Raises as `evaluate`."""

    def refuse(_group: Group, reason: str) -> NoReturn:
        raise VaectlError(reason)

    begun = time.monotonic()
    if len(real) != len(generated) or not real:
        raise UsageError(f"there are {len(real)} originals and {len(generated)} reconstructions", "give pairs")
    clips = []
    for number, (a, b) in enumerate(zip(real, generated, strict=True)):
        name = f"clip {number}"
        if a.shape != b.shape:
            raise UsageError(f"{name}: frames {tuple(b.shape)}, but those of the original are {tuple(a.shape)}")
        group = Group(name, Path(name), (Path(name),))
        clips.append(DecodedGroup(group, Clip.from_frames(a, 1), (Clip.from_frames(b, 1),), stored=0, seconds=0.0))
    device = choose_device(options.device)
    metrics, facts = job.build_metrics(options, device, progress, min(map(len, real)))
    results = PartialResults()
    for batch in batch_by_shape(iter(clips), lambda clip: clip.real.frames.shape, options.batch_size):
        compare(batch, metrics, None, results, refuse, progress)
    set_values, failures = job.values_of_sets(metrics)
    if failures:
        raise VaectlError(failures[0])
    return Evaluation(
        metrics=facts,
        clips=tuple(scores for (scores,) in results.clips),
        set_values={name: value for name, (value,) in set_values.items()},
        protocol={"clips": "in memory, as they are", "model": None, **measurement(options, str(device))},
        left_out={},
        seconds=time.monotonic() - begun,
        decode_seconds=0.0,
        peak_memory=memory.peak(device),
    )


def clips_of(given: Any) -> list[Tensor]:
    """Return the frames of one clip or several, (T, 3, H, W) uint8 each, on the CPU. Raises as `frames_of` does."""
    is_list = isinstance(given, list | tuple) and len(given) > 0
    if is_list and all(isinstance(each, Clip) or getattr(each, "ndim", 0) > 3 for each in given):
        return [frames for each in given for frames in clips_of(each)]
    if getattr(given, "ndim", 0) == 5:
        return [frames_of(each).cpu() for each in given]
    return [frames_of(given).cpu()]
