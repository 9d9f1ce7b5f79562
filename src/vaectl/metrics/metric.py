"""The interfaces of a metric, which compares original and generated clips. Knows tensors only.

A `FrameMetric` gives numbers for each pair of clips; a `SetMetric` gives one number for many pairs. Both take 8-bit
frames, so writing clips losslessly in between changes nothing. Several candidates, each with a generated clip for every
original, are measured together, so that work on the originals is done once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class FrameMetric(Protocol):
    """Compares pairs of clips frame by frame."""

    unit: str
    """The unit after a number: "dB", or "" if there is none."""
    better: Literal["higher", "lower"]

    def measure(self, real_BTCHW: Tensor, generated_BTCHW: Tensor) -> Tensor:
        """Return a number for each frame, or for each two neighbouring frames: (B, n) float64, on the CPU.

        Both (B, T, 3, H, W) uint8 RGB, on any device. Raises UsageError for frames that are too small.
        """


@runtime_checkable
class SharingMetric(FrameMetric, Protocol):
    """A `FrameMetric` that does part of its work on the originals alone."""

    def measure_all(self, real_BTCHW: Tensor, generated: Sequence[Tensor]) -> list[Tensor]:
        """Return what `measure` gives for each of `generated`, computing the part of the originals once."""


def measure_all(metric: FrameMetric, real_BTCHW: Tensor, generated: Sequence[Tensor]) -> list[Tensor]:
    """Return the numbers of each candidate: `generated` has its clips, the result (B, n) float64 for each."""
    if isinstance(metric, SharingMetric):
        return metric.measure_all(real_BTCHW, generated)
    return [metric.measure(real_BTCHW, clips) for clips in generated]


@runtime_checkable
class SetMetric(Protocol):
    """Compares the distribution of generated clips with that of the originals."""

    unit: str
    better: Literal["higher", "lower"]

    def empty(self) -> SetMetric:
        """Return the same metric without clips."""

    def add(self, real_BTCHW: Tensor, generated: Sequence[Tensor]) -> None:
        """Add originals and the clips of each candidate, (B, T, 3, H, W) uint8 RGB each. Memory does not grow."""

    def values(self) -> list[float]:
        """Return the number of each candidate for all pairs so far. Raises UsageError for too few."""

    def state(self) -> Any:
        """Return the state so far, as a value that can be pickled."""

    def merge(self, state: Any) -> None:
        """Add the `state` of the metric of another process."""
