"""What several benchmarks share: the published models, what is run, and how it is timed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vaectl.geometry import latent_frames
from vaectl.models.config import WFVAEConfig
from vaectl.models.context import StreamContext
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.vae import AnyVAE
from vaectl.tiling.executor import Cut
from vaectl.tiling.plan import Plan, both_sides
from vaectl.tiling.storage import Place
from vaectl.tiling.stream import reconstruct_windows

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import straightforward

Shape = tuple[int, int, int]
"""Frames, height and width of a clip."""

WF_VAE_S = WFVAEConfig(
    latent_dim=4,
    base_channels=128,
    encoder_energy_flow_hidden_size=128,
    norm_type="layernorm",
    t_interpolation="trilinear",
)
WF_VAE_L = WF_VAE_S.model_copy(update={"base_channels": 192})


def run_of(model: WFVAE, job: str, *, plain: bool) -> Callable[[Tensor], Tensor]:
    """From video to moments, or from latent to video; `plain` takes the straightforward formulation."""
    if not plain:
        network = model.run_encoder if job == "encode" else model.run_decoder
        return lambda x: network(model.prepare(x), StreamContext())[0]
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    formula = straightforward.encode if job == "encode" else straightforward.decode
    return lambda x: formula(weights, model.config, x)[0]


def input_of(model: WFVAE, job: str, shape: Shape) -> Tensor:
    """Random numbers in [-1, 1], always the same ones, for that job on a clip of that shape."""
    frames, height, width = shape
    size = (1, 3, frames, height, width)
    if job == "decode":
        length = latent_frames(frames, model.config.time_compression)
        size = (1, model.config.latent_dim, length, height // 8, width // 8)
    x = torch.rand(size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x.to(model.device, model.dtype)


def plan_of(model: AnyVAE, clip_BCTHW: Tensor, tile: int, window: int, place: Place = "device") -> Plan:
    """Tiles of at most that many latent positions each way, windows of that many frames; for every group."""
    frames, *sides = clip_BCTHW.shape[2:]
    height, width = (side + -side % model.config.space_compression for side in sides)
    encoder, decoder = (
        tuple(Cut(tile, window) for _ in side.groups) for side in both_sides(model, frames, height, width)
    )
    return Plan((frames, height, width), window, place, encoder, decoder)


def in_windows(model: AnyVAE, clip_BCTHW: Tensor, window: int, plan: Plan | None = None) -> Tensor:
    """The clip, given in windows of that many frames, through the model and back; without a plan in whole frames."""
    return torch.cat([*reconstruct_windows(model, clip_BCTHW.split(window, dim=2), plan)], dim=2)


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(works: Sequence[Callable[[], object]], device: torch.device, turns: int = 3) -> list[float]:
    """The best time of each in seconds. They take turns: what else slows the machine slows all of them alike.

    Run each once before, where a first run takes longer.
    """
    best = [float("inf")] * len(works)
    for _ in range(turns):
        for i, work in enumerate(works):
            synchronize(device)
            begun = time.perf_counter()
            work()
            synchronize(device)
            best[i] = min(best[i], time.perf_counter() - begun)
    return best


def in_another_process(*arguments: str) -> float:
    """This benchmark's output of one number, asked for with other arguments."""
    command = [sys.executable, *sys.argv, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
