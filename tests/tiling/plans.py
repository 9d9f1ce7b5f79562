"""Plans made by hand, and clips through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from vaectl.models.vae import AnyVAE
from vaectl.tiling.executor import Cut, Executor
from vaectl.tiling.plan import Plan, both_sides, fastest_cut, uniform_plan
from vaectl.tiling.storage import Place
from vaectl.tiling.stream import mark_last, reconstruct_windows
from vaectl.tiling.trace import Side

Choose = Callable[[Side, int], Cut]
"""The cut of the group with that number."""


def plan_of(model: AnyVAE, clip_BCTHW: Tensor, choose: Choose, place: Place = "device") -> Plan:
    """Plan for a clip, with the cut that `choose` gives for each group."""
    num_frames, height, width = clip_BCTHW.shape[2:]
    size = (num_frames, height, width)
    encoder, decoder = (
        tuple(choose(side, number) for number in range(len(side.groups))) for side in both_sides(model, *size)
    )
    return Plan(size, num_frames, place, encoder, decoder)


def tiled(model: AnyVAE, clip_BCTHW: Tensor, tile: int, place: Place = "device") -> Plan:
    """Plan for a clip in tiles of at most `tile` latent positions; groups after the first use windows of two."""
    return uniform_plan(model, *clip_BCTHW.shape[2:], tile, 2, place)


def within(most: int, place: Place, num_frames: int) -> Choose:
    """Choose the fastest cut of at most that many bytes, else the smallest. `num_frames`: of a window of the video."""

    def choose(side: Side, number: int) -> Cut:
        return fastest_cut(side, number, num_frames, most, place)

    return choose


def by_windows(executor: Executor, x_BCTHW: Tensor, lengths: Sequence[int]) -> Tensor:
    """Run a clip in windows of these lengths, and join the results."""
    return torch.cat([*executor.run(mark_last(x_BCTHW.split([*lengths], dim=2)))], dim=2)


def through(model: AnyVAE, clip_BCTHW: Tensor, lengths: Iterable[int], plan: Plan | None) -> Tensor:
    """Reconstruct a clip in windows of these lengths."""
    windows = clip_BCTHW.split([*lengths], dim=2)
    return torch.cat([*reconstruct_windows(model, windows, plan)], dim=2)
