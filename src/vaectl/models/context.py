"""What a layer has to know about the frames that it is given: which part of a clip they are.

Layers keep no run-time state. Each call gets a `StreamContext`, which holds the cache left by the window before and
collects the one for the next window; a whole clip is one window that is first and last at once. So one definition of a
layer serves training, direct execution, streaming and tiling, and one model object can serve many interleaved clips.

In space a tile comes with a halo of its neighbours' pixels on its inner sides. Layers that look around use it up: they
crop from their output what they could not know. At the border of the frame there is no halo and nothing is cropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vaectl.models.statistics import Statistics


class HaloSides(NamedTuple):
    """For each side of a tile, whether another tile follows there (1) or the border of the frame (0)."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


CausalCache = Mapping[nn.Module, Tensor]
"""What each layer needs of the frames that it has seen. Opaque: made by one `StreamContext`, given to the next."""


WHOLE_FRAME = HaloSides()


class StreamContext:
    """Consecutive frames of one clip on their way through a network. Used for one pass, then dropped.

    A layer may get or give no frames at all (a tensor with T = 0). In a causal network the first window has at least
    one frame in every layer; behind a layer that looks ahead it may have none.
    """

    def __init__(
        self,
        before: CausalCache | None = None,
        *,
        last: bool = True,
        halo_sides: HaloSides | None = None,
        recompute: bool = False,
        statistics: Statistics | None = None,
    ) -> None:
        """`before` is the `after` of the previous window, None for the first; `last` says that no window follows.

        `halo_sides` are the sides on which the frames continue beyond this tile, None for a whole frame. `recompute`,
        for the gradients of a whole clip: keep what goes into each block, and compute what is inside again on the way
        back. `statistics`: those of the first input of a segment, for the norm that it begins with; None where that
        input is there as a whole.
        """
        self.first = before is None
        self.last = last
        # Not a default of the parameter: torch.compile of PyTorch 2.4 to 2.6 cannot trace that.
        self.halo_sides = WHOLE_FRAME if halo_sides is None else halo_sides
        if recompute and not (self.first and last):
            raise ValueError("only a whole clip can be computed again: the cache of a window is gone when it was used")
        self.recompute = recompute
        self.statistics = statistics
        self._before = dict(before or {})
        self.after: dict[nn.Module, Tensor] = {}

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        """`block` on `x` (B, C, T, H, W) and this context (Chen et al. 2016, if `recompute`)."""
        if self.recompute and torch.is_grad_enabled():
            result: Tensor = checkpoint(block, x, self, use_reentrant=False)
        else:
            result = block(x, self)
        return result

    def get(self, layer: nn.Module) -> Tensor | None:
        """What `layer` put for this window, once, so that it is gone when it has been used; None if nothing."""
        return self._before.pop(layer, None)

    def put(self, layer: nn.Module, frames: Tensor) -> None:
        """Hand `frames` to the same layer in the next window. Copied, so that the whole window is not kept alive."""
        if not self.last:
            self.after[layer] = frames.clone()

    def causal_input(self, layer: nn.Module, x: Tensor, kernel: int, stride: int = 1) -> Tensor:
        """`x` (B, C, T, H, W) behind the earlier frames that a causal layer's next outputs touch.

        Before the clip its first frame is repeated, kernel - 1 times. The layer makes its outputs from the frames
        [0, kernel), [stride, stride + kernel), ... of the result; frames that a later output needs are kept.
        """
        if kernel == 1 and stride == 1:
            return x
        past = self.get(layer)
        if past is None and x.shape[2] == 0:  # a layer before this one looks ahead, and has given nothing yet
            return x
        before = [x[:, :, :1]] * (kernel - 1) if past is None else [past]
        frames = torch.cat([*before, x], dim=2)
        self.put(layer, frames[:, :, outputs(frames, kernel, stride) * stride :])
        return frames

    def crop_halo(self, x: Tensor, halo: int) -> Tensor:
        """`x` (B, C, T, H, W) without `halo` positions on each inner side."""
        if self.halo_sides == WHOLE_FRAME or halo == 0:
            return x
        top, bottom, left, right = (halo * side for side in self.halo_sides)
        return x[..., top : x.shape[3] - bottom, left : x.shape[4] - right]

    def align(self, layer: nn.Module, early: Tensor, late: Tensor) -> Tensor:
        """The frames of `early` that meet those of `late`, of another branch; the rest waits for the next window."""
        waiting = self.get(layer)
        if waiting is not None:
            early = torch.cat([waiting, early], dim=2)
        frames = late.shape[2]
        self.put(layer, early[:, :, frames:])
        return early[:, :, :frames]


def outputs(frames: Tensor, kernel: int, stride: int) -> int:
    """How many outputs a layer of that kernel and stride makes from `frames` (B, C, T, H, W)."""
    return max(0, (frames.shape[2] - kernel) // stride + 1)
