"""How to run a model that looks at the whole clip within a memory limit, and the `Runner` that does so."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

from vaectl.errors import UsageError, VaectlError
from vaectl.memory import format_size
from vaectl.models.config import CausalVAEConfig, WFVAEConfig
from vaectl.models.streaming import PIECE_PIXELS
from vaectl.models.vae import AnyVAE
from vaectl.tiling.plan import SLACK, Budget, Place
from vaectl.tiling.rehearsal import Rehearsal
from vaectl.tiling.stages import Stages, Step, windows
from vaectl.tiling.storage import InMemory, Keep, OnDisk, Stored
from vaectl.tiling.store import spool_folder
from vaectl.tiling.trace import twin, weight_bytes


@dataclass(frozen=True)
class Rehearsed:
    """What a clip through a model takes, in bytes."""

    encoder: tuple[Step, ...]
    decoder: tuple[Step, ...]
    peak: int
    """Of the costliest piece of a stage."""
    kept: int
    """Between stages, at most at a time."""

    @property
    def stages(self) -> int:
        return len(self.encoder) + len(self.decoder)


def rehearse(model: AnyVAE, frames: int, height: int, width: int, most: int) -> Rehearsed:
    """A clip of sizes that the model takes, in pieces of at most `most` bytes where that can be."""
    return _rehearse(model.config, model.dtype, frames, height, width, most)


@lru_cache(maxsize=64)  # clips of one folder often have one size
def _rehearse(
    config: WFVAEConfig | CausalVAEConfig, dtype: torch.dtype, frames: int, height: int, width: int, most: int
) -> Rehearsed:
    without_weights = twin(config, dtype)
    rows, columns = height // config.space_compression, width // config.space_compression
    latents = 1 + (frames - 1) // config.time_compression
    encoding, decoding = Rehearsal(rows, most), Rehearsal(rows, most)
    without_weights.encode_piece(encoding.hold((1, 3, frames, height, width), dtype), encoding)
    without_weights.decode_piece(decoding.hold((1, config.latent_channels, latents, rows, columns), dtype), decoding)
    return Rehearsed(
        tuple(encoding.steps),
        tuple(decoding.steps),
        max(encoding.peak, decoding.peak),
        max(encoding.kept, decoding.kept),
    )


@dataclass(frozen=True)
class StagePlan:
    """How a clip goes through the stages."""

    shape: tuple[int, int, int]
    """Frames, height and width, filled up to what the model takes."""
    window: int
    """Frames to hand over at a time."""
    place: Place
    """Where clips wait between stages."""
    rehearsed: Rehearsed
    peak: int
    """Expected bytes at most, on the model's device."""


PIECE_BYTES = 2**28
"""Larger pieces are no faster on the CPU."""
SMALL_PIECE_BYTES = 2**26


def plan_stages(
    model: AnyVAE, frames: int, height: int, width: int, budget: Budget, *, sparing: bool = False
) -> StagePlan:
    """The fastest way to run a clip of that many frames and pixels within the budget.

    `sparing`: small pieces, and nothing kept on the device between stages. Raises UsageError if the limit is too small,
    with the least that would do, and VaectlError if what has to wait on disk does not fit there.
    """
    stride = model.config.time_compression
    shape = (1 + -(-(frames - 1) // stride) * stride, height, width)
    window = min(frames, max(1, PIECE_PIXELS // (height * width)))
    # Kernels may want the weights of a layer in an order of their own.
    weights = weight_bytes(model.config, model.dtype) + max(weight.nbytes for weight in model.parameters())
    fixed = budget.fixed + window * budget.per_frame + weights
    least = rehearse(model, *shape, 0)
    # Beside what is kept between stages, the 8-bit frames wait for what becomes of them.
    waiting = least.kept + 3 * math.prod(shape)
    kept = {"device": waiting, "host": 0, "disk": 0}
    room = {place: round((budget.limit - fixed - kept[place]) / SLACK) for place in budget.places}

    if room["device"] >= max(least.peak, SMALL_PIECE_BYTES) and not sparing:
        place: Place = "device"
    elif "host" in budget.places and waiting <= budget.host:
        place = "host"
    else:
        place = "disk"
    if room[place] < least.peak:
        raise UsageError(
            f"--memory-limit {format_size(budget.limit)} is too small for {width}x{height} pixels:"
            f" give at least {format_size(fixed + math.ceil(SLACK * least.peak), at_least=True)}"
        )
    if place == "disk":
        check_disk(waiting)
    most = min(room[place], SMALL_PIECE_BYTES if sparing else PIECE_BYTES)
    rehearsed = rehearse(model, *shape, max(most, least.peak))
    return StagePlan(shape, window, place, rehearsed, fixed + kept[place] + round(SLACK * rehearsed.peak))


def check_disk(size: int) -> None:
    folder = spool_folder()
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise VaectlError(f"{folder}: {error.strerror}; set TMPDIR to a folder with room") from None
    if free < size:
        raise VaectlError(
            f"{folder}: has {format_size(free)} free, and the clip takes {format_size(size)} between the stages of this"
            " model; set TMPDIR to another folder, take fewer --num-frames, or raise --memory-limit"
        )


class WholeClip:
    """Runs one clip through a model stage by stage. A `Runner` of `models.streaming`.

    Takes all of the clip in before it gives anything.
    """

    def __init__(self, model: AnyVAE, plan: StagePlan, tell: Callable[[str], None] = lambda _: None) -> None:
        """`tell` hears at which stage the clip is."""
        self.model = model
        self.plan = plan
        self._tell = tell
        self._clip: Stored | None = None
        self._frames = 0

    def encode(self, x_BCTHW: Tensor, *, last: bool) -> Tensor:
        """Moments of the whole clip once its last piece is there, before that of no frames."""
        b, c, t, h, w = x_BCTHW.shape
        if self._clip is None:
            self._clip = self._store((b, c, *self.plan.shape))
        self._clip.write(self._frames, 0, x_BCTHW.permute(0, 2, 3, 4, 1).to(self.model.dtype).contiguous())
        self._frames += t
        rows, columns = h // self.model.config.space_compression, w // self.model.config.space_compression
        if not last:
            return x_BCTHW.new_empty((b, 2 * self.model.config.latent_channels, 0, rows, columns))
        if (self._frames, h, w) != self.plan.shape:
            raise ValueError(f"planned for frames, height and width {self.plan.shape}, got {(self._frames, h, w)}")
        clip, self._clip, self._frames = self._clip, None, 0
        stages = self._stages(0, self.plan.rehearsed.encoder, rows)
        moments = cast(Stored, self.model.encode_piece(clip, stages))
        return moments.read(slice(0, moments.shape[2]), slice(0, rows)).to(self.model.device)

    def decode(self, z_BCTHW: Tensor, *, last: bool) -> Iterable[Tensor]:
        """The frames of the whole clip once its last latent frame is there, `plan.window` at a time."""
        if not last:
            return ()
        clip = self._store(z_BCTHW.shape)
        clip.write(0, 0, z_BCTHW.permute(0, 2, 3, 4, 1).to(self.model.dtype).contiguous())
        stages = self._stages(len(self.plan.rehearsed.encoder), self.plan.rehearsed.decoder, z_BCTHW.shape[3])
        video = cast(Stored, self.model.decode_piece(clip, stages))
        rows = slice(0, video.shape[3])
        return (video.read(frames, rows).cpu() for frames in windows(video.shape[2], self.plan.window))

    def _stages(self, done: int, steps: tuple[Step, ...], rows: int) -> Stages:
        def told() -> Iterator[Step]:
            for number, step in enumerate(steps, done + 1):
                self._tell(f"stage {number} of {self.plan.rehearsed.stages}")
                yield step

        return Stages(told(), rows, self.model.device, self._keep())

    def _store(self, shape: tuple[int, ...]) -> Stored:
        return Stored(shape, self.model.dtype, self._keep())

    def _keep(self) -> Keep:
        if self.plan.place == "disk":
            return OnDisk
        device = self.model.device if self.plan.place == "device" else torch.device("cpu")
        return lambda count, dtype: InMemory(count, dtype, device)
