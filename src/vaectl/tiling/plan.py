"""Choose tiles, windows, and the place of waiting values, so that a model stays within a memory limit.

A plan depends only on the limit, the model and the shapes: the same run gets the same plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from vaectl.errors import UsageError, VaectlError
from vaectl.geometry import latent_frames
from vaectl.io.spill_file import check_spill_room
from vaectl.memory import format_limit, format_size
from vaectl.models.config import FamilyConfig
from vaectl.models.vae import AnyVAE
from vaectl.tiling.executor import Cut
from vaectl.tiling.storage import Place
from vaectl.tiling.trace import Side

MEMORY_RESERVE = 1.1
"""Memory to reserve, as a ratio to the bytes of tensors: for scratch space of kernels and gaps between allocations."""
WINDOW_PIXELS = 1 << 19
"""Pixels in a window of a run without tiles: 8 frames of 256x256. Longer windows are no faster and take more memory."""
GPU_WINDOW_PIXELS = 1 << 21
"""The same on a GPU: 32 frames of 256x256. Short windows are slower there: see `LAUNCH_PIXELS`."""
LAUNCH_PIXELS = 1 << 20
"""Pixels that a GPU computes while the host launches the kernels of a tile: 11 ms on an H200, where 4 frames of 256x256
took as long as 13."""
TILE_BYTES, SMALL_TILE_BYTES = 2**28, 2**26
"""Bytes of the largest tile of a model that does not stream, and with low memory. Larger ones are no faster on CPUs."""
LOW_MEMORY_SLOWDOWN = 2.0
"""Maximum time of a plan with low memory, as a ratio to the fastest plan."""
HARDLY_MORE = 1.1
"""Peak of a plan with low memory, as a ratio to the smallest one: the fastest plan below this is used."""
MEAN_HALO = 0.4
"""Width of the halo that a layer computes, as a ratio to the halo of the tile: the mean, weighted by cost."""
SLOWDOWN: dict[Place, float] = {"device": 1.0, "host": 1.2, "disk": 1.5}
"""Time of a run whose caches wait there, as a ratio to one whose caches wait on the device."""


@dataclass(frozen=True)
class Budget:
    """The limit, and what a clip takes of it in addition to the network, in bytes."""

    limit: int
    fixed: int
    per_frame: int
    """For each frame of a window."""
    places: tuple[Place, ...]
    """Where caches and values may wait, the fastest first."""
    host: int = 0
    """Memory of the host, if it is one of the places."""


@dataclass(frozen=True)
class Plan:
    """How to run a clip through both networks."""

    size: tuple[int, int, int]
    """Frames, height and width of the clip."""
    window: int
    """Frames to pass at a time."""
    place: Place
    """Where causal caches and values of the clip wait."""
    encoder: tuple[Cut, ...]
    """For each group."""
    decoder: tuple[Cut, ...]
    peak: int = 0
    """Estimated peak memory on the model's device, in bytes."""


@dataclass(frozen=True)
class PlanEstimate:
    """The memory of a plan."""

    peak: int
    """Peak memory on the model's device, in bytes."""
    waiting: int
    """Bytes of values and caches that wait, on the device or elsewhere."""
    largest: int
    """Values in the largest tensor."""


def both_sides(model: AnyVAE, num_frames: int, height: int, width: int, window: int = 0) -> tuple[Side, Side]:
    """Describe the encoder and the decoder for a clip. `window`: frames of the windows that are given, if known.

    Raises UsageError for a compiled model: its layers are fused, and may need more memory.
    """
    if model.compiled:
        raise UsageError("tiles and memory limits need a model that is not compiled", "leave out `compile`")
    config, stride, scale = model.config, model.config.time_compression, model.config.space_compression
    padded, rows, columns = num_frames + (1 - num_frames) % stride, -(-height // scale), -(-width // scale)
    pictures, latents = given_windows(num_frames, window, stride) if window else ((), ())
    video = torch.Size((1, model.in_channels, padded, scale * rows, scale * columns))
    latent = torch.Size((1, config.latent_channels, latent_frames(padded, stride), rows, columns))
    encoder = Side(type(model), config, model.dtype, "encoder", model.device.type == "cpu", video, pictures)
    return encoder, replace(encoder, name="decoder", x=latent, given=latents if model.streams else ())


def given_windows(num_frames: int, window: int, stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the frames and the latent frames of the windows that may differ in cost: the first four and the last.

    The first window makes fewer frames than the next, because each up-sampling in time holds back the newest. If a
    window has one latent frame and the model two or three such layers, so does the second, and only the third leaves a
    full cache. The last window also gives the frames held back, and is padded to what the model takes.
    """
    padded, latent_window = num_frames + (1 - num_frames) % stride, window // stride
    before_last = -(-num_frames // window) - 1
    first = min(before_last, 4)
    last, last_latent = padded - before_last * window, latent_frames(padded, stride) - before_last * latent_window
    return (*[window] * first, last), (*[latent_window] * first, last_latent)


def uniform_plan(
    model: AnyVAE, num_frames: int, height: int, width: int, tile: int, window: int, place: Place = "device"
) -> Plan:
    """Return a plan with the same tiles and windows for all groups. `tile`: latent positions."""
    size = (num_frames, height, width)
    encoder, decoder = ((Cut(tile, window),) * len(side.groups) for side in both_sides(model, *size))
    return Plan(size, window, place, encoder, decoder)


def make_plan(
    model: AnyVAE, num_frames: int, height: int, width: int, budget: Budget, *, low_memory: bool = False
) -> Plan:
    """Return the plan with the lowest estimated time for a clip of that many frames and pixels within the budget.

    `low_memory`: use as little memory as possible within `LOW_MEMORY_SLOWDOWN` times the fastest time; for a model that
    does not stream, use small tiles, and keep nothing on the device between groups. Raises UsageError with the smallest
    sufficient limit if no plan fits, and VaectlError if the disk is too small.
    """
    candidates, size = (streaming_plans if model.streams else whole_clip_plans), (num_frames, height, width)
    least, full_disk = math.inf, None
    for plan in candidates(model, size, budget, low_memory):
        needs = needed(model, plan, budget)
        least = min(least, needs.peak)
        fits = needs.peak <= budget.limit and (plan.place != "host" or needs.waiting <= budget.host)
        if not fits or (model.device.type != "cpu" and needs.largest >= 2**31):  # kernels count in 32 bits
            continue
        if plan.place == "disk":
            try:
                check_spill_room(needs.waiting)
            except VaectlError as error:
                full_disk = error  # the next plan may need less, or none
                continue
        return replace(plan, peak=needs.peak)
    if full_disk is not None:
        raise full_disk
    raise UsageError(
        f"`memory_limit={format_limit(budget.limit)}` is too small for {width}x{height} pixels",
        f"give at least {format_size(math.ceil(least), at_least=True)}",
    )


def needed(model: AnyVAE, plan: Plan, budget: Budget) -> PlanEstimate:
    """Estimate the memory of a plan."""
    sides = both_sides(model, *plan.size, plan.window)
    costs = [
        [side.estimate(number, cut) for number, cut in enumerate(cuts)]
        for side, cuts in zip(sides, (plan.encoder, plan.decoder), strict=True)
    ]
    on_device = plan.place == "device"
    every = costs[0] + costs[1]
    if model.streams:  # the caches of both networks wait at the same time
        kept, state = 0, sum(cost.state for cost in every)
        tensors = max(cost.peak for cost in every) + on_device * state
    else:
        kept, state = waiting_bytes(sides), max(cost.state for cost in every)
        tensors = max(cost.peak + on_device * cost.state for cost in every)
    fixed = budget.fixed + plan.window * budget.per_frame + sides[0].weight_bytes
    peak = fixed + on_device * kept + round(MEMORY_RESERVE * tensors)
    return PlanEstimate(peak, kept + state, max(cost.largest for cost in every))


def waiting_bytes(sides: tuple[Side, Side]) -> int:
    """Return the bytes that wait between groups: values, and the 8-bit originals until they are reconstructed."""
    return max(side.kept() for side in sides) + math.prod(sides[0].x)


def streaming_plans(model: AnyVAE, size: tuple[int, int, int], budget: Budget, low_memory: bool) -> list[Plan]:
    """List plans for a model that streams, the fastest first: one group on each side, both with the same tiles."""
    num_frames, sides = size[0], both_sides(model, *size)
    whole = max(sides[0].latent)
    reach = MEAN_HALO * sum(max(part.reach for part in side.groups[0].parts) for side in sides) / len(sides)
    lengths = [model.config.time_compression * 2**i for i in range(3)]  # longer ones are no faster
    if num_frames <= lengths[-1] + 1:
        lengths = [*(window for window in lengths if window < num_frames), num_frames]
    slowdown: dict[Plan, float] = {}
    gpu, scale = model.device.type != "cpu", model.config.space_compression
    for tile in (*(tile for tile in (4, 8, 12, 16, 24, 32, 48, 64, 96, 128) if tile < whole), whole):
        computed = computed_positions(sides[0].latent, tile, reach)
        for window in lengths:
            for place in budget.places if window < num_frames else budget.places[:1]:
                plan = uniform_plan(model, *size, tile, window, place)
                launches = LAUNCH_PIXELS / (window * math.prod(min(tile, side) * scale for side in sides[0].latent))
                slowdown[plan] = computed * (1 + 1 / window) * SLOWDOWN[place] * (max(1.0, launches) if gpu else 1.0)
    plans = sorted(slowdown, key=lambda plan: slowdown[plan])
    if low_memory:
        bearable = [plan for plan in plans if slowdown[plan] <= LOW_MEMORY_SLOWDOWN * slowdown[plans[0]]]
        bearable.sort(key=lambda plan: (-plan.window, -plan.encoder[0].tile))
        smallest = {plan.place: plan for plan in bearable}
        least = min(needed(model, plan, budget).peak for plan in smallest.values())
        enough = next(plan for plan in plans if needed(model, plan, budget).peak <= HARDLY_MORE * least)
        plans = [enough, *(plan for plan in plans if plan is not enough)]  # few traces: each takes time
    return plans


def whole_clip_plans(model: AnyVAE, size: tuple[int, int, int], budget: Budget, low_memory: bool) -> Iterator[Plan]:
    """Yield plans for a model that needs the whole clip, the fastest first. Tiles and windows differ by group."""
    num_frames, height, width = size
    window = min(num_frames, max(1, WINDOW_PIXELS // (height * width)))
    sides = both_sides(model, *size, window)
    fixed = budget.fixed + window * budget.per_frame + sides[0].weight_bytes

    def plan(place: Place, most: int) -> Plan:
        """Return the plan with the fastest cuts of at most `most` bytes, else the smallest."""
        encoder, decoder = (
            tuple(fastest_cut(side, number, window, most, place) for number in range(len(side.groups)))
            for side in sides
        )
        return Plan(size, window, place, encoder, decoder)

    for place in budget.places:
        room = round((budget.limit - fixed - (place == "device") * waiting_bytes(sides)) / MEMORY_RESERVE)
        if place != "device" or place == budget.places[-1] or (room >= SMALL_TILE_BYTES and not low_memory):
            yield plan(place, min(room, SMALL_TILE_BYTES if low_memory else TILE_BYTES))


def fastest_cut(side: Side, number: int, window: int, most: int, place: Place) -> Cut:
    """Return the fastest cut of a group of at most `most` bytes, else the smallest. `window`: frames of the video."""
    group, num_frames, whole = side.groups[number], side.input(number).shape[2], max(side.latent)
    if group.first.sees == "clip":
        frame = side.input(number).nbytes // num_frames
        return Cut(whole, max(1, min(num_frames, most // (3 * frame))))
    longest = num_frames
    if side.name == "decoder" and number == len(side.groups) - 1:  # as few frames come out as a window has
        longest = max(1, window * num_frames // side.outputs[-1][0].shape[2])
    lengths = [length for length in (longest, 8, 4, 2, 1) if length <= longest]
    if side.name == "encoder" and number == 0:
        lengths = [window]
    tiles = [-(-whole // 2**i) for i in range((whole - 1).bit_length() + 1)]
    if all(part.whole_frames for part in group.parts):
        tiles = [whole]
    reach = max(part.reach for part in group.parts)
    frame_bytes = side.bytes_per_frame(number)

    def overhead(cut: Cut) -> float:
        """Return a cost from the positions computed twice and the frames that windows keep for the next."""
        return computed_positions(side.latent, cut.tile, reach) * (1 + (cut.window < num_frames) / cut.window)

    def fits(cut: Cut) -> bool:
        share = math.prod(min(1.0, cut.tile / size) for size in side.latent)
        if share * cut.window * frame_bytes > most:  # its inputs and outputs alone: no need for a trace
            return False
        cost = side.estimate(number, cut)
        return cost.peak + (place == "device") * cost.state <= most

    cuts = [Cut(tile, length) for tile in tiles for length in lengths]
    return next(filter(fits, sorted(cuts, key=overhead)), cuts[-1])


def computed_positions(latent: tuple[int, int], tile: int, reach: float) -> float:
    """Return the positions that are computed in tiles with a halo of `reach`, as a ratio to those without tiles."""
    return math.prod(1 + reach * 2 * (-(-size // tile) - 1) / size for size in latent)


def window_frames(config: FamilyConfig, height: int, width: int, device: torch.device) -> int:
    """Return how many frames of a size to pass to a model at a time: a multiple of its compression in time."""
    pixels = GPU_WINDOW_PIXELS if device.type == "cuda" else WINDOW_PIXELS
    return config.time_compression * max(1, pixels // (config.time_compression * height * width))
