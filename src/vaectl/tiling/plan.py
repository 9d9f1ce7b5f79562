"""How to cut a clip up so that a model stays within a memory limit: tiles, windows, where what waits is kept.

A plan depends on the limit, the model and the shapes alone: the same run gets the same plan.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch

from vaectl.errors import UsageError, VaectlError
from vaectl.geometry import latent_frames
from vaectl.memory import format_size
from vaectl.models.config import FamilyConfig
from vaectl.models.vae import AnyVAE
from vaectl.tiling.executor import Cut
from vaectl.tiling.fusion import Group
from vaectl.tiling.grid import windows
from vaectl.tiling.storage import Place, spill_folder
from vaectl.tiling.trace import MemoryEstimate, Network, estimate, latent_size, meta_groups, weight_bytes

SLACK = 1.1
"""Reserved beyond what tensors take, as a ratio: scratch space of the kernels, gaps between allocations."""
WINDOW_PIXELS = 1 << 19
"""Pixels in a window of a run without tiles: 8 frames of 256x256. Longer ones are no faster and take more memory."""
PIECE_BYTES, SMALL_PIECE_BYTES = 2**28, 2**26
"""Of a tile where the clip waits between groups, at most: larger ones are no faster on the CPU. And with low memory."""
LOW_MEMORY_SLOWDOWN = 2.0
"""How much slower than the fastest plan one with low memory may be, as a ratio."""
MEAN_HALO = 0.4
"""How far the layers' work reaches beyond a tile, as a share of its halo, averaged over the layers by their cost."""
SLOWDOWN: dict[Place, float] = {"device": 1.0, "host": 1.2, "disk": 1.5}
"""Of a run whose caches wait there, as a ratio."""


@dataclass(frozen=True)
class Budget:
    """The limit, and what a clip takes of it next to the network; in bytes."""

    limit: int
    fixed: int
    per_frame: int
    """For each frame of a window."""
    places: tuple[Place, ...]
    """Where something may wait, the fastest first."""
    host: int = 0
    """Of the host's memory, if that is one of the places."""


@dataclass(frozen=True)
class Plan:
    """How a clip goes through both networks."""

    size: tuple[int, int, int]
    """Frames, height and width of the clip."""
    window: int
    """Frames to hand over at a time."""
    place: Place
    """Where causal caches and values of the clip wait."""
    encoder: tuple[Cut, ...]
    decoder: tuple[Cut, ...]
    """For each group."""
    peak: int = 0
    """Expected bytes on the model's device, at most."""


@dataclass(frozen=True)
class Side:
    """One network, and the clip that goes into it: filled up to what the network takes."""

    network: Network
    x: torch.Size
    lengths: tuple[int, ...] = ()
    """Of the windows that are given, those that differ."""

    @property
    def groups(self) -> list[Group]:
        return meta_groups(self.network, self.x)

    @property
    def latent(self) -> tuple[int, int]:
        return latent_size(self.network, self.x)

    def frames(self, number: int) -> int:
        """Of what goes into a group."""
        return self.x[2] if number == 0 else self.kept_before(number)[self.groups[number].first.inputs.split()[0]][2]

    def bytes_of_frames(self, number: int) -> float:
        """Of a group's input and of what it keeps, for each frame that goes in."""
        name = self.groups[number].first.inputs.split()[0]
        given = self.x if number == 0 else self.kept_before(number)[name]
        values = [given, *self.groups[number].kept.values()]
        return sum(math.prod(shape) for shape in values) * self.network.dtype.itemsize / given[2]

    def kept_before(self, number: int) -> dict[str, torch.Size]:
        """What earlier groups have kept, with its shapes."""
        return {name: shape for group in self.groups[:number] for name, shape in group.kept.items()}

    def estimate(self, number: int, cut: Cut) -> MemoryEstimate:
        lengths = self.lengths if number == 0 and self.lengths else differing(windows(self.frames(number), cut.window))
        return estimate(self.network, self.x, number, cut, lengths)

    def kept(self) -> int:
        """Bytes of what waits between groups, at most at a time."""
        waiting: dict[str, torch.Size] = {}
        most = 0
        for group in self.groups:
            planes = [waiting[name] for name in group.first.inputs.split()] if group.first.sees == "clip" else []
            waiting |= group.kept
            most = max(most, sum(math.prod(shape) for shape in chain(waiting.values(), planes)))
            waiting = {name: shape for name, shape in waiting.items() if name in group.live}
        return most * self.network.dtype.itemsize


def both_sides(model: AnyVAE, frames: int, height: int, width: int, window: int | None = None) -> tuple[Side, Side]:
    """The encoder and the decoder for a clip; `window`: frames of the windows that stream through both."""
    config, cpu = model.config, model.device.type == "cpu"
    stride, scale = config.time_compression, config.space_compression
    padded = frames + (1 - frames) % stride
    pictures, latents = window_lengths(frames, window, stride) if window else ((), ())
    rows, columns = -(-height // scale), -(-width // scale)
    video = torch.Size((1, model.in_channels, padded, scale * rows, scale * columns))
    latent = torch.Size((1, config.latent_channels, latent_frames(padded, stride), rows, columns))
    network = Network(type(model), config, model.dtype, "encoder", cpu)
    return Side(network, video, pictures), Side(replace(network, side="decoder"), latent, latents)


def uniform_plan(
    model: AnyVAE, frames: int, height: int, width: int, tile: int, window: int, place: Place = "device"
) -> Plan:
    """The same tiles and windows for all groups; `tile` in latent positions."""
    encoder, decoder = ((Cut(tile, window),) * len(side.groups) for side in both_sides(model, frames, height, width))
    return Plan((frames, height, width), window, place, encoder, decoder)


def make_plan(model: AnyVAE, frames: int, height: int, width: int, budget: Budget, *, low_memory: bool = False) -> Plan:
    """The fastest plan, by estimate, to run a clip of that many frames and pixels within the budget.

    `low_memory`: within little more than the least that can be had for `LOW_MEMORY_SLOWDOWN` times the time of the
    fastest; where the clip waits between groups, small tiles, and nothing kept on the device. Raises UsageError if
    nothing fits, with the least that would do, and VaectlError if what has to wait on disk does not fit there.
    """
    make = streamed if model.streams else staged
    return make(model, frames, height, width, budget, low_memory)


def streamed(model: AnyVAE, frames: int, height: int, width: int, budget: Budget, low_memory: bool) -> Plan:
    """A plan for a model through which a clip streams: one group on each side."""
    slowdown = candidates(model, frames, height, width, budget.places)
    fastest_first = sorted(slowdown, key=lambda plan: slowdown[plan])

    def peak(plan: Plan) -> int:
        return budget.fixed + plan.window * budget.per_frame + needed(model, plan).peak

    limit = budget.limit
    if low_memory:
        most = LOW_MEMORY_SLOWDOWN * slowdown[fastest_first[0]]
        limit = min(limit, round(1.1 * min(peak(plan) for plan in fastest_first if slowdown[plan] <= most)))
    for plan in fastest_first:
        if peak(plan) > limit or (plan.place == "host" and needed(model, plan).state > budget.host):
            continue
        if model.device.type == "cpu" or needed(model, plan).largest < 2**31:  # kernels count in 32 bits
            return replace(plan, peak=peak(plan))
    raise too_small(budget, width, height, min(map(peak, fastest_first)))


def needed(model: AnyVAE, plan: Plan) -> MemoryEstimate:
    """What a plan takes of a model through which a clip streams, with its weights; `peak` on the device."""
    sides = both_sides(model, *plan.size, plan.window)
    costs = [side.estimate(0, cut) for side, (cut,) in zip(sides, (plan.encoder, plan.decoder), strict=True)]
    state = sum(cost.state for cost in costs)
    tensors = max(cost.peak for cost in costs) + (state if plan.place == "device" else 0)
    peak = weight_bytes(sides[0].network) + round(SLACK * tensors)
    return MemoryEstimate(peak, state, max(cost.largest for cost in costs))


def candidates(model: AnyVAE, frames: int, height: int, width: int, places: Sequence[Place]) -> dict[Plan, float]:
    """Ways to cut up, with their estimated time as a multiple of the uncut clip's."""
    sides = both_sides(model, frames, height, width)
    rows, columns = sides[0].latent
    whole = max(rows, columns)
    reach = MEAN_HALO * sum(max(part.reach for part in side.groups[0].parts) for side in sides) / len(sides)
    lengths = [model.config.time_compression * 2**i for i in range(3)]  # longer ones are no faster
    if frames <= lengths[-1] + 1:
        lengths = [*(window for window in lengths if window < frames), frames]
    slowdown: dict[Plan, float] = {}
    for tile in (*(tile for tile in (4, 8, 12, 16, 24, 32, 48, 64, 96, 128) if tile < whole), whole):
        computed = computed_positions(rows, columns, tile, reach)
        for window in lengths:
            for place in places if window < frames else places[:1]:
                plan = uniform_plan(model, frames, height, width, tile, window, place)
                slowdown[plan] = computed * (1 + 1 / window) * SLOWDOWN[place]
    return slowdown


def computed_positions(rows: int, columns: int, tile: int, reach: float) -> float:
    """Positions that are computed for tiles with `reach` more on inner sides, as a multiple of those without."""
    inner_edges = [2 * (-(-size // tile) - 1) for size in (rows, columns)]
    return (1 + reach * inner_edges[0] / rows) * (1 + reach * inner_edges[1] / columns)


def window_lengths(frames: int, window: int, stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Frames and latent frames of the windows that differ: the first four and the last.

    The first makes fewer frames than those after it, because up-sampling in time holds the newest back; with two such
    layers, or three, the second still does so with windows of one latent frame, and the third leaves the full cache.
    The last gives what was held, and is filled up to what the model takes.
    """
    full, missing = -(-frames // window) - 1, (1 - frames) % stride
    last, latents = frames - full * window + missing, 1 + (frames + missing - 1) // stride
    some = min(full, 4)
    return (*[window] * some, last), (*[window // stride] * some, latents - full * (window // stride))


def differing(lengths: list[int]) -> tuple[int, ...]:
    """The first windows make fewer frames than others, the last may make more, and those between are all alike."""
    return (*lengths[:3], *lengths[3:][-1:])


def staged(model: AnyVAE, frames: int, height: int, width: int, budget: Budget, low_memory: bool) -> Plan:
    """A plan for a model that looks at the whole clip: every group is cut up by itself."""
    window = min(frames, max(1, WINDOW_PIXELS // (height * width)))
    encoder, decoder = both_sides(model, frames, height, width)
    encoder = replace(encoder, lengths=window_lengths(frames, window, 1)[0])
    fixed = budget.fixed + window * budget.per_frame + weight_bytes(encoder.network)
    # Beside what is kept between groups, the 8-bit frames wait for what is made of them.
    kept = max(encoder.kept(), decoder.kept()) + math.prod(encoder.x)
    on_device = {"device": kept, "host": 0, "disk": 0}

    def plan(place: Place, most: int) -> Plan:
        """With the fastest cuts of at most that many bytes, or the smallest."""
        cuts, costs = zip(
            *(
                fastest_cut(side, number, lengths(side, number), most, place)
                for side in (encoder, decoder)
                for number in range(len(side.groups))
            ),
            strict=True,
        )
        peak = fixed + on_device[place] + round(SLACK * max(costs))
        return Plan(
            (frames, height, width), window, place, cuts[: len(encoder.groups)], cuts[len(encoder.groups) :], peak
        )

    def lengths(side: Side, number: int) -> list[int]:
        """Of the windows that a group may have: that which is given, or one that gives no more frames than that."""
        most = side.frames(number)
        if side is encoder and number == 0:
            return [window]
        if side is decoder and number == len(side.groups) - 1:
            most = max(1, window * most // encoder.x[2])
        return [length for length in (most, 8, 4, 2, 1) if length <= most]

    def room(place: Place) -> int:
        return round((budget.limit - fixed - on_device[place]) / SLACK)

    least = round((plan("disk", 0).peak - fixed) / SLACK)
    if room("device") >= max(least, SMALL_PIECE_BYTES) and not low_memory:
        place: Place = "device"
    elif "host" in budget.places and kept <= budget.host:
        place = "host"
    else:
        place = "disk"
    if room(place) < least:
        raise too_small(budget, width, height, fixed + math.ceil(SLACK * least))
    if place == "disk":
        check_disk(kept)
    return plan(place, max(least, min(room(place), SMALL_PIECE_BYTES if low_memory else PIECE_BYTES)))


def fastest_cut(side: Side, number: int, lengths: list[int], most: int, place: Place) -> tuple[Cut, int]:
    """The fastest cut of a group that takes at most so many bytes, else the smallest; and what it takes."""
    group, frames, (rows, columns) = side.groups[number], side.frames(number), side.latent

    def cost(cut: Cut) -> int:
        needed = side.estimate(number, cut)
        return needed.peak + (needed.state if place == "device" else 0)

    whole = max(rows, columns)
    if group.first.sees == "clip":
        shape = side.kept_before(number)[group.first.inputs.split()[0]]
        frame = math.prod(shape) // frames * side.network.dtype.itemsize
        cut = Cut(whole, max(1, min(frames, most // (3 * frame))))
        return cut, cost(cut)
    for_tiles = not all(part.whole_frames for part in group.parts)
    reach = max(part.reach for part in group.parts)
    cuts = [Cut(tile, length) for tile in (halvings(whole) if for_tiles else [whole]) for length in lengths]

    def overhead(cut: Cut) -> float:
        """What of the work is done twice, and the frames that windows keep for the next."""
        return computed_positions(rows, columns, cut.tile, reach) * (1 + (cut.window < frames) / cut.window)

    frames_bytes = side.bytes_of_frames(number)

    def surely(cut: Cut) -> float:
        """Bytes of the tile in what goes in and comes out, without a trace."""
        area = min(1.0, cut.tile / rows) * min(1.0, cut.tile / columns)
        return area * cut.window * frames_bytes

    for cut in sorted(cuts, key=overhead):
        if surely(cut) <= most and (needed := cost(cut)) <= most:
            return cut, needed
    return cuts[-1], cost(cuts[-1])


def halvings(size: int) -> list[int]:
    """`size`, half of it, and so on to 1."""
    return [-(-size // 2**i) for i in range((size - 1).bit_length() + 1)]


def too_small(budget: Budget, width: int, height: int, least: int) -> UsageError:
    return UsageError(
        f"--memory-limit {format_size(budget.limit)} is too small for {width}x{height} pixels:"
        f" give at least {format_size(least, at_least=True)}"
    )


def check_disk(size: int) -> None:
    folder = spill_folder()
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise VaectlError(f"{folder}: {error.strerror}; set TMPDIR to a folder with room") from None
    if free < size:
        raise VaectlError(
            f"{folder}: has {format_size(free)} free, and the clip takes {format_size(size)} between the stages of this"
            " model; set TMPDIR to another folder, take fewer --num-frames, or raise --memory-limit"
        )


def window_frames(config: FamilyConfig, height: int, width: int) -> int:
    """How many frames of that size to give a model at a time: a multiple of what its latent frames stand for."""
    return config.time_compression * max(1, WINDOW_PIXELS // (config.time_compression * height * width))
