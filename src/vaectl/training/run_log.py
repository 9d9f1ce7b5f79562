"""What a run writes down at every step: a line of JSON, and the same for TensorBoard.

The lines hold no times, so that a run that was killed and resumed leaves the very same file as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from vaectl.errors import VaectlError
from vaectl.io.journal import Journal, read_lines
from vaectl.progress import Progress
from vaectl.shortage import cannot_write
from vaectl.video.clip import Clip
from vaectl.video.write import write_video


class RunLog:
    """The journals of a run that goes on after `step`: what an earlier process wrote beyond that is cut off."""

    def __init__(self, run: Path, step: int, progress: Progress) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._progress, self._pictures = progress, run / "samples"
        self._lines = {name: Lines(run / name, step, progress.warn) for name in ("metrics.jsonl", "validation.jsonl")}
        # TensorBoard itself passes over what earlier files hold from this step on.
        try:
            self._board: Any = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        except OSError as error:
            raise VaectlError(*cannot_write(run / "tensorboard", error)) from None

    def step(self, step: int, values: Mapping[str, float | str | bool | None], speed: Mapping[str, float]) -> None:
        """Write what a step gave; `speed` goes to TensorBoard alone."""
        self._write("metrics.jsonl", step, values)
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        self._show(
            step, {**{f"train/{k}": v for k, v in numbers.items()}, **{f"speed/{k}": v for k, v in speed.items()}}
        )

    def validation(self, step: int, values: Mapping[str, float], picture_3HW: Tensor | None) -> None:
        """Write what a validation gave: numbers, and a picture in 8 bits."""
        self._write("validation.jsonl", step, values)
        self._show(step, {f"validation/{name}": value for name, value in values.items()})
        if picture_3HW is not None:
            self._to_board("add_image", "samples", picture_3HW, step)
            picture = Clip(picture_3HW.unsqueeze(0), (Fraction(0),), Fraction(1))
            try:
                write_video(self._pictures / f"step-{step:08d}.png", picture, overwrite=True)
            except VaectlError as error:
                self._progress.warn(str(error))

    def flush(self) -> None:
        """Bring all that was written to the disk. Raises VaectlError where that fails."""
        for lines in self._lines.values():
            lines.flush()
        self._to_board("flush")

    def close(self) -> None:
        """Nothing is written after this. What cannot be written any more is given up."""
        self._to_board("close")

    def _write(self, name: str, step: int, values: Mapping[str, Any]) -> None:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        if trouble := self._lines[name].add({"step": step, **finite}):
            self._progress.warn(trouble)

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._to_board("add_scalar", name, value, step)

    def _to_board(self, what: str, *arguments: Any) -> None:
        """TensorBoard's writer never recovers from a write that failed."""
        if self._board is None:
            return
        try:
            getattr(self._board, what)(*arguments)
        except OSError as error:
            self._board = None
            self._progress.warn(
                f"TensorBoard gets nothing more in this run ({error.strerror}); metrics.jsonl has it all"
            )


class Lines:
    """A journal in the order of steps, which says once when its disk is full."""

    def __init__(self, path: Path, step: int, warn: Callable[[str], None] = lambda _: None) -> None:
        """Continue after `step`: later lines, and those from a damaged one on, are removed. Raises VaectlError."""
        self._path, self._in_trouble = path, False
        try:
            size = size_up_to(path, step, warn)
        except OSError as error:
            raise VaectlError(*cannot_write(path, error)) from None
        self._journal = Journal(path, size)
        self.flush = self._journal.flush

    def add(self, value: Mapping[str, Any]) -> str | None:
        """Append a line. Returns a line about what is wrong when the file stops taking any."""
        try:
            self._journal.add(value)
        except OSError as error:
            trouble, self._in_trouble = not self._in_trouble, True
            return (
                f"{self._path}: cannot be written ({error.strerror}); free space, its lines wait" if trouble else None
            )
        self._in_trouble = False
        return None


def size_up_to(path: Path, step: int, warn: Callable[[str], None] = lambda _: None) -> int:
    """How many bytes of a file of lines belong to steps up to `step`, and come before the first that is damaged.

    `warn` hears of a damaged one, unless it is the last, which a kill may have cut short.
    """
    size = last = 0
    for end, value in read_lines(path) if path.exists() else ():
        if value is None or type(value.get("step")) is not int:
            if end < path.stat().st_size:
                warn(f"{path}: is damaged after step {last}; what it says of later steps is cut off")
            break
        if value["step"] > step:
            break
        size, last = end, value["step"]
    return size
