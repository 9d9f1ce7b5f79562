"""Check that memory limits hold and frames stay the same, and that a run recovers if memory is less than planned."""

from __future__ import annotations

import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import synchronize
from gpu_steps.context import Context, Values, free_memory, peak_gib
from gpu_steps.models import reference_model, wfvae
from vaectl.engine import HostOverhead, process_memory, reconstruct_frames
from vaectl.memory import Limits, format_size, obtainable
from vaectl.models.vae import AnyVAE
from vaectl.progress import Silent

LIMITS = (2, 4, 8)
"""GiB, for 17 frames of 1280x720 through WF-VAE-S."""
TINY_ROOM = (0.4, 0.6, 0.8)
"""GiB beyond the memory of the process itself. Its peak only grows, so the smallest limit comes first."""


AGAIN = "retrying within"
"""Part of the note with which the engine reports that memory ran out."""


class Listener(Silent):
    """Records notes and warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(message)


def run(context: Context) -> None:
    frames = noise(5, 64, 96) if context.tiny else noise(17, 720, 1280)
    check = partial(context.case, must_fit=True)
    dtype = torch.bfloat16 if context.bfloat16 else torch.float32
    limits = [round(process_memory() / 2**30 + room, 2) for room in TINY_ROOM] if context.tiny else LIMITS

    @cache
    def model() -> AnyVAE:
        return wfvae("S", context, torch.float32 if context.tiny else dtype)

    for limit in limits:
        if obtainable(context.device) < limit * 2**30:
            context.leave_out(f"limit of {limit} GiB", "the device has less free memory")
        else:
            check(f"limit of {limit} GiB", lambda limit=limit: within(context, model(), frames, limit))
    context.case("no limit, whole frames", lambda: measured(context, model(), frames, Limits())[1])
    context.case("frames of a limited run", lambda: same_frames(context, model(), frames, limits[0]))
    check("--save-memory", lambda: measured(context, model(), frames, Limits(tiled=True, low_memory=True))[1])
    if context.device.type == "cuda":
        check("less memory than planned for", lambda: recovery(context, model(), frames))
    else:
        context.leave_out("less memory than planned for", "the CPU's memory cannot be taken from other processes")
    check("CausalVAE v1.2, narrow, group by group", lambda: causalvae(context))


def noise(frames: int, height: int, width: int) -> Tensor:
    size = (1, frames, 3, height, width)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def measured(context: Context, model: AnyVAE, frames: Tensor, limits: Limits) -> tuple[Tensor, Values]:
    """Reconstruct a clip: the frames (1, T, 3, H, W), and time and memory."""
    listener = Listener()
    height, width = frames.shape[3:]
    overhead = HostOverhead.of(stored=height * width, frame=height * width, shown=height * width)
    free_memory(context.device)
    begun = time.perf_counter()
    try:
        made = reconstruct_frames(model, frames, Path("clip"), limits, overhead, listener)
        synchronize(context.device)
        values = {"seconds": time.perf_counter() - begun, "peak GiB": peak_gib(context.device)}
    finally:
        if context.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, model.device)  # as before the limit
    return made, values | {"plan": "; ".join(listener.lines)}


def within(context: Context, model: AnyVAE, frames: Tensor, gib: float) -> Values:
    _, values = measured(context, model, frames, Limits(tiled=True, memory_limit=round(gib * 2**30)))
    share = values["peak GiB"] / gib
    return values | {"of the limit": share, "passed": share <= 1 and AGAIN not in values["plan"]}


def same_frames(context: Context, model: AnyVAE, frames: Tensor, gib: float) -> Values:
    """Compare frames. In float32 rounding may change a value by one level of 256; bfloat16 is only reported."""
    made, _ = measured(context, model, frames, Limits(tiled=True, memory_limit=round(gib * 2**30)))
    whole, _ = measured(context, model, frames, Limits())
    difference = (made.int() - whole.int()).abs()
    values: dict[str, Any] = {"levels": difference.max().item(), "share": (difference > 0).float().mean().item()}
    return values | ({"passed": values["levels"] <= 1} if model.dtype == torch.float32 else {})


def recovery(context: Context, model: AnyVAE, frames: Tensor) -> Values:
    """Take memory in another process after planning: the clip is retried once with half the limit."""
    device, limits = context.device, Limits(tiled=True, memory_limit=8 * 2**30)
    _, values = measured(context, model, frames, limits)
    free_memory(device)
    room = round(0.75 * (values["peak GiB"] * 2**30 - torch.cuda.memory_reserved(device)))
    # A plan counts memory that this process has reserved as free, so it does not notice this tensor.
    held = torch.empty(max(0, torch.cuda.mem_get_info(device)[0] - room), dtype=torch.uint8, device=device)
    _, values = measured(context, model, frames, limits)
    del held
    return values | {"passed": AGAIN in values["plan"]}


def causalvae(context: Context) -> Values:
    """Run a model with statistics over the clip, with half of the peak of an untiled run as the limit."""
    frames = noise(5, 32, 32) if context.tiny else noise(33, 256, 256)
    model = reference_model("causalvae_v1_2", context)
    whole, values = measured(context, model, frames, Limits())
    limit = obtainable(context.device) if context.tiny else round(values["peak GiB"] * 2**30 / 2)
    made, values = measured(context, model, frames, Limits(tiled=True, memory_limit=limit))
    difference = (made.int() - whole.int()).abs()
    share = values["peak GiB"] * 2**30 / limit
    passed = difference.max().item() <= 1 and share <= 1 and AGAIN not in values["plan"]
    values |= {"limit": format_size(limit), "of the limit": share, "levels": difference.max().item()}
    return values | {"passed": passed}
