"""Run a network: group between clip barriers -> window of frames -> fused segment -> tile.

A network that streams is one group; a run without tiles is one tile. Causal caches wait in a store between windows, and
values for later groups wait in storage. The result equals that of whole frames and clips, up to rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaectl.models.context import StreamContext
from vaectl.models.segments import Values
from vaectl.models.statistics import Statistics
from vaectl.tiling.fusion import FusedSegment, Group
from vaectl.tiling.grid import Slices, Tile, grid, windows
from vaectl.tiling.storage import MakeRoom, OffloadedTensor, StateStore
from vaectl.video.clip import batch_to_video

Window = tuple[Tensor, bool]
"""Frames (B, C, T, H, W), and whether they are the last of their clip. 8-bit frames become [-1, 1] tile by tile."""
Finish = Callable[[Tensor], Tensor]
"""What is done to each tile of the result, (B, C, T, H, W); it may change the type."""
Use = tuple[int, int, str]
"""A place where a kept value is read: the number of the part, the number of its segment, and the name of the value."""


@dataclass(frozen=True)
class Cut:
    """The size of the tiles and windows of a group."""

    tile: int
    """Maximum latent positions of a tile, in height and in width."""
    window: int
    """Maximum frames of a window of the input. The first group takes windows as they are given."""


class Executor:
    """Runs a clip through one network, an encoder or a decoder."""

    def __init__(
        self,
        groups: Sequence[Group],
        cuts: Sequence[Cut],
        latent: tuple[int, int],
        *,
        device: torch.device,
        dtype: torch.dtype,
        store: StateStore,
        make_room: MakeRoom,
        finish: Finish = lambda y: y,
        report: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Set up a run. `latent`: height and width of the latent. `device`, `dtype`: of the model. `report`: called
        with the number of each group when it begins.
        """
        self.groups, self.cuts, self.latent = groups, cuts, latent
        self.device, self.dtype = device, dtype
        self.store, self.make_room, self.finish, self.report = store, make_room, finish, report

    def run(self, clip: Iterable[Window]) -> Iterator[Tensor]:
        """Yield the parts of the result "y" as soon as they are known: at the end, if a segment sees the whole clip.

        In that case, raises ValueError for a clip whose length differs from the plan.
        """
        kept: dict[str, OffloadedTensor] = {}
        for number, (group, cut) in enumerate(zip(self.groups, self.cuts, strict=True)):
            if group.first.sees == "clip":
                self.report(number)
                kept.update(self.see_clip(group, cut, kept))
            elif number == 0:
                run = GroupRun(self, group, cut, kept)
                yield from run.run(clip)
                for name, value in run.new.items():
                    if run.written[name] < value.shape[2]:
                        raise ValueError(f"a clip of {value.shape[2]} frames was planned, and fewer have come")
                del run
            else:
                num_frames = kept[group.first.inputs.split()[0]].shape[2]
                lengths = windows(num_frames, cut.window)
                yield from GroupRun(self, group, cut, kept).run(
                    (length, i == len(lengths)) for i, length in enumerate(lengths, 1)
                )
            if not kept and number + 1 < len(self.groups):
                return  # there was no window
            for name in kept.keys() - group.live:
                del kept[name]

    def tiles(self, part: FusedSegment, cut: Cut) -> list[Tile]:
        """Return the tiles of a part: a single one, if it takes whole frames."""
        return grid(*self.latent, max(self.latent) if part.whole_frames else cut.tile)

    def keep(self, group: Group, name: str, batch: int) -> OffloadedTensor:
        """Allocate storage for a value of the whole clip."""
        shape, dtype = (batch, *group.kept[name].shape[1:]), group.kept[name].dtype
        return OffloadedTensor(shape, dtype, self.make_room, self.gather if name in group.normalised else None)

    def gather(self, x_BTHWC: Tensor) -> Statistics:
        """Return the statistics of frames or of a tile of them."""
        return Statistics.of(x_BTHWC)

    def empty_frames(self, tile: Tensor, scale: int, *, result: bool) -> Tensor:
        """Allocate whole frames of a value, for which `tile` is one; of the `result` or of a value for a later part."""
        size = (*tile.shape[:3], scale * self.latent[0], scale * self.latent[1])
        return torch.empty(size, dtype=tile.dtype, device=tile.device, memory_format=torch.channels_last_3d)

    def see_clip(self, group: Group, cut: Cut, kept: dict[str, OffloadedTensor]) -> dict[str, OffloadedTensor]:
        """Run a segment that sees the clip, part by part, in the shape that it takes. Returns its output by name.

        The inputs are stored once more in the order (B, C, T, H, W), in which each part is contiguous.
        """
        segment = group.first
        if not group.kept:  # nothing takes its output
            return {}
        first = kept[group.first.inputs.split()[0]]
        shape = first.shape
        windows = [slice(start, start + cut.window) for start in range(0, shape[2], cut.window)]
        planes = [self.make_room(shape, first.dtype) for _ in segment.inputs.split()]
        for name, plane in zip(segment.inputs.split(), planes, strict=True):
            for window in windows:
                plane[:, :, window] = kept[name].read(window)
        count, *rest = segment.view(*shape) if segment.view else shape
        parts = [plane.view((count, *rest)) for plane in planes]
        for i in range(count):
            inputs = (part[i : i + 1].to(self.device) for part in parts)
            parts[0][i : i + 1] = segment.run(*inputs, StreamContext())
        result = self.keep(group, segment.outputs, shape[0])
        for window in windows:
            result.write(window.start, (slice(None), slice(None)), planes[0][:, :, window])
        return {segment.outputs: result}


class GroupRun:
    """The run of one clip through one group, window by window."""

    def __init__(self, executor: Executor, group: Group, cut: Cut, kept: dict[str, OffloadedTensor]) -> None:
        self.executor, self.group, self.cut, self.kept = executor, group, cut, kept
        self.new: dict[str, OffloadedTensor] = {}
        self.values: Values = {}
        """Values of this window, by name."""
        self.first, self.last, self.num_frames = True, False, 0
        """Whether this window is the first and the last, and how many frames it has."""
        self.starts: Counter[Use] = Counter()
        """Index of the first frame of this window, in each use of a kept value."""
        self.stops: Counter[Use] = Counter()
        """Index after its last frame, for the uses in the part that runs."""
        self.written: Counter[str] = Counter()
        """Number of frames written of each new value."""

    def run(self, clip: Iterable[tuple[Tensor | int, bool]]) -> Iterator[Tensor]:
        """Run all windows: yield "y" if this group makes it, and keep the values that later groups take.

        A window is a tensor of frames, or their number if the group reads kept values.
        """
        for x, self.last in clip:
            if self.first:  # not earlier: the other network makes the window
                self.executor.report(self.executor.groups.index(self.group))
            self.values, self.num_frames = ({}, x) if isinstance(x, int) else ({"x": x}, x.shape[2])
            del x
            for number, part in enumerate(self.group.parts):
                self.values |= self.run_part(number, part)
                needed = set().union(*(later.inputs for later in self.group.parts[number + 1 :]), {"y"})
                self.values = {name: value for name, value in self.values.items() if name in needed}
            self.first = False
            if "y" in self.values and not self.group.kept:
                yield self.values.pop("y")
        self.kept |= self.new

    def run_part(self, number: int, part: FusedSegment) -> Values:
        """Run all tiles of a part. Returns the values that later parts take, in whole frames."""
        executor, start, made = self.executor, Counter(self.written), Values()  # all tiles write the same frames
        self.stops.clear()
        statistics = self.statistics(number, part)
        for index, tile in enumerate(executor.tiles(part, self.cut)):
            key, sides = (id(executor), number, index), tile.halo_sides(part.inputs.values())
            cache = None if self.first else executor.store.get(key)
            context = StreamContext(cache, last=self.last, halo_sides=sides, statistics=statistics)
            del cache  # so that a layer frees what it has used
            results = self.run_tile(number, part, tile, context)
            executor.store.put(key, context.after)
            del context  # before the cache of the next tile is read
            for name, scale in part.outputs.items():
                y = results.pop(name)
                y = y if part.whole_frames else tile.core(y, scale, sides)
                if name in part.kept:
                    if name not in self.new:
                        self.new[name] = executor.keep(self.group, name, y.shape[0])
                    self.new[name].write(start[name], tile.region(scale), y)
                    self.written[name] = start[name] + y.shape[2]
                if name in part.passed_on:
                    self.join(made, name, y, tile, scale)
                del y
        self.starts |= self.stops  # only now: all tiles read the same frames
        return made

    def join(self, made: Values, name: str, y: Tensor, tile: Tile, scale: int) -> None:
        """Write a tile of a value into its whole frames in `made`."""
        result = name == "y" and not self.group.kept
        if result:
            y = self.executor.finish(y)
        if tile.whole:
            made[name] = y
            return
        if name not in made:
            made[name] = self.executor.empty_frames(y, scale, result=result)
        rows, columns = tile.region(scale)
        made[name][..., rows, columns] = y

    def run_tile(self, number: int, part: FusedSegment, tile: Tile, context: StreamContext) -> Values:
        """Run a tile through all segments of a part. The results still have the rest of the halo."""
        made: Values = {}
        for i, (step, halos, dead) in enumerate(zip(part.steps, part.halos, part.dead, strict=True)):
            at_hand = made | self.values
            num_frames = next((at_hand[name].shape[2] for name in step.inputs if name in at_hand), self.num_frames)
            del at_hand
            inputs = []
            for (name, scale), halo in zip(step.inputs.items(), halos, strict=True):
                if name not in made:
                    region = None if part.whole_frames else tile.read(halo, scale, context.halo_sides)
                    inputs.append(self.fetch((number, i, name), num_frames, region))
                elif part.whole_frames:
                    inputs.append(made[name])
                else:
                    inputs.append(tile.crop(made[name], halo, scale, context.halo_sides))
            results = step.segment(inputs, context)
            del inputs
            made.update(zip(step.outputs, results, strict=True))
            del results
            for name in dead:
                made.pop(name, None)
        return made

    def fetch(self, use: Use, num_frames: int, region: Slices | None) -> Tensor:
        """Return a value from outside the part, on the model's device: of a kept value, the next frames."""
        name = use[-1]
        if name in self.values:
            x = self.values[name] if region is None else self.values[name][..., region[0], region[1]]
        else:
            start = self.starts[use]
            self.stops[use] = stop = start + num_frames
            x = self.kept[name].read(slice(start, stop), region)
        if not x.is_floating_point():
            x = batch_to_video(x.transpose(1, 2))
        dtype = self.executor.dtype if name == "x" else x.dtype  # each other value has that of its layer
        return x.to(self.executor.device, dtype, memory_format=torch.channels_last_3d)

    def statistics(self, number: int, part: FusedSegment) -> Statistics | None:
        """Return statistics for the norm that a part begins with; None without a norm or if its input is complete."""
        segment = part.steps[0].segment
        name = next(iter(part.steps[0].inputs))
        if segment.statistics is None or (name in self.values and part.whole_frames):
            return None
        if name in self.values:
            return self.executor.gather(self.values[name].permute(0, 2, 3, 4, 1))
        statistics = self.kept[name].statistics
        if segment.statistics == "clip":
            return statistics
        start = self.starts[number, 0, name]
        return statistics.frames(start, start + self.num_frames)
