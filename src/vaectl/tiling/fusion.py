"""The segments of a network as the executor runs them: groups between clip barriers, of fused segments.

Neighbouring local segments are fused where nothing comes between them, so that a tile goes through all of them in one
pass, with the halo that they need together. Knows shapes, and no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from vaectl.models.segments import Segment, dead_after

Shapes = list[tuple[torch.Size, ...]]
"""Of the outputs of each segment, (B, C, T, H, W), for a whole clip."""


@dataclass(frozen=True, eq=False)
class Step:
    """A segment, with the sizes of its values: positions to a latent one."""

    segment: Segment
    inputs: dict[str, int]
    outputs: dict[str, int]
    live: set[str]
    """What is needed after it."""


@dataclass(frozen=True, eq=False)
class FusedSegment:
    """Local segments that a tile goes through in one pass, or a single segment of another kind."""

    steps: list[Step]
    whole_frames: bool
    """Not for tiles: it sees all positions, or tiles would save nothing."""
    halos: list[list[int]]
    """Of the inputs of each segment."""
    dead: list[list[str]]
    """Values that are not needed after each segment."""
    inputs: dict[str, tuple[int, int]]
    """What it takes from outside: halo and scale."""
    outputs: dict[str, int]
    """What others take from it, and its scale."""
    passed_on: set[str]
    """Those that later parts of its group take, or that are the result."""
    kept: set[str]
    """Those that later groups take."""

    @property
    def reach(self) -> float:
        """Latent positions that a tile needs around it."""
        return 0.0 if self.whole_frames else max(halo / scale for halo, scale in self.inputs.values())


@dataclass(frozen=True, eq=False)
class Group:
    """Fused segments that a clip streams through, window by window; or one segment that sees the clip."""

    parts: list[FusedSegment]
    kept: dict[str, torch.Size]
    """Values that later groups take, which are kept for the whole clip, with their shapes."""
    normalised: set[str]
    """Of these, what a norm over frames or the clip looks at."""
    live: set[str]
    """What is needed after it."""

    @property
    def first(self) -> Segment:
        return self.parts[0].steps[0].segment


def fuse(segments: Sequence[Segment], shapes: Shapes, x: torch.Size) -> list[Group]:
    """`shapes` are those that the segments give for a clip `x` of an encoder or a decoder, from "x" to "y"."""
    latent_rows = min(shape[3] for shape in chain((x,), *shapes))
    latest, live = {"x": x}, {"y"}
    needed = []
    for segment in reversed(segments):
        needed.append(live)
        live = live - set(segment.outputs.split()) | set(segment.inputs.split())
    steps: list[Step] = []
    values: list[dict[str, torch.Size]] = []
    for segment, made, live in zip(segments, shapes, reversed(needed), strict=True):
        inputs = {name: latest[name][3] // latent_rows for name in segment.inputs.split()}
        latest = latest | dict(zip(segment.outputs.split(), made, strict=True))
        steps.append(Step(segment, inputs, {n: latest[n][3] // latent_rows for n in segment.outputs.split()}, live))
        values.append(latest)
    streams = all(segment.streams for segment in segments)
    groups: list[Group] = []
    for start, stop in split_at_barriers(steps):
        live = steps[stop - 1].live
        after, kept, parts = (live, set(), []) if stop == len(steps) else (set(), live, [])
        for a, b in reversed(split_into_parts(steps, start, stop, streams)):
            parts.append(fused(steps[a:b], streams, after, kept))
            kept = kept - parts[-1].outputs.keys()
            after = after - parts[-1].outputs.keys() | parts[-1].inputs.keys()
        if start == 0 and stop < len(steps) and "x" in kept:  # a later group takes what goes in
            hand_on = Segment(lambda x, context: x, "x", "x")
            return fuse([hand_on, *segments], [(x,), *shapes], x)
        stored = set().union(*(part.kept for part in parts))
        normalised = {next(iter(step.inputs)) for step in steps[stop:] if step.segment.statistics}
        shapes_kept = {name: values[stop - 1][name] for name in stored}
        groups.append(Group(parts[::-1], shapes_kept, normalised & stored, live))
    return groups


def split_at_barriers(steps: list[Step]) -> list[tuple[int, int]]:
    """From where to where groups are. One begins where all frames have to be known, or where only kept values go in."""
    starts: list[int] = []
    at_hand: set[str] = set()
    for i, step in enumerate(steps):
        barrier = "clip" in (step.segment.sees, steps[i - 1].segment.sees if i else "", step.segment.statistics)
        if not i or barrier or at_hand.isdisjoint(step.inputs):
            starts.append(i)
            at_hand = set(step.inputs)
        at_hand |= step.outputs.keys()
    return list(zip(starts, [*starts[1:], len(steps)], strict=True))


def split_into_parts(steps: list[Step], start: int, stop: int, streams: bool) -> list[tuple[int, int]]:
    """From where to where the fused segments of a group are."""
    starts: list[int] = []
    at_hand: set[str] = set()
    for i in range(start, stop):
        step, before = steps[i], steps[max(i - 1, start)]
        local = step.segment.sees == before.segment.sees == "local" and step.segment.statistics is None
        if (
            i == start
            or not local
            or coarse(step, streams) != coarse(before, streams)
            or at_hand.isdisjoint(step.inputs)
        ):
            starts.append(i)
            at_hand = set(step.inputs)
        at_hand |= step.outputs.keys()
    return list(zip(starts, [*starts[1:], stop], strict=True))


def coarse(step: Step, streams: bool) -> bool:
    """Whether all its values have the latent's resolution, in a network that streams.

    There whole frames take little memory, and tiles would need a larger halo.
    """
    return streams and all(scale == 1 for scale in chain(step.inputs.values(), step.outputs.values()))


def fused(steps: list[Step], streams: bool, after: set[str], kept: set[str]) -> FusedSegment:
    """With halos derived from the layers, backwards from what its group takes `after` it and from what is `kept`."""
    outputs = {name: scale for step in steps for name, scale in step.outputs.items() if name in after | kept}
    needed: dict[str, tuple[int, int]] = {}
    halos: list[list[int]] = []
    for step in reversed(steps):
        halo = max(needed.pop(name, (0, 0))[0] for name in step.outputs)
        halos.append(step.segment.input_halos(halo))
        for (name, scale), each in zip(step.inputs.items(), halos[-1], strict=True):
            needed[name] = (max(needed.get(name, (0, 0))[0], each), scale)
    whole_frames = coarse(steps[0], streams) or steps[0].segment.sees != "local"
    dead = dead_after([step.segment for step in steps], outputs)
    passed_on, stored = outputs.keys() & after, outputs.keys() & kept
    return FusedSegment(steps, whole_frames, halos[::-1], dead, needed, outputs, passed_on, stored)


def unfused(segments: Sequence[Segment]) -> list[Group]:
    """The whole network as one part over whole frames: a run without tiles."""
    names = [dict.fromkeys(segment.outputs.split(), 1) for segment in segments]
    steps = [Step(s, dict.fromkeys(s.inputs.split(), 1), made, {"y"}) for s, made in zip(segments, names, strict=True)]
    halos = [[0] * len(step.inputs) for step in steps]
    dead = dead_after(segments, {"y"})
    part = FusedSegment(steps, True, halos, dead, {"x": (0, 1)}, {"y": 1}, {"y"}, set())
    return [Group([part], {}, set(), {"y"})]
