"""A network as a list of segments: parts that can run separately, each with what it has to see.

An author writes the list at the finest grain: a new segment begins wherever a norm over the clip may be, or where a
layer sees a whole frame. `run_segments` runs one after the other. `tiling/` fuses local neighbours, and runs each over
tiles and windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from vaectl.models.context import StreamContext

Sees = Literal["local", "frame", "clip"]
Values = dict[str, Tensor]
"""The tensors that are passed between segments, (B, C, T, H, W) each, by name."""


class LooksAround(Protocol):
    def input_halo(self, halo: int) -> int:
        """Return the halo that a tile needs before this layer, so that `halo` positions are left after it."""


@dataclass(frozen=True, eq=False)
class Segment:
    """A part of a network that takes the values `inputs` and returns `outputs`, names separated by spaces.

    The inputs have the same number of frames, the same height and the same width; they may differ in channels. A
    segment may change an input in place only if the previous segment has made it and no other reads it. A layer occurs
    once in a network, because its causal cache is kept under it.
    """

    run: Callable[..., Any]
    """Takes the inputs and a `StreamContext`, returns a tensor or a tuple of tensors."""
    inputs: str
    outputs: str
    layer: LooksAround | None = None
    """The layer that looks around in space, at the first input. The other inputs need only the halo of the output."""
    sees: Sees = "local"
    """`local`: neighbours, and the past through a cache; `frame`: all positions of a frame; `clip`: all frames."""
    norm: nn.Module | None = None
    """The norm of the first input that the segment begins with, if the norm may see all positions."""
    block: nn.Module | None = None
    """The module that it belongs to, from one tensor to one tensor, if gradient checkpointing may recompute it."""
    view: Callable[[int, int, int, int, int], tuple[int, ...]] | None = None
    """If it sees the clip: the shape of its inputs, reshaped from (B, C, T, H, W), not permuted."""

    @property
    def statistics(self) -> Literal["frame", "clip"] | None:
        """What the statistics of its norm are over, if that is more than a position."""
        over: Literal["frame", "clip"] | None = getattr(self.norm, "over", None)
        return over

    @property
    def streams(self) -> bool:
        """Whether the segment can take a clip window by window."""
        return self.sees != "clip" and self.statistics != "clip"

    def input_halos(self, halo: int) -> list[int]:
        """Return the halo that each input of a tile needs, so that `halo` positions are left around the outputs."""
        first = halo if self.layer is None else self.layer.input_halo(halo)
        return [first] + [halo] * (len(self.inputs.split()) - 1)

    def __call__(self, inputs: Iterable[Tensor], context: StreamContext) -> tuple[Tensor, ...]:
        """Run the segment; returns its outputs in order."""
        inputs = tuple(inputs)
        shape = inputs[0].shape
        if self.view is not None:
            inputs = tuple(x.reshape(self.view(*shape)) for x in inputs)
        made = self.run(*inputs, context)
        results: tuple[Tensor, ...] = (made,) if isinstance(made, Tensor) else made
        return results if self.view is None else tuple(y.reshape(shape) for y in results)


def run_segments(segments: list[Segment], x: Tensor, context: StreamContext, keep: tuple[str, ...] = ()) -> Values:
    """Run the segments one after the other on whole frames, from "x". Returns "y" and the values to `keep`."""
    values = {"x": x}
    del x
    for segment, dead in zip(segments, dead_after(segments, ("y", *keep)), strict=True):
        made = segment([values[name] for name in segment.inputs.split()], context)
        values.update(zip(segment.outputs.split(), made, strict=True))
        del made
        for name in dead:
            del values[name]
    return values


def by_block(segments: list[Segment]) -> list[Segment]:
    """Merge the segments of each block into one, so that only its input is kept for the gradients."""
    merged: list[Segment] = []
    for segment in segments:
        block = segment.block
        if block is not None and merged and merged[-1].block is block:
            merged[-1] = replace(merged[-1], outputs=segment.outputs)
        elif block is not None:
            merged.append(Segment(block_runner(block), segment.inputs, segment.outputs, block=block))
        else:
            merged.append(segment)
    return merged


def block_runner(block: nn.Module) -> Callable[[Tensor, StreamContext], Tensor]:
    """Make a function that runs a block in a context."""
    return lambda x, context: context.run(block, x)


def dead_after(segments: Sequence[Segment], wanted: Iterable[str]) -> list[list[str]]:
    """Return for each segment the values that no later segment reads and that are not `wanted`."""
    live, dead = set(wanted), []
    for segment in reversed(segments):
        inputs, outputs = segment.inputs.split(), segment.outputs.split()
        dead.append([name for name in dict.fromkeys([*inputs, *outputs]) if name not in live])
        live = live - set(outputs) | set(inputs)
    return dead[::-1]
