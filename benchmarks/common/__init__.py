"""Helpers of the benchmarks: published models, jobs, and timing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vaectl.geometry import latent_frames
from vaectl.models.config import WFVAEConfig
from vaectl.models.context import StreamContext
from vaectl.models.families.wfvae import WFVAE

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import straightforward

Shape = tuple[int, int, int]
"""Number of frames, height and width of a clip."""


def shape(text: str) -> Shape:
    """Parse a shape such as 17x128x128."""
    frames, height, width = map(int, text.split("x"))
    return frames, height, width


def text_of(clip: Shape) -> str:
    return "x".join(map(str, clip))


WF_VAE_S = WFVAEConfig(
    latent_dim=4,
    base_channels=128,
    encoder_energy_flow_hidden_size=128,
    norm_type="layernorm",
    t_interpolation="trilinear",
)
WF_VAE_L = WF_VAE_S.model_copy(update={"base_channels": 192})


def run_of(model: WFVAE, job: str, *, plain: bool) -> Callable[[Tensor], Tensor]:
    """Encode video to moments, or decode a latent to video; `plain` uses the straightforward formulation."""
    if not plain:
        side = model.run_encoder if job == "encode" else model.run_decoder
        return lambda x: side(model.prepare(x), StreamContext())[0]
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    formula = straightforward.encode if job == "encode" else straightforward.decode
    return lambda x: formula(weights, model.config, x)[0]


def input_of(model: WFVAE, job: str, shape: Shape) -> Tensor:
    """Return fixed random numbers in [-1, 1], as the input of a job on a clip of this shape."""
    frames, height, width = shape
    size = (1, 3, frames, height, width)
    if job == "decode":
        length = latent_frames(frames, model.config.time_compression)
        size = (1, model.config.latent_dim, length, height // 8, width // 8)
    x = torch.rand(size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x.to(model.device, model.dtype)


def flops(work: Callable[[], object]) -> int:
    """Count the operations of convolutions, products and attention; a multiplication and an addition count as two."""
    # With gradients, convolutions run directly; without, wide ones use fewer operations, which are not counted.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def synchronize(device: torch.device) -> None:
    """Wait until the GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(
    works: Sequence[Callable[[], object]],
    device: torch.device,
    turns: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Return the best time of each in seconds. They run in turns, so that other load slows all of them equally.

    Run each once before, if a first run takes longer.
    """
    return [min(seconds) for seconds in all_turns(works, device, turns, clock)]


def all_turns(
    works: Sequence[Callable[[], object]],
    device: torch.device,
    turns: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Return the times of each in seconds, one for each turn."""
    seconds: list[list[float]] = [[] for _ in works]
    for _, (work, taken) in product(range(turns), zip(works, seconds, strict=True)):
        synchronize(device)
        begun = clock()
        work()
        synchronize(device)
        taken.append(clock() - begun)
    return seconds


def reset_peak() -> None:
    """Let `vaectl.memory.peak` begin again on the CPU. Only Linux can; elsewhere, building the model counts too."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def in_another_process(*arguments: str) -> float:
    """Run this benchmark in a new process with other arguments; return the number that it prints."""
    command = [sys.executable, *sys.argv, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
