"""How to cut a clip up so that a model stays within a memory limit: tile size, window length, where state waits.

A plan depends on the limit, the model and the shapes alone: the same run gets the same plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vaectl.errors import UsageError
from vaectl.memory import format_size
from vaectl.models.config import WFVAEConfig
from vaectl.models.context import Sides
from vaectl.models.families.wfvae import WFVAE
from vaectl.tiling import trace as dry_run
from vaectl.tiling.grid import Tile, grid
from vaectl.tiling.trace import Pieces, Region

Place = Literal["device", "host", "disk"]

SLACK = 1.1
"""Reserved beyond what tensors take: scratch space of the kernels, gaps between allocations."""


@dataclass(frozen=True)
class Way:
    """A way to cut a clip up."""

    tile: int
    """Latent positions of a tile, each way, at most."""
    window: int
    """Frames of a window, at most."""
    state: Place
    """Where the state of the tiles waits for the next window."""


@dataclass(frozen=True)
class Plan(Way):
    peak: int
    """Expected bytes at most."""


@dataclass(frozen=True)
class Needs:
    """What the network takes in one way."""

    peak: int
    """Bytes on the model's device, at most."""
    waiting: int
    """Bytes of the tiles' state between windows, wherever it waits."""
    largest: int
    """Values in a tensor, at most."""


@dataclass(frozen=True)
class Budget:
    """The limit, and what a clip takes of it beside the network; in bytes."""

    limit: int
    fixed: int
    per_frame: int
    """For each frame of a window."""
    places: tuple[Place, ...]
    """Where state may wait, the fastest first."""
    host: int = 0
    """Of the host's memory, if that is one of the places."""


def make_plan(model: WFVAE, frames: int, height: int, width: int, budget: Budget, *, sparing: bool = False) -> Plan:
    """The fastest way, by estimate, to run a clip of that many frames and pixels within the budget.

    `sparing`: within little more than the least that can be had for `PATIENCE` times the time of the fastest way.
    Raises UsageError if nothing fits, with the least that would do.
    """
    slowness = ways(model.config, frames, height, width, budget.places)
    fastest_first = sorted(slowness, key=lambda way: slowness[way])

    def peak(way: Way) -> int:
        return budget.fixed + way.window * budget.per_frame + needs(model, frames, height, width, way).peak

    def possible(way: Way) -> bool:
        needed = needs(model, frames, height, width, way)
        enough_there = way.state != "host" or needed.waiting <= budget.host
        return enough_there and (model.device.type == "cpu" or needed.largest < 2**31)  # kernels count in 32 bits

    limit = budget.limit
    if sparing:
        bearable = (way for way in fastest_first if slowness[way] <= PATIENCE * slowness[fastest_first[0]])
        limit = min(limit, round(1.1 * min(map(peak, bearable))))
    for way in fastest_first:
        if peak(way) <= limit and possible(way):
            return Plan(way.tile, way.window, way.state, peak(way))
    raise UsageError(
        f"--memory-limit {format_size(budget.limit)} is too small for {width}x{height} pixels:"
        f" give at least {format_size(min(map(peak, fastest_first)), at_least=True)}"
    )


PATIENCE = 2.0


def ways(config: WFVAEConfig, frames: int, height: int, width: int, places: tuple[Place, ...]) -> dict[Way, float]:
    """Ways to cut up, with their estimated time as a multiple of the uncut clip's."""
    rows, columns = height // config.space_compression, width // config.space_compression
    whole = max(rows, columns)
    lengths = [config.time_compression * 2**i for i in range(3)]  # longer ones are no faster
    if frames <= lengths[-1] + 1:
        lengths = [*(window for window in lengths if window < frames), frames]
    slowness: dict[Way, float] = {}
    for tile in (*(tile for tile in (4, 8, 12, 16, 24, 32, 48, 64, 96, 128) if tile < whole), whole):
        computed = sum(worked(part) for part in grid(rows, columns, tile)) / (rows * columns)
        for window in lengths:
            for place in places if window < frames else places[:1]:
                slowness[Way(tile, window, place)] = computed * (1 + 1 / window) * SLOWNESS[place]
    return slowness


SLOWNESS: dict[Place, float] = {"device": 1.0, "host": 1.2, "disk": 1.5}

AVERAGE_MARGIN = 3
"""Latent positions by which the layers' work reaches beyond a tile, averaged over the layers by their cost."""


def worked(tile: Tile) -> int:
    """Positions that are computed for a tile, its margins with it."""
    sides = (
        span.stop - span.start + AVERAGE_MARGIN * ((span.start > 0) + (span.stop < span.size))
        for span in (tile.rows, tile.columns)
    )
    height, width = sides
    return height * width


def needs(model: WFVAE, frames: int, height: int, width: int, way: Way) -> Needs:
    """Weights, features, state and the costliest stage."""
    config, dtype, scale = model.config, model.dtype, model.config.space_compression
    pictures, latents = windows(frames, way.window, config.time_compression)
    frame = Region(height // scale, width // scale)
    tiles = grid(frame.height, frame.width, way.tile)

    pixels, share = largest(tiles, model.encoder.margin, scale)
    encoding = dry_run.encoder_tile(config, dtype, pictures, pixels)
    waiting = encoding.state * share
    positions, share = largest(tiles, model.decoder.margin, 1)
    decoding = dry_run.decoder_tile(config, dtype, latents, positions)
    waiting += decoding.state * share
    moments = dry_run.encoder_frame(config, dtype, latents, frame)
    features = dry_run.decoder_frame(config, dtype, latents, frame)

    stages = max(encoding.peak + moments.given, moments.peak, features.peak, decoding.peak + features.result)
    kept = moments.state + features.state + waiting * (way.state == "device")
    return Needs(
        dry_run.weight_bytes(config, dtype) + round(SLACK * (stages + kept)),
        round(waiting),
        max(part.largest for part in (encoding, moments, features, decoding)),
    )


def windows(frames: int, window: int, stride: int) -> tuple[Pieces, Pieces]:
    """Frames and latent frames of the windows that differ: the first three and the last.

    The first makes fewer frames than those after it, because up-sampling in time holds the newest back; with two such
    layers, or three, the second still does so with windows of one latent frame. The last gives what was held, and is
    filled up to what the model takes.
    """
    full, missing = -(-frames // window) - 1, (1 - frames) % stride
    last, latents = frames - full * window + missing, 1 + (frames + missing - 1) // stride
    some = min(full, 3)
    return (*[window] * some, last), (*[window // stride] * some, latents - full * (window // stride))


def largest(tiles: list[Tile], margin: int, scale: int) -> tuple[Region, float]:
    """The largest region that is read for a tile, and how often its area goes into those of all tiles."""
    regions = []
    for tile in tiles:
        rows, above, below = tile.rows.read(margin, scale)
        columns, left, right = tile.columns.read(margin, scale)
        regions.append(Region(rows.stop - rows.start, columns.stop - columns.start, Sides(above, below, left, right)))
    biggest = max(regions, key=Region.area)
    return biggest, sum(map(Region.area, regions)) / biggest.area()
