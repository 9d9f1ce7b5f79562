"""What a metric is: something that compares original and generated clips. Knows tensors only.

There are two kinds. A `FrameMetric` gives numbers for each pair of clips by itself; a `SetMetric` looks at many pairs
and gives one number for all of them. Both take 8-bit frames, so writing clips losslessly in between changes nothing.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class FrameMetric(Protocol):
    """Compares pairs of clips frame by frame."""

    unit: str
    """As it stands behind a number: "dB", or "" where there is none."""
    better: Literal["higher", "lower"]

    def measure(self, real_BTCHW: Tensor, generated_BTCHW: Tensor) -> Tensor:
        """One number for each frame (or for each pair of neighbouring frames) of each pair: (B, n) float64, on the CPU.

        Both (B, T, 3, H, W) uint8 RGB, on any device. Raises UsageError for frames that are too small for it.
        """


@runtime_checkable
class SetMetric(Protocol):
    """Compares the distribution of generated clips with that of the originals."""

    unit: str
    better: Literal["higher", "lower"]

    def add(self, real_BTCHW: Tensor, generated_BTCHW: Tensor) -> None:
        """Take in some pairs, (B, T, 3, H, W) uint8 RGB each. Memory does not grow with their number."""

    def value(self) -> float:
        """The number for all pairs so far. Raises UsageError for too few."""

    def state(self) -> Any:
        """What was taken in so far, as a value that another process can be sent."""

    def merge(self, state: Any) -> None:
        """Take in what the metric of another process had taken in when it gave its `state`."""
