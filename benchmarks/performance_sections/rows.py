"""What sections take and give."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    published: Path | None = None
    """A clone of PKU-YuanGroup/WF-VAE."""
    shapes: Sequence[tuple[int, int, int]] = ((17, 128, 128), (9, 256, 256), (33, 256, 256))
    """Frames, height and width of the clips for WF-VAE-S; layers and bfloat16 take the first two."""
    turns: int = 3
    tiny: bool = False
    """Only try the code, on tiny shapes."""
    processor_time: bool = False
    """Measure the time of the processor instead of that on the wall."""

    @property
    def clock(self) -> Callable[[], float]:
        return time.process_time if self.processor_time else time.perf_counter


@dataclass(frozen=True)
class Row:
    """vaectl, and what it is compared with."""

    what: str
    on: str
    """The model or the file, and the size of the clip."""
    seconds: float
    peer: str = ""
    peer_seconds: float | None = None
    work: int = 0
    """Operations that both have to do, as the direct formulation has them; 0 if there is little arithmetic."""
    limit: float = 0.0
    """FLOP/s of this machine for a large convolution."""
    count: int = 0
    """The number of frames or samples in this time, if rates are more usual than seconds."""
    counted: str = "frames"
    difference: float | None = None
    """The largest, relative to the peer."""


@dataclass(frozen=True)
class LayerRow:
    """A kind of layer in one job: seconds, and the least seconds with three formulations of convolutions."""

    job: str
    clip: str
    kind: str
    seconds: float
    work: int
    least: tuple[float, ...]


@dataclass(frozen=True)
class GrowthRow:
    """Time and memory of a run whose size is one of several in a series."""

    over: str
    """What grows: frames, pixels of a side, or clips."""
    series: str
    size: int
    seconds: float
    added: int
    """Bytes that the run adds to the process, at its peak."""


@dataclass(frozen=True)
class LeftOut:
    what: str
    reason: str


AnyRow = Row | LayerRow | GrowthRow | LeftOut
