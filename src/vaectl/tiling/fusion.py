"""The segments of a network as the executor runs them: groups between clip barriers, of fused segments.

Neighbouring local segments are fused where nothing comes between them, so that a tile goes through all of them in one
pass, with the halo that they need together. Knows shapes, and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, takewhile

import torch

from vaectl.models.segments import Segment, dead_after

Shapes = list[tuple[torch.Size, ...]]
"""Of the outputs of each segment, (B, C, T, H, W), for a whole clip."""


@dataclass(frozen=True, eq=False)
class Step:
    """A segment, with the scales of its values: positions to a latent one."""

    segment: Segment
    inputs: dict[str, int]
    outputs: dict[str, int]
    shapes: dict[str, torch.Size]
    """Of the outputs."""
    live: set[str]
    """Values that are needed after it."""
    bottleneck: bool
    """Whether it is at the latent's resolution, as all between it and the latent are, in a network that streams.

    There whole frames take little memory, and tiles would need a larger halo.
    """


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
    if "clip" in (segments[0].sees, segments[0].statistics):  # what goes in has to be kept
        return fuse([hand_on("x"), *segments], [(x,), *shapes], x)
    if segments[-1].sees == "clip":  # what comes out is kept, and has to be given
        return fuse([*segments, hand_on("y")], [*shapes, shapes[-1]], x)
    steps = steps_of(segments, shapes, x)
    # Where a clip has to wait anyway, it does so before norms over frames as well: that saves whole frames of a window.
    waits = {"clip"} if all(segment.streams for segment in segments) else {"clip", "frame"}
    groups: list[Group] = []
    for group in split(steps, lambda before, step: before.segment.sees == "clip" or not waits.isdisjoint(sees(step))):
        live, last = group[-1].live, group[-1] is steps[-1]
        after, kept = (live, set()) if last else (set(), live)
        parts: list[FusedSegment] = []
        for part in reversed(split(group, between_parts)):
            parts.insert(0, fused(part, after, kept))
            kept = kept - parts[0].outputs.keys()
            after = after - parts[0].outputs.keys() | parts[0].inputs.keys()
        if group[0] is steps[0] and "x" in kept:  # a later group takes what goes in
            return fuse([hand_on("x"), *segments], [(x,), *shapes], x)
        stored = {name for part in parts for name in part.kept}
        made = {name: shape for step in group for name, shape in step.shapes.items() if name in stored}
        later = steps[steps.index(group[-1]) + 1 :]
        normalised = {next(iter(step.inputs)) for step in later if step.segment.statistics}
        groups.append(Group(parts, made, normalised & stored, live))
    return groups


def hand_on(name: str) -> Segment:
    """Give a value as it is."""
    return Segment(lambda value, context: value, name, name)


def steps_of(segments: Sequence[Segment], shapes: Shapes, x: torch.Size) -> list[Step]:
    latent_rows = min(shape[3] for shape in chain((x,), *shapes))
    live, after = {"y"}, []
    for segment in reversed(segments):
        after.append(live)
        live = live - set(segment.outputs.split()) | set(segment.inputs.split())
    scales, steps = {"x": x[3] // latent_rows}, []
    for segment, made, live in zip(segments, shapes, reversed(after), strict=True):
        inputs = {name: scales[name] for name in segment.inputs.split()}
        named = dict(zip(segment.outputs.split(), made, strict=True))
        outputs = {name: shape[3] // latent_rows for name, shape in named.items()}
        scales |= outputs
        steps.append(Step(segment, inputs, outputs, named, live, bottleneck=False))
    if all(segment.streams for segment in segments):
        from_latent = steps if x[3] == latent_rows else steps[::-1]
        at_latent = takewhile(lambda step: {*step.inputs.values(), *step.outputs.values()} == {1}, from_latent)
        bottleneck = {id(step) for step in at_latent}
        steps = [replace(step, bottleneck=id(step) in bottleneck) for step in steps]
    return steps


def sees(step: Step) -> tuple[str, str | None]:
    return step.segment.sees, step.segment.statistics


def between_parts(before: Step, step: Step) -> bool:
    return before.segment.sees != "local" or sees(step) != ("local", None) or before.bottleneck != step.bottleneck


def split(steps: list[Step], between: Callable[[Step, Step], bool]) -> list[list[Step]]:
    """Split the steps where something is `between` two of them, and where nothing goes in that is at hand."""
    parts: list[list[Step]] = []
    at_hand: set[str] = set()
    for step in steps:
        if not parts or between(parts[-1][-1], step) or at_hand.isdisjoint(step.inputs):
            parts.append([])
            at_hand = set(step.inputs)
        parts[-1].append(step)
        at_hand |= step.outputs.keys()
    return parts


def fused(steps: list[Step], after: set[str], kept: set[str]) -> FusedSegment:
    """With halos derived from the layers, backwards from what its group takes `after` it and from what is `kept`."""
    outputs = {name: scale for step in steps for name, scale in step.outputs.items() if name in after | kept}
    needed: dict[str, tuple[int, int]] = {}
    halos: list[list[int]] = []
    for step in reversed(steps):
        halo = max(needed.pop(name, (0, 0))[0] for name in step.outputs)
        halos.insert(0, step.segment.input_halos(halo))
        for (name, scale), each in zip(step.inputs.items(), halos[0], strict=True):
            needed[name] = (max(needed.get(name, (0, 0))[0], each), scale)
    whole_frames = steps[0].bottleneck or steps[0].segment.sees != "local"
    dead = dead_after([step.segment for step in steps], outputs)
    return FusedSegment(
        steps, whole_frames, halos, dead, needed, outputs, outputs.keys() & after, outputs.keys() & kept
    )


def unfused(segments: Sequence[Segment]) -> list[Group]:
    """The whole network as one part over whole frames: a run without tiles."""
    steps = [
        Step(s, dict.fromkeys(s.inputs.split(), 1), dict.fromkeys(s.outputs.split(), 1), {}, {"y"}, bottleneck=True)
        for s in segments
    ]
    return [Group([fused(steps, {"y"}, set())], {}, set(), {"y"})]
