"""Run a model on clips: 8-bit frames in, 8-bit frames out, whole or in tiles, as memory allows.

All commands use it, so they all get the same frames. Knows no files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from vaectl.allocator import MAX_HELD_RATIO, keep_within, returning_freed, reuse_memory
from vaectl.errors import OutOfMemoryError, UsageError, VaectlError
from vaectl.io.spill_file import SpillFile
from vaectl.memory import Limits, format_limit, format_size, obtainable, resident, return_freed
from vaectl.model_names import is_builtin
from vaectl.models import load_model
from vaectl.models.checkpoint import downloaded
from vaectl.models.compiled import check_compiler
from vaectl.models.device import choose_device, choose_dtype
from vaectl.models.vae import AnyVAE
from vaectl.models.weights import Weights
from vaectl.prefetch import delayed
from vaectl.progress import Progress, Silent
from vaectl.shortage import is_memory_shortage
from vaectl.tiling.plan import Budget, Plan, make_plan, window_frames
from vaectl.tiling.storage import DiskTensor, Place
from vaectl.tiling.stream import reconstruct_windows
from vaectl.transfer import Arrived, download, upload
from vaectl.video.clip import batch_to_frames

T = TypeVar("T")


@dataclass(frozen=True)
class HostOverhead:
    """Bytes that a clip takes in addition to the network, for a model on the CPU."""

    fixed: int
    per_frame: int
    """For each frame of a window."""
    on_device: int = 0
    """Bytes on the device of the model, if that is not the CPU: the weights of other models."""
    with_process: bool = False
    """Add `process_memory`, which is measured only for a plan: that imports much of PyTorch."""

    @classmethod
    def of(cls, *, stored: int, frame: int, shown: int) -> HostOverhead:
        """Estimate it from the pixels of a frame in the input file, in the network and in the output file.

        The factors are bytes per pixel: measured at 720p for the video encoder, else the sizes of the queues. The sums
        are upper bounds: docs/tiling.md compares them with whole runs.
        """
        fixed = 130 * 2**20 + 45 * stored + 280 * shown
        return cls(fixed, per_frame=18 * stored + 57 * frame + 9 * shown, with_process=True)

    def with_weights(self, others: Iterable[AnyVAE]) -> HostOverhead:
        """Add the weights of other models, which stay in memory during the run."""
        weights = sum(weight.nbytes for model in others for weight in model.parameters())
        return replace(self, fixed=self.fixed + weights, on_device=self.on_device + weights)


@cache
def process_memory() -> int:
    """Return the memory of the process without a model or a clip, mostly libraries, in bytes.

    Measured, because builds of PyTorch differ: 320 MiB without CUDA, up to 860 with it. Measured when this module is
    imported, and rounded up to 32 MiB, so that runs in the same environment get the same plan.
    """
    return_freed()  # the import would use what loading a model has freed, more of it in one run than in the next
    before = resident()
    with suppress(ImportError):
        import_module("torch._dynamo")  # a large part of PyTorch, which planning loads
    step = 32 * 2**20
    return -(-(AT_IMPORT + resident() - before) // step) * step


AT_IMPORT = resident()
FRAMES_ON_DEVICE = 6
"""Windows of 8-bit frames on a GPU at a time: three that wait for the network, three that wait for the host."""
PINNED_ROUNDING = 2
"""PyTorch rounds the size of pinned memory up to a power of two: at most this ratio."""
WHERE = {"device": "in memory", "host": "in the memory of the host", "disk": "on disk"}


def open_model(
    path: Path | None,
    device: str,
    dtype: str,
    limits: Limits,
    name: str | None = None,
    progress: Progress | None = None,
    weights: Weights | None = None,
    *,
    compile: bool = False,
) -> AnyVAE:
    """Load the model at `path`, or of this name on the hub; None and "builtin" are the built-in one.

    `compile`: its networks run through `torch.compile`. Raises UsageError if that does not work here, and if `name` is
    the name of another family.
    """
    where = choose_device(device)
    called = "the built-in model" if is_builtin(path) else path
    path = downloaded(path, progress=progress or Silent())
    precision = choose_dtype(dtype, where, low_memory=limits.low_memory)
    with explain_shortage(called, where, "the weights alone do not fit: free some, or use another `device`"):
        model: AnyVAE = load_model(
            path, device=where, dtype=precision, weights=weights, note=(progress or Silent()).note
        )
    if name is not None and not model.config.is_called(name):
        raise UsageError(
            f"`model_name={name}`: {called} is {model.config.a_model}", "leave the name out, or give another model"
        )
    if compile:
        check_compiler(where)
        model.compile()
    return model


def note_no_effect(tile_overlap_factor: float | None, progress: Progress) -> None:
    """Note that an option of published commands has no effect here."""
    if tile_overlap_factor is not None:
        progress.note("`tile_overlap_factor` has no effect: tiles give exactly the result of whole frames")


def retry_on_oom(attempt: Callable[[Limits], T], model: AnyVAE, limits: Limits, progress: Progress) -> T:
    """Return the result of `attempt`. On out-of-memory, a tiled run is retried once with half the limit."""
    try:
        return attempt(limits)
    except OutOfMemoryError as error:
        if not limits.tiled:
            raise
        first = OutOfMemoryError(*error.args)  # without its traceback, which would keep the tensors alive
    half = limit_of(limits, model.device) // 2
    progress.warn(f"{first.problem}; retrying within {format_size(half)}")
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        return attempt(replace(limits, memory_limit=half))
    except UsageError:  # half is too little for any plan
        raise first from None


def limit_of(limits: Limits, device: torch.device) -> int:
    """Return the bytes to plan for: the limit, if the device has that much; by default 90 percent of what is free."""
    there = obtainable(device)
    return round(0.9 * there) if limits.memory_limit is None else min(limits.memory_limit, there)


@dataclass(frozen=True)
class Run:
    """How to run a model on clips of one size."""

    model: AnyVAE
    window: int
    """Frames to pass at a time."""
    plan: Plan | None
    """None for whole frames."""
    report: Callable[[int], None]
    """Called with the number of each group when it begins."""


def prepare_run(
    model: AnyVAE, num_frames: int, width: int, height: int, limits: Limits, overhead: HostOverhead, progress: Progress
) -> Run:
    """Plan for one clip, report the plan, and set the memory allocator for it."""
    if not limits.tiled:
        reuse_memory(model, tight=limits.low_memory, limited=False)
        return Run(model, window_frames(model.config, height, width, model.device), None, lambda _: None)
    limit = limit_of(limits, model.device)
    if limits.memory_limit is not None and limits.memory_limit > limit:
        asked = format_limit(limits.memory_limit)
        progress.warn(f"`memory_limit` is {asked}, but {model.device} has only {format_size(limit)}")
    if model.device.type == "cpu":
        fixed = overhead.fixed + (process_memory() if overhead.with_process else 0)
        budget = Budget(limit, fixed, overhead.per_frame, places=("device", "disk"))
    else:
        host = obtainable(torch.device("cpu"))
        frame = FRAMES_ON_DEVICE * model.in_channels * width * height
        places: tuple[Place, ...] = ("device", "host", "disk")
        budget = Budget(limit, overhead.on_device, frame, places, host // PINNED_ROUNDING)
    if model.device.type == "cuda" and limits.memory_limit is not None:
        keep_within(model, limit)
    plan = make_plan(model, num_frames, height, width, budget, low_memory=limits.low_memory)
    reuse_memory(model, tight=limits.low_memory or limit < MAX_HELD_RATIO * plan.peak)
    groups = len(plan.encoder) + len(plan.decoder)
    if model.streams:
        tile = model.config.space_compression * plan.encoder[0].tile
        how = f"tiles of {tile} pixels" if tile < max(height, width) else "whole frames"
        if plan.window < num_frames:
            how += f", windows of {plan.window} frames, causal caches {WHERE[plan.place]}"
    else:
        data = f"the data between them {WHERE[plan.place]}"
        how = f"this model needs the whole clip: {groups} groups of layers, with {data}"
    progress.note(f"{how}, estimated peak {format_size(plan.peak)} on {model.device}")

    def report(number: int) -> None:
        if not model.streams:
            progress.status(f"group {number + 1} of {groups}")

    return Run(model, plan.window, plan, report)


def run_frames(
    run: Run, originals: Iterator[Tensor], generator: torch.Generator | None, source: Path
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield batches of 8-bit frames (T, C, H, W) with their reconstructions. The lengths of the batches may change."""
    waiting: deque[Tensor | DiskTensor] = deque()
    """Frames that are not reconstructed yet."""
    on_disk = run.plan is not None and not run.model.streams and run.plan.place == "disk"
    file = SpillFile() if on_disk else None

    def inputs() -> Iterator[Tensor]:
        for frames in originals:
            waiting.extend(frames if file is None else (DiskTensor.of(frame, file) for frame in frames))
            yield frames[None]

    for result in _run_windows(run, inputs(), generator, source):
        yield torch.stack([waiting.popleft()[:] for _ in range(result.shape[1])]), result[0]


def reconstruct_frames(
    model: AnyVAE,
    frames_BTCHW: Tensor,
    source: Path,
    limits: Limits,
    overhead: HostOverhead,
    progress: Progress,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Reconstruct clips of one size, (B, T, C, H, W) uint8. Returns the same shape and type, on the CPU.

    With a `generator`, latents are sampled from the posterior; without one, its mean is used. The results of a batch
    and of single clips may differ by rounding. Raises VaectlError for NaN or infinity, OutOfMemoryError; with `source`.
    """
    batch, num_frames, _, height, width = frames_BTCHW.shape
    noise = generator.get_state() if generator else None

    def attempt(limits: Limits) -> Tensor:
        if generator and noise is not None:
            generator.set_state(noise)  # a retry samples the same latents
        run = prepare_run(model, num_frames, width, height, limits, overhead, progress)
        windows, done = torch.split(frames_BTCHW, run.window, dim=1), 0
        made = frames_BTCHW[:, :0]
        progress.start(f"{source}" if batch == 1 else f"{source} and {batch - 1} more", batch * num_frames)
        try:
            for frames in _run_windows(run, windows, generator, source):
                if done == 0:
                    made = frames.new_empty(batch, num_frames, *frames.shape[2:])
                made[:, done : done + frames.shape[1]] = frames
                done += frames.shape[1]
                progress.advance(batch * frames.shape[1])
        finally:
            progress.finish()
        return made

    return retry_on_oom(attempt, model, limits, progress)


def _run_windows(
    run: Run, windows_BTCHW: Iterable[Tensor], generator: torch.Generator | None, source: Path
) -> Iterator[Tensor]:
    """Yield reconstructions of clips in windows of any length, (B, T, C, H, W) uint8 each, on the CPU.

    On a GPU, a window is given when the next has begun: so the GPU never waits for the host.
    """
    device = run.model.device
    ahead = 1 if device.type == "cuda" else 0
    finite: list[Tensor] = []
    """Whether each tile of the current window is finite."""

    def finish(video_BCTHW: Tensor) -> Tensor:
        finite.append(video_BCTHW.isfinite().all())
        return batch_to_frames(video_BCTHW).transpose(1, 2)

    def downloads() -> Iterator[tuple[Arrived, Arrived]]:
        videos = (upload(frames, device).transpose(1, 2) for frames in windows_BTCHW)
        sample = generator is not None
        for frames in reconstruct_windows(
            run.model, videos, run.plan, sample=sample, generator=generator, report=run.report, finish=finish
        ):
            yield download(frames.permute(0, 2, 3, 4, 1)), download(torch.stack(finite).all())
            finite.clear()

    returning = returning_freed(run.model, limited=run.plan is not None)
    with explain_shortage(source, device), returning as return_excess:
        for frames_BTHWC, all_finite in delayed(downloads(), ahead):
            if not all_finite():
                raise VaectlError(
                    f"{source}: the model's output has NaN or infinity", "use `dtype=float32`, or another checkpoint"
                )
            frames = frames_BTHWC().permute(0, 1, 4, 2, 3)
            return_excess()
            yield frames


LESS = "use `enable_tiling` with a smaller `memory_limit`, or smaller frames"


@contextmanager
def explain_shortage(source: object, device: torch.device, remedy: str = LESS) -> Iterator[None]:
    """Raise OutOfMemoryError instead of the errors that libraries raise when memory is short."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_memory_shortage(error):
            raise
        raise OutOfMemoryError(f"{source}: out of memory on {device}", remedy) from None
