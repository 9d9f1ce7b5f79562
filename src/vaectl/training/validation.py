"""Validation during training: the metrics of `eval` on clips that are not trained on, and a picture of some clips.

The ranks split the clips. Validation is deterministic and does not change the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from vaectl import distributed
from vaectl.allocator import returning_freed
from vaectl.errors import VaectlError
from vaectl.evaluation.protocol import ClipProtocol, read_clip
from vaectl.metrics import MetricSettings, build
from vaectl.metrics.metric import FrameMetric
from vaectl.models.vae import AnyVAE
from vaectl.options.train import TrainOptions
from vaectl.shortage import is_memory_shortage
from vaectl.tiling.plan import window_frames
from vaectl.tiling.stream import reconstruct_windows
from vaectl.training.clips import ValidationClips
from vaectl.training.run_dir import checkpoints
from vaectl.training.whole import Facts
from vaectl.video.clip import batch_to_frames, batch_to_video

FRAMES_SHOWN = 4
ERROR_GAIN = 4


class ValidationError(Exception):
    """A validation that is skipped. Its text says why, in one line."""


class Validation:
    """The validation clips and the metrics."""

    def __init__(self, options: TrainOptions, clips: ValidationClips, device: torch.device) -> None:
        """Raise VaectlError if the weights of a metric are not available."""
        self.clips = clips
        crop = options.eval_resolution
        self._protocol = ClipProtocol(options.eval_num_frames, options.eval_sample_rate, crop, crop)
        names = ["psnr", "ssim", *(["lpips"] if options.eval_lpips else [])]
        self._metrics = cast(dict[str, FrameMetric], build(names, MetricSettings(), device))
        self._batch_size = options.eval_batch_size
        self._shown = options.eval_num_video_log

    def measure(self, model: AnyVAE, warn: Callable[[str], None]) -> tuple[dict[str, float], Tensor | None]:
        """Return the mean of each metric over frames and clips, and a uint8 picture (3, H, W) of the first clips.

        The picture shows clips of this rank. Unreadable clips are skipped with a warning. If any rank fails, or no clip
        is left, all ranks raise ValidationError.
        """
        failure = None
        modes = {module: module.training for module in model.modules()}  # a frozen encoder stays in evaluation mode
        try:
            totals, picture = self._measure_share(model, warn)
        except Exception as error:  # the ranks wait for each other below
            failure = reason_of(error)
        finally:
            for module, training in modes.items():
                module.training = training
        if any(distributed.any_rank([failure is not None])):
            raise ValidationError(next(filter(None, distributed.gather(failure)), ""))
        *sums, count = (distributed.mean(totals) * distributed.world_size()).tolist()
        if not count:
            raise ValidationError("no clip of `eval_video_path` could be measured; see the warnings above")
        means = {name: total / count for name, total in zip(self._metrics, sums, strict=True)}
        return means, picture

    def _measure_share(self, model: AnyVAE, warn: Callable[[str], None]) -> tuple[Tensor, Tensor | None]:
        """Return the sums of the metrics over the clips of this rank and, last, their number; and the picture."""
        totals = torch.zeros(len(self._metrics) + 1, dtype=torch.float64)
        strips: list[Tensor] = []
        model.eval()
        mine = self.clips.paths[distributed.rank() :: distributed.world_size()]
        for first in range(0, len(mine), self._batch_size):
            clips = list(self._readable(mine[first : first + self._batch_size], warn))
            if not clips:
                continue
            original = torch.stack(clips).to(model.device)
            video = batch_to_video(original)
            height, width = video.shape[3:]
            windows = torch.split(video, window_frames(model.config, height, width, model.device), dim=2)
            with returning_freed(model):
                result = batch_to_frames(torch.cat(list(reconstruct_windows(model, windows)), dim=2))
            scores = [metric.measure(original, result).mean(dim=1).sum() for metric in self._metrics.values()]
            totals += torch.stack([*scores, torch.tensor(len(clips), dtype=torch.float64)])
            for pair in zip(original.cpu(), result.cpu(), strict=True):
                if len(strips) < self._shown:
                    strips.append(strip(*pair))
        return totals, torch.cat(strips, dim=1) if strips else None

    def _readable(self, paths: Sequence[Path], warn: Callable[[str], None]) -> Iterator[Tensor]:
        for path in paths:
            try:
                yield read_clip(path, self._protocol).frames
            except VaectlError as error:
                warn(f"validation skips {error.problem}; leave it out of `eval_video_path`")


def reason_of(error: Exception) -> str:
    """Return in one line why a validation failed, with the options that help."""
    said = " ".join(str(error).split()) or type(error).__name__
    if is_memory_shortage(error):
        return f"out of memory ({said}); lower `eval_batch_size`, `eval_resolution` or `eval_num_frames`"
    if isinstance(error, VaectlError):
        return said
    return error.strerror or said if isinstance(error, OSError) else f"{type(error).__name__}: {said}"


def strip(original_T3HW: Tensor, result_T3HW: Tensor) -> Tensor:
    """Return a picture (3, 3·H, n·W) with rows of original frames, reconstructed frames and amplified errors."""
    indices = torch.linspace(0, len(original_T3HW) - 1, min(FRAMES_SHOWN, len(original_T3HW))).round().long()
    original, result = original_T3HW[indices], result_T3HW[indices]
    error = ((result.int() - original.int()) * ERROR_GAIN + 128).clamp(0, 255).byte()
    return torch.cat([torch.cat(list(row), dim=2) for row in (original, result, error)], dim=1)


def improves(values: dict[str, float], best: dict[str, float] | None) -> bool:
    """Return whether a validation has a higher PSNR than the best so far, of the EMA weights if there are any."""
    name = "ema_psnr" if "ema_psnr" in values else "psnr"
    return best is None or values[name] > best.get(name, best["psnr"])


def best_so_far(
    facts: Facts, checkpoint: Path, run: Path, fingerprint: str | None, note: Callable[[str], None]
) -> dict[str, float] | None:
    """Return the best validation of the checkpoint that `run` resumes; None, with a note, if it means nothing there.

    That is so for a validation of other clips, frames or sizes (`fingerprint`), and if the run has no checkpoint of it.
    """
    if facts.best is None:
        return None
    same_run = checkpoint.resolve().parent == run.resolve()
    if facts.validation not in (None, fingerprint):
        reason = "was of other clips, frames or sizes"
    elif not same_run or facts.best["step"] not in checkpoints(run):
        reason = f"has no checkpoint in {run}"
    else:
        return facts.best
    note(f"the best validation so far, at step {facts.best['step']}, {reason}; the next one is the best")
    return None
