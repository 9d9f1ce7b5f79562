"""The context of a pass through a network: the position of the frames in a clip.

Layers keep no run-time state. Each call gets a `StreamContext`, which has the cache from the window before and collects
the cache for the next window; a whole clip is one window, the first and the last. So one definition of a layer serves
training, direct execution, streaming and tiling, and several clips may run through one model in turns.

In space, a tile has a halo of its neighbours on its inner sides. Layers that look around use it up: they crop the part
of their output that the halo does not cover. At the border of the frame there is no halo, and no crop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vaectl.models.statistics import Statistics


class HaloSides(NamedTuple):
    """For each side of a tile, 1 if it has a halo there, 0 at the border of the frame."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


Padding = Literal["first", "zeros", "none"]
CausalCache = Mapping[nn.Module, Tensor]
"""Earlier frames that each layer still needs. One `StreamContext` makes it, the next one takes it."""
WHOLE_FRAME = HaloSides()


class StreamContext:
    """One pass of consecutive frames of a clip through a network.

    A layer may take or return no frames at all (T = 0). In a causal network the first window has at least one frame in
    every layer; after a layer that looks ahead it may have none.
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
        """Begin a pass. `before`: the `after` of the previous window, None for the first. `last`: no window follows.

        `halo_sides`: the sides on which the tile has a halo, None for a whole frame. `recompute`, for the gradients of
        a whole clip: keep only the input of each block, and compute the rest again in the backward pass. `statistics`:
        of the first input of a segment, for the norm that it begins with; None if that input is complete.
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
        """Call `block` on `x` (B, C, T, H, W); with `recompute`, by gradient checkpointing (Chen et al. 2016)."""
        if self.recompute and torch.is_grad_enabled():
            result: Tensor = checkpoint(block, x, self, use_reentrant=False)
        else:
            result = block(x, self)
        return result

    def get(self, layer: nn.Module) -> Tensor | None:
        """Remove and return the frames that `layer` has put for this window; None if there are none."""
        return self._before.pop(layer, None)

    def put(self, layer: nn.Module, frames: Tensor) -> None:
        """Keep a copy of `frames` for the same layer in the next window. A view would keep the whole window.

        Raises ValueError the second time for a layer: it would lose what it has put before.
        """
        if not self.last:
            if layer in self.after:
                raise ValueError(f"a {type(layer).__name__} keeps frames twice: use a layer once, align with another")
            self.after[layer] = frames.clone(memory_format=torch.channels_last_3d)

    def causal_input(
        self, layer: nn.Module, x: Tensor, kernel: int, stride: int = 1, padding: Padding = "first"
    ) -> Tensor:
        """Prepend to `x` (B, C, T, H, W) the earlier frames that a causal layer needs for its next outputs.

        Before the clip are kernel - 1 copies of its first frame, or as many zeros, or nothing (`padding`). The layer
        makes its outputs from the frames [0, kernel), [stride, stride + kernel), ... of the result; frames that a later
        output needs are kept.
        """
        if kernel == 1 and stride == 1:
            return x
        past = self.get(layer)
        if past is None and x.shape[2] == 0:  # an earlier layer looks ahead, and has returned nothing yet
            return x
        if past is not None:
            frames = torch.cat([past, x], dim=2)
        elif padding == "first":
            frames = torch.cat([x[:, :, :1]] * (kernel - 1) + [x], dim=2)
        else:
            frames = F.pad(x, (0, 0, 0, 0, kernel - 1, 0)) if padding == "zeros" else x
        self.put(layer, frames[:, :, outputs(frames, kernel, stride) * stride :])
        return frames

    def crop_halo(self, x: Tensor, halo: int) -> Tensor:
        """Crop `halo` positions from `x` (B, C, T, H, W) on each inner side."""
        if self.halo_sides == WHOLE_FRAME or halo == 0:
            return x
        top, bottom, left, right = (halo * side for side in self.halo_sides)
        return x[..., top : x.shape[3] - bottom, left : x.shape[4] - right]

    def align(self, layer: nn.Module, early: Tensor, late: Tensor) -> Tensor:
        """Return as many frames of `early` as `late`, from another branch, has; the rest waits for the next window."""
        waiting = self.get(layer)
        if waiting is not None:
            early = torch.cat([waiting, early], dim=2)
        num_frames = late.shape[2]
        self.put(layer, early[:, :, num_frames:])
        return early[:, :, :num_frames]


def outputs(frames: Tensor, kernel: int, stride: int) -> int:
    """Return how many outputs a layer of that kernel and stride makes from `frames` (B, C, T, H, W)."""
    return max(0, (frames.shape[2] - kernel) // stride + 1)
