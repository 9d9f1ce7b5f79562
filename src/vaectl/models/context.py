"""A clip in pieces, as the layers see it: some frames of it, and of these perhaps one tile.

Layers keep no run-time state. Each call gets a `Piece`, which holds the state left by the piece before and collects
the state for the next one; a whole clip is one piece that is first and last at once. So one definition of a layer
serves training, direct execution, streaming and tiling, and one model object can serve many interleaved clips.

In space a tile comes with a margin of its neighbours' pixels on its inner sides. Layers that look around use it up:
they cut from their output what they could not know. At the border of the frame there is no margin and nothing is cut.

A network is written as stages (`Piece.stage`): what lies between one norm that looks at the whole clip and the next.
Here they simply follow each other. `tiling/stages.py` runs each over all pieces before it begins the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vaectl.models.statistics import Statistics

Result = TypeVar("Result", Tensor, tuple[Tensor, ...])


class Sides(NamedTuple):
    """For each side of a tile, whether another tile lies beyond it (1) or the border of the frame (0)."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


TimeState = Mapping[nn.Module, Tensor]
"""What each layer needs of the frames that it has seen. Opaque: made by one `Piece`, given to the next."""


WHOLE_FRAME = Sides()


class Piece:
    """Consecutive frames of one clip on their way through a network. Used for one pass, then dropped.

    A layer may get or give no frames at all (a tensor with T = 0); the first piece has at least one frame in every
    layer, because causal layers repeat the first frame in front.
    """

    def __init__(
        self,
        before: TimeState | None = None,
        *,
        last: bool = True,
        inner: Sides | None = None,
        recompute: bool = False,
        statistics: Statistics | None = None,
        position: int = 0,
    ) -> None:
        """`before` is the `after` of the previous piece, None for the first; `last` says that no piece follows.

        `inner` are the sides on which the frames go on beyond this tile, None for a whole frame. `recompute`, for the
        gradients of a whole clip: keep what goes into each block, and compute what is inside again on the way back.
        `statistics`, for one stage: those of the clip that goes into it, of which this piece begins at the frame
        `position`.
        """
        self.first = before is None
        self.last = last
        # Not a default of the parameter: torch.compile of PyTorch 2.4 to 2.6 cannot trace that.
        self.inner = WHOLE_FRAME if inner is None else inner
        if recompute and not (self.first and last):
            raise ValueError("only a whole clip can be computed again: the state of a piece is gone when it was used")
        self.recompute = recompute
        self.statistics = statistics
        self.position = position
        self._before = dict(before or {})
        self.after: dict[nn.Module, Tensor] = {}

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        """`block` on `x` (B, C, T, H, W) and this piece (Chen et al. 2016, if `recompute`)."""
        if self.recompute and torch.is_grad_enabled():
            result: Tensor = checkpoint(block, x, self, use_reentrant=False)
        else:
            result = block(x, self)
        return result

    def stage(
        self, function: Callable[..., Result], *inputs: Tensor, margin: int = 0, whole_frames: bool = False
    ) -> Result:
        """`function` on `inputs` and this piece: a part of the network that may be run over all pieces on its own.

        The inputs have the same frames, heights and widths. The first thing that may happen in the function is the
        group norm of the first input; no other may. `margin`: what the inputs of a tile need around it.
        `whole_frames`: the function looks at all positions.
        """
        return function(*inputs, self)

    def reshaped(self, function: Callable[..., Tensor], *inputs_BCTHW: Tensor) -> Tensor:
        """`function` on (B·T, C, N), the inputs' values in their order, not permuted; the result shaped as they are."""
        b, c, t, h, w = inputs_BCTHW[0].shape
        return function(*(x.reshape(b * t, c, h * w) for x in inputs_BCTHW)).reshape(b, c, t, h, w)

    def recall(self, layer: nn.Module) -> Tensor | None:
        """What `layer` kept from the piece before, once, so that it is gone when it has been used; None if nothing."""
        return self._before.pop(layer, None)

    def keep(self, layer: nn.Module, frames: Tensor) -> None:
        """Hand `frames` to the same layer in the next piece. Copied, so that the whole piece is not kept alive."""
        if not self.last:
            self.after[layer] = frames.clone()

    def window(self, layer: nn.Module, x: Tensor, kernel: int, stride: int = 1) -> Tensor:
        """`x` (B, C, T, H, W) behind the earlier frames that a causal layer's next outputs touch.

        Before the clip stands its first frame, kernel - 1 times. The layer makes its outputs from the windows
        [0, kernel), [stride, stride + kernel), ... of the result; frames that a later output needs are kept.
        """
        if kernel == 1 and stride == 1:
            return x
        past = [x[:, :, :1]] * (kernel - 1) if self.first else [self._before.pop(layer)]
        window = torch.cat([*past, x], dim=2)
        self.keep(layer, window[:, :, outputs(window, kernel, stride) * stride :])
        return window

    def trim(self, x: Tensor, margin: int) -> Tensor:
        """`x` (B, C, T, H, W) without `margin` positions on each inner side."""
        if self.inner == WHOLE_FRAME or margin == 0:
            return x
        top, bottom, left, right = (margin * side for side in self.inner)
        return x[..., top : x.shape[3] - bottom, left : x.shape[4] - right]

    def match(self, x: Tensor, like: Tensor) -> Tensor:
        """`x` trimmed to the height and width of `like`, if that has lost more of its margin."""
        rows, columns = x.shape[3] - like.shape[3], x.shape[4] - like.shape[4]
        top, bottom, left, right = self.inner
        return self.trim(x, max(0, rows // max(1, top + bottom), columns // max(1, left + right)))

    def align(self, layer: nn.Module, early: Tensor, late: Tensor) -> Tensor:
        """The frames of `early` that meet those of `late`, of another branch; the rest waits for the next piece."""
        waiting = self.recall(layer)
        if waiting is not None:
            early = torch.cat([waiting, early], dim=2)
        frames = late.shape[2]
        self.keep(layer, early[:, :, frames:])
        return early[:, :, :frames]


def outputs(window: Tensor, kernel: int, stride: int) -> int:
    """How many outputs a layer of that kernel and stride makes from `window` (B, C, T, H, W)."""
    return max(0, (window.shape[2] - kernel) // stride + 1)
