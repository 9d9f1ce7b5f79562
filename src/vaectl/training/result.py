"""The result of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaectl.io.json_values import plain


@dataclass(frozen=True)
class TrainResult:
    """The result of a run."""

    run: Path
    checkpoint: Path
    """The last checkpoint, a model directory."""
    step: int
    loss: float | None
    """Of the last step of the generator; None if this process trained none."""
    best: dict[str, float] | None
    """The best validation, with its `step`; None without validation."""
    skipped: int
    """Steps without an update, because the loss or the gradient was not finite."""
    seconds: float
    clips_per_second: float
    waiting: float
    """The fraction of the time that the network waited for clips."""
    decoding: float
    """Frames per second that one data worker reads and resizes."""
    peak_memory: int
    """Bytes: of this process on the CPU; reserved by PyTorch on a GPU."""
    clips: Sequence[Path] = ()
    """Videos to try the model on: those of the validation, else one of the training."""

    left_out: int = 0
    """Clips of the validation that it leaves out, because they cannot be read or are too short."""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values, without `clips` and `left_out`."""
        return {name: plain(value) for name, value in asdict(self).items() if name not in ("clips", "left_out")}
