"""`vaectl.encode` and `vaectl.decode`: the methods of a model of the same names, within a memory limit.

Tensors in, tensors out, in the tiles and windows of `vaectl reconstruct`. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaectl.allocator import returning_freed
from vaectl.engine import HostOverhead, explain_shortage, prepare_run, process_memory, retry_on_oom
from vaectl.errors import UsageError
from vaectl.geometry import latent_frames
from vaectl.memory import Limits, parse_size, resident, return_freed
from vaectl.models.inputs import VideoClip, check_latent, check_video
from vaectl.models.posterior import Posterior
from vaectl.models.vae import AnyVAE, pad_to_fit
from vaectl.progress import Warnings
from vaectl.tiling.plan import Plan
from vaectl.tiling.stream import executors, mark_last

Size = tuple[int, int, int]
"""Frames, height and width."""


def encode(model: AnyVAE, video: Tensor | VideoClip, memory_limit: int | str | None = None) -> Posterior:
    """Return `model.encode(video)` within a memory limit, on the CPU and without gradients. See `decode`."""
    video_BCTHW, time, space = check_video(video, model.in_channels), *compression(model)
    x = pad_to_fit(video_BCTHW, model.config, (1 - video_BCTHW.shape[2]) % time)
    frames, height, width = x.shape[2:]
    shape = (2 * model.config.latent_channels, latent_frames(frames, time), height // space, width // space)
    moments = run_network(model, 0, x, shape, (frames, height, width), memory_limit, lambda plan: plan.window)
    return Posterior.from_moments(moments)


def decode(model: AnyVAE, latent_BCTHW: Tensor, memory_limit: int | str | None = None) -> Tensor:
    """Return `model.decode(latent)` within a memory limit, on the CPU and without gradients.

    Args:
        latent_BCTHW: as `model.decode` takes it, on any device. The clips of a batch run one after the other.
        memory_limit: bytes, or a text such as "6GiB": memory of the GPU, or of the whole process on the CPU, with the
            result and all else that it holds. None for 90 % of the free memory.

    The result has the dtype of the model and is equal up to rounding. Raises UsageError for anything but a latent and
    for a limit that is too small, OutOfMemoryError.
    """
    latent_BCTHW, time, space = check_latent(latent_BCTHW, model.config.latent_channels), *compression(model)
    length, rows, columns = latent_BCTHW.shape[2:]
    size = (1 + time * (length - 1), space * rows, space * columns)

    def window(plan: Plan) -> int:
        if not model.streams:
            return plan.decoder[0].window
        return length if plan.window >= size[0] else plan.window // time

    return run_network(model, 1, latent_BCTHW, (model.in_channels, *size), size, memory_limit, window)


def compression(model: AnyVAE) -> tuple[int, int]:
    """Return the compression of a model in time and in space."""
    return model.config.time_compression, model.config.space_compression


@torch.no_grad()
def run_network(
    model: AnyVAE,
    which: int,
    x_BCTHW: Tensor,
    shape: tuple[int, ...],
    size: Size,
    memory_limit: int | str | None,
    window: Callable[[Plan], int],
) -> Tensor:
    """Run the encoder (`which` = 0) or the decoder (1) on each clip of a batch. Returns (B, *shape) on the CPU.

    `size`: of the video. `window`: frames of `x_BCTHW` to pass at a time under a plan. Raises as `decode` does.
    """
    try:
        limit = parse_size(str(memory_limit)) if memory_limit is not None else None
    except ValueError as error:
        raise UsageError(f"`memory_limit`: {error}") from None
    frames, height, width = size
    progress = Warnings()

    def attempt(limits: Limits) -> Tensor:
        kind = torch.promote_types(model.dtype, torch.float32)  # half precision ends before the last layers
        result = torch.empty((len(x_BCTHW), *shape), dtype=kind)
        run = prepare_run(model, frames, width, height, limits, held_by_process(model, result), progress)
        assert run.plan is not None
        remedy = "give a smaller `memory_limit`, or smaller frames"
        with explain_shortage(f"{width}x{height} pixels", model.device, remedy), returning_freed(model):
            for clip, made in zip(torch.split(x_BCTHW, 1), result, strict=True):
                windows, done = torch.split(clip, window(run.plan), dim=2), 0
                for part in executors(model, run.plan)[which].run(mark_last(windows)):
                    made[:, done : done + part.shape[2]] = part[0]
                    done += part.shape[2]
        return result

    try:
        return retry_on_oom(attempt, model, Limits(tiled=True, memory_limit=limit), progress)
    finally:
        if model.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, model.device)  # other models of the process need it


def held_by_process(model: AnyVAE, result: Tensor) -> HostOverhead:
    """Return what the process holds, with room for the result, in addition to the network."""
    process_memory()  # loads what planning loads
    return_freed()
    weights = sum(weight.nbytes for weight in model.parameters())
    return HostOverhead(max(0, resident() - weights) + result.nbytes, per_frame=0)
