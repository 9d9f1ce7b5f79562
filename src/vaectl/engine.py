"""Clips through a model: whole frames or tiles, as memory allows; 8-bit frames in, 8-bit frames out.

What the jobs share, so that they all get the same frames. Knows neither files nor how frames are stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from vaectl.errors import OutOfMemoryError, UsageError, VaectlError
from vaectl.memory import format_size, obtainable, resident, return_freed, reuse_freed
from vaectl.models import load_model
from vaectl.models.device import choose_device, choose_dtype
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.streaming import Runner, WholeFrames, piece_frames, reconstruct_pieces
from vaectl.models.vae import AnyVAE
from vaectl.progress import Progress, Silent
from vaectl.shortage import is_memory_shortage
from vaectl.tiling.executor import Tiles
from vaectl.tiling.plan import Budget, make_plan
from vaectl.tiling.store import InMemory, OnDisk, Spool
from vaectl.tiling.whole_clip import WholeClip, plan_stages
from vaectl.video.clip import batch_to_frames, batch_to_video

T = TypeVar("T")


class MemoryOptions(Protocol):
    """Options that say how much memory to take."""

    @property
    def enable_tiling(self) -> bool: ...
    @property
    def memory_limit(self) -> int | None: ...
    @property
    def save_memory(self) -> bool: ...


@dataclass(frozen=True)
class Limits:
    """How much memory to take."""

    tiled: bool = False
    memory_limit: int | None = None
    """Bytes; None for what is free."""
    sparing: bool = False
    """As little as is bearable."""

    @classmethod
    def of(cls, options: MemoryOptions) -> Limits:
        """A limit, or to be sparing, implies tiles."""
        tiled = options.enable_tiling or options.save_memory or options.memory_limit is not None
        return cls(tiled, options.memory_limit, options.save_memory)


@dataclass(frozen=True)
class Beside:
    """What a clip takes beside the network: bytes of the process, where this runs on the CPU."""

    fixed: int
    per_frame: int
    """For each frame of a window."""

    @classmethod
    def of(cls, *, stored: int, frame: int, shown: int) -> Beside:
        """From pixels of a frame: as it is stored, as it goes through the network, as it is written.

        The encoder's share from runs at 720p, the others counted from what the stages hold; all on the safe side, as
        whole runs show (docs/tiling.md).
        """
        return cls(process_memory() + 130 * 2**20 + 280 * shown + 45 * stored, 18 * stored + 57 * frame + 9 * shown)


@cache
def process_memory() -> int:
    """Bytes that the process takes before there is a model or a clip: its libraries, and whatever came before them.

    Measured, because builds of PyTorch differ: 320 MiB for one without CUDA, up to 860 for one with it. Taken when this
    module is imported and in steps of 32 MiB, so that runs in the same environment get the same plan.
    """
    before = resident()
    with suppress(ImportError):
        import_module("torch._dynamo")  # a large part of PyTorch, which planning loads on its way
    step = 32 * 2**20
    return -(-(AT_IMPORT + resident() - before) // step) * step


AT_IMPORT = resident()

WHERE = {"device": "in memory", "host": "in the memory of the host", "disk": "on disk"}


def open_model(
    path: Path | None,
    device: str,
    dtype: str,
    limits: Limits,
    name: str | None = None,
    progress: Progress | None = None,
) -> AnyVAE:
    """The model at `path`, None for the built-in one. Raises UsageError if it is not of the family of that `name`."""
    where = choose_device(device)
    called = path or "the built-in model"
    precision = choose_dtype(dtype, where, sparing=limits.sparing)
    with _memory_errors_told(called, where, "its weights alone do not fit; free some, or use another --device"):
        model: AnyVAE = load_model(path, device=where, dtype=precision, note=(progress or Silent()).note)
    if name is not None and not model.config.is_called(name):
        raise UsageError(
            f"--model-name {name}: {called} is a {model.config.class_name}; leave the option out, or give another model"
        )
    return model


def tell_no_effect(tile_overlap_factor: float | None, progress: Progress) -> None:
    """That what a published command gives means nothing here."""
    if tile_overlap_factor is not None:
        progress.note("--tile-overlap-factor has no effect: tiles give exactly what whole frames give")


def within_memory(attempt: Callable[[Limits], T], model: AnyVAE, limits: Limits, progress: Progress) -> T:
    """What `attempt` gives; with tiles, once more in half the memory if that was too little."""
    try:
        return attempt(limits)
    except OutOfMemoryError as error:
        if not limits.tiled:
            raise
        first = OutOfMemoryError(*error.args)  # without its traceback, which would keep the tensors alive
    half = limit_of(limits, model.device) // 2
    progress.warn(f"{first}; tried once more within {format_size(half)}")
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        return attempt(replace(limits, memory_limit=half))
    except UsageError:  # half is too little for any plan
        raise first from None


def limit_of(limits: Limits, device: torch.device) -> int:
    """Bytes to plan for: as asked for, where the device has that; else nearly all, because others want some too."""
    there = obtainable(device)
    return round(0.9 * there) if limits.memory_limit is None else min(limits.memory_limit, there)


def how_to_run(
    model: AnyVAE, frames: int, width: int, height: int, limits: Limits, beside: Beside, progress: Progress
) -> tuple[Runner, int]:
    """What runs the model on one clip, and how many frames to give it at a time."""
    if not limits.tiled:
        keep_freed(model, limits)
        return WholeFrames(model), piece_frames(model.config, height, width)
    scale = model.config.space_compression
    height, width = -(-height // scale) * scale, -(-width // scale) * scale
    limit = limit_of(limits, model.device)
    if limits.memory_limit is not None and limits.memory_limit > limit:
        asked = format_size(limits.memory_limit)
        progress.warn(f"--memory-limit is {asked}, but {model.device} has {format_size(limit)} to give")
    if model.device.type == "cpu":
        budget = Budget(limit, beside.fixed, beside.per_frame, places=("device", "disk"))
    else:
        host = obtainable(torch.device("cpu"))
        budget = Budget(limit, fixed=0, per_frame=0, places=("device", "host", "disk"), host=host)
    if model.device.type == "cuda" and limits.memory_limit is not None:
        keep_within(model, limit)
    if isinstance(model, WFVAE) and model.streams:
        plan = make_plan(model, frames, height, width, budget, sparing=limits.sparing)
        progress.note(
            f"tiles of {scale * plan.tile} pixels, windows of {plan.window} frames, state {WHERE[plan.state]},"
            f" about {format_size(plan.peak)} on {model.device}"
        )
        keep_freed(model, limits, plan.peak, limit)
        store = OnDisk() if plan.state == "disk" else InMemory(torch.device("cpu") if plan.state == "host" else None)
        return Tiles(model, plan.tile, store), plan.window
    stages = plan_stages(model, frames, height, width, budget, sparing=limits.sparing)
    progress.note(
        f"this model looks at the whole clip: {stages.rehearsed.stages} stages, the clip between them"
        f" {WHERE[stages.place]}, about {format_size(stages.peak)} on {model.device}"
    )
    keep_freed(model, limits, stages.peak, limit)
    return WholeClip(model, stages, progress.status), stages.window


def keep_within(model: AnyVAE, limit: int) -> None:
    """Have PyTorch refuse what goes beyond the limit on a GPU: cuDNN then takes less scratch space, and gaps are freed.

    What others hold there, such as the networks of metrics, is not counted.
    """
    others = torch.cuda.memory_allocated(model.device) - sum(weight.nbytes for weight in model.parameters())
    total = torch.cuda.mem_get_info(model.device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (limit + max(0, others)) / total), model.device)


def keep_freed(model: AnyVAE, limits: Limits, peak: int = 0, limit: int = 0) -> None:
    """Keep freed blocks for reuse, which is fast, up to a size: there are gaps between them.

    Small ones only where the limit has no room for gaps, and where fetching memory is little beside what is computed.
    On a GPU that is PyTorch's own business.
    """
    if model.device.type != "cpu":
        return
    if limits.sparing or limit < GAPS * peak:
        reuse_freed(2**23)
    elif sum(weight.numel() for weight in model.parameters()) >= LARGE_NETWORK:
        reuse_freed(2**24)
    else:
        reuse_freed()


GAPS = 1.5
"""The most that a process may come to hold, as a multiple of what it uses at a time."""
LARGE_NETWORK = 50_000_000
"""Parameters."""


def through_model(
    model: AnyVAE, runner: Runner, originals: Iterator[Tensor], generator: torch.Generator | None, source: Path
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Batches of 8-bit frames (T, 3, H, W) with what became of them; the batches may be cut anew."""
    waiting = Waiting(on_disk=isinstance(runner, WholeClip) and runner.plan.place == "disk")

    def inputs() -> Iterator[Tensor]:
        for frames in originals:
            waiting.put(frames)
            yield frames[None]

    for result in _pieces(model, runner, inputs(), generator, source):
        yield waiting.take(result.shape[1]), result[0]


class Waiting:
    """8-bit frames (T, 3, H, W) that wait for what becomes of them, in order; in memory or in a temporary file."""

    def __init__(self, *, on_disk: bool) -> None:
        self._spool = Spool() if on_disk else None
        self._frames: deque[Tensor] = deque()
        """Those in memory."""
        self._put = self._taken = 0
        """Bytes of the file."""
        self._shape = torch.Size()

    def put(self, frames: Tensor) -> None:
        if self._spool is None:
            self._frames.extend(frames)
        else:
            self._spool.write(self._put, frames.contiguous())
            self._put += frames.nbytes
            self._shape = frames.shape[1:]

    def take(self, count: int) -> Tensor:
        """The next `count` of them."""
        if self._spool is None:
            return torch.stack([self._frames.popleft() for _ in range(count)])
        frames = torch.empty((count, *self._shape), dtype=torch.uint8)
        self._spool.read(self._taken, frames)
        self._taken += frames.nbytes
        return frames


def reconstruct_frames(
    model: AnyVAE,
    frames_BT3HW: Tensor,
    source: Path,
    limits: Limits,
    beside: Beside,
    progress: Progress,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Clips of one size, (B, T, 3, H, W) uint8, through the model and back: the same shape and type, on the CPU.

    With a `generator` latents are drawn from the posterior, else its mean is taken. The frames of one clip alone are
    always the same ones; several at once may differ from them by rounding. `source` is named in errors: VaectlError for
    NaN and infinity, `OutOfMemoryError` where memory is short.
    """
    _, frames, _, height, width = frames_BT3HW.shape
    noise = generator.get_state() if generator else None

    def attempt(limits: Limits) -> Tensor:
        if generator and noise is not None:
            generator.set_state(noise)  # a second attempt draws what the first one has drawn
        runner, window = how_to_run(model, frames, width, height, limits, beside, progress)
        pieces = (frames_BT3HW[:, first : first + window] for first in range(0, frames, window))
        return torch.cat(list(_pieces(model, runner, pieces, generator, source)), dim=1)

    return within_memory(attempt, model, limits, progress)


def _pieces(
    model: AnyVAE, runner: Runner, pieces_BT3HW: Iterator[Tensor], generator: torch.Generator | None, source: Path
) -> Iterator[Tensor]:
    """What became of the pieces of clips, (B, T, 3, H, W) uint8 each, on the CPU; they may be cut anew."""

    def videos() -> Iterator[Tensor]:
        for frames in pieces_BT3HW:
            placed = frames.to(model.device) if isinstance(runner, WholeFrames) else frames
            yield batch_to_video(placed)

    with _memory_errors_told(source, model.device):
        for video in reconstruct_pieces(model, videos(), runner, sample=generator is not None, generator=generator):
            if not video.isfinite().all():
                raise VaectlError(
                    f"{source}: the model gave NaN or infinity; use --dtype float32, or another checkpoint"
                )
            frames = batch_to_frames(video).cpu()
            del video
            return_freed()
            yield frames


LESS = "use --enable-tiling with a smaller --memory-limit, or smaller frames"


@contextmanager
def _memory_errors_told(source: object, device: torch.device, remedy: str = LESS) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_memory_shortage(error):
            raise
        raise OutOfMemoryError(f"{source}: out of memory on {device}; {remedy}") from None
