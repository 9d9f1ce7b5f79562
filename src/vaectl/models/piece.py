"""Time, as the layers see it: a clip comes in pieces, and what later outputs still need travels beside them.

Layers keep no run-time state. Each call gets a `Piece`, which holds the state left by the piece before and collects
the state for the next one; a whole clip is one piece that is first and last at once. So one definition of a layer
serves training, direct execution and streaming, and one model object can serve many interleaved clips.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

TimeState = Mapping[nn.Module, Tensor]
"""What each layer needs of the frames that it has seen. Opaque: made by one `Piece`, given to the next."""


class Piece:
    """Consecutive frames of one clip on their way through a network. Used for one pass, then dropped.

    A layer may get or give no frames at all (a tensor with T = 0); the first piece has at least one frame in every
    layer, because causal layers repeat the first frame in front.
    """

    def __init__(self, before: TimeState | None = None, *, last: bool = True) -> None:
        """`before` is the `after` of the previous piece, None for the first; `last` says that no piece follows."""
        self.first = before is None
        self.last = last
        self._before: TimeState = before or {}
        self.after: dict[nn.Module, Tensor] = {}

    def recall(self, layer: nn.Module) -> Tensor | None:
        """What `layer` kept from the piece before; None if nothing."""
        return self._before.get(layer)

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
        past = [x[:, :, :1]] * (kernel - 1) if self.first else [self._before[layer]]
        window = torch.cat([*past, x], dim=2)
        self.keep(layer, window[:, :, outputs(window, kernel, stride) * stride :])
        return window

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
