"""The segments of a network as the executor runs them: groups between clip barriers, of fused segments.

Neighbouring local segments are fused, so that a tile goes through all of them in one pass, with the halo that they need
together. Knows shapes, and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, takewhile

from torch import Tensor

from vaectl.models.segments import Segment, dead_after

Outputs = list[tuple[Tensor, ...]]
"""The outputs of each segment for a whole clip, (B, C, T, H, W) each, without data: their shapes and types."""


@dataclass(frozen=True, eq=False)
class Step:
    """A segment, with the scales of its values: positions per latent position."""

    segment: Segment
    inputs: dict[str, int]
    outputs: dict[str, int]
    made: dict[str, Tensor]
    """The outputs for a whole clip, without data."""
    live: set[str]
    """Values that later steps need."""
    bottleneck: bool
    """Whether it and everything between it and the latent is at the latent's resolution, in a network that streams.

    Whole frames take little memory there, and tiles would need a larger halo.
    """


@dataclass(frozen=True, eq=False)
class FusedSegment:
    """Local segments that a tile goes through in one pass, or a single segment of another kind."""

    steps: list[Step]
    whole_frames: bool
    """Whether it takes whole frames, because it sees all positions or because tiles would save nothing."""
    halos: list[list[int]]
    """Halos of the inputs of each segment."""
    dead: list[list[str]]
    """Values that nothing needs after each segment."""
    inputs: dict[str, tuple[int, int]]
    """Halo and scale of each value that it takes from outside."""
    outputs: dict[str, int]
    """Scale of each value that others take from it."""
    passed_on: set[str]
    """Outputs that later parts of its group take, or that are the result."""
    kept: set[str]
    """Outputs that later groups take."""

    @property
    def reach(self) -> float:
        """Width of the halo that a tile needs, in latent positions."""
        return 0.0 if self.whole_frames else max(halo / scale for halo, scale in self.inputs.values())


@dataclass(frozen=True, eq=False)
class Group:
    """Fused segments that a clip goes through window by window; or one segment that sees the whole clip."""

    parts: list[FusedSegment]
    kept: dict[str, Tensor]
    """Values that are kept for later groups: those of the whole clip, without data."""
    normalised: set[str]
    """The kept values that a norm over frames or over the clip takes."""
    live: set[str]
    """Values that later groups need."""

    @property
    def first(self) -> Segment:
        """The segment that the group begins with."""
        return self.parts[0].steps[0].segment


def fuse(segments: Sequence[Segment], outputs: Outputs, x: Tensor) -> list[Group]:
    """Fuse the segments of an encoder or a decoder; `outputs` are theirs for the clip `x`, all without data."""
    # If the clip has to wait anyway, it also waits before norms over frames: that saves whole frames of a window.
    waits = {"clip"} if all(segment.streams for segment in segments) else {"clip", "frame"}

    def between_groups(before: Step, step: Step) -> bool:
        return before.segment.sees == "clip" or not waits.isdisjoint(sees(step))

    if segments[-1].sees == "clip":  # its output is kept: another group has to pass it on as the result
        segments, outputs = [*segments, hand_on("y")], [*outputs, outputs[-1]]
    split_steps = split(steps_of(segments, outputs, x), between_groups)
    first = split_steps[0]
    if "clip" in sees(first[0]) or "x" in first[-1].live.difference(*(step.outputs for step in first)):
        # A group reads the input "x" from storage: the first group has to write it there.
        segments, outputs = [hand_on("x"), *segments], [(x,), *outputs]
        split_steps = split(steps_of(segments, outputs, x), between_groups)
    groups: list[Group] = []
    for number, group in enumerate(split_steps):
        live, later = group[-1].live, list(chain(*split_steps[number + 1 :]))
        after, kept = (set(), live) if later else (live, set())
        parts = fuse_group(group, after, kept)
        stored = {name for part in parts for name in part.kept}
        made = {name: y for step in group for name, y in step.made.items() if name in stored}
        normalised = {next(iter(step.inputs)) for step in later if step.segment.statistics}
        groups.append(Group(parts, made, normalised & stored, live))
    return groups


def fuse_group(steps: list[Step], after: set[str], kept: set[str]) -> list[FusedSegment]:
    """Fuse the steps of a group into parts. `after`: outputs that are the result; `kept`: values for later groups."""
    parts: list[FusedSegment] = []
    for part in reversed(split(steps, between_parts)):
        parts.insert(0, fused(part, after, kept))
        made, taken = parts[0].outputs.keys(), parts[0].inputs.keys()
        after, kept = after - made | taken, kept - made  # of the parts before this one
    return parts


def hand_on(name: str) -> Segment:
    """Make a segment that passes a value on unchanged."""
    return Segment(lambda value, context: value, name, name)


def steps_of(segments: Sequence[Segment], results: Outputs, x: Tensor) -> list[Step]:
    """Find the scales, the live values and the bottleneck of a network; parameters as for `fuse`."""
    latent_rows = min(y.shape[3] for y in chain((x,), *results))
    live, after = {"y"}, []
    for segment in reversed(segments):
        after.append(live)
        live = live - set(segment.outputs.split()) | set(segment.inputs.split())
    scales, steps = {"x": x.shape[3] // latent_rows}, []
    for segment, made, live in zip(segments, results, reversed(after), strict=True):
        inputs = {name: scales[name] for name in segment.inputs.split()}
        named = dict(zip(segment.outputs.split(), made, strict=True))
        outputs = {name: y.shape[3] // latent_rows for name, y in named.items()}
        scales |= outputs
        steps.append(Step(segment, inputs, outputs, named, live, bottleneck=False))
    if all(segment.streams for segment in segments):
        from_latent = steps if x.shape[3] == latent_rows else steps[::-1]
        at_latent = takewhile(lambda step: {*step.inputs.values(), *step.outputs.values()} == {1}, from_latent)
        bottleneck = {id(step) for step in at_latent}
        steps = [replace(step, bottleneck=id(step) in bottleneck) for step in steps]
    return steps


def sees(step: Step) -> tuple[str, str | None]:
    """Return what a step sees, and what the statistics of its norm are over."""
    return step.segment.sees, step.segment.statistics


def between_parts(before: Step, step: Step) -> bool:
    """Return whether a new part begins between two steps."""
    return before.segment.sees != "local" or sees(step) != ("local", None) or before.bottleneck != step.bottleneck


def split(steps: list[Step], between: Callable[[Step, Step], bool]) -> list[list[Step]]:
    """Split the steps where `between` says so, and where a step takes none of the values of its part."""
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
    """Fuse steps, with halos derived from the layers, from last to first.

    `after`: values that its group takes later; `kept`: values for later groups.
    """
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
    passed_on, kept = outputs.keys() & after, outputs.keys() & kept
    return FusedSegment(steps, whole_frames, halos, dead, needed, outputs, passed_on, kept)


def unfused(segments: Sequence[Segment]) -> list[Group]:
    """Return the whole network as one part on whole frames, for a run without tiles."""
    steps = [
        Step(s, dict.fromkeys(s.inputs.split(), 1), dict.fromkeys(s.outputs.split(), 1), {}, {"y"}, bottleneck=True)
        for s in segments
    ]
    return [Group([fused(steps, {"y"}, set())], {}, set(), {"y"})]
