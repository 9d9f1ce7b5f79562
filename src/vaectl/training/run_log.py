"""The journals of a run: a line of JSON per step and per validation, and the same values for TensorBoard.

The lines contain no times, so a run that was killed and resumed writes the same file as an uninterrupted one.
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
from vaectl.training.run_dir import METRICS, TENSORBOARD, VALIDATIONS
from vaectl.video.clip import Clip
from vaectl.video.write import write_video


class RunLog:
    """The journals of a run that continues after `step`. Later entries of an earlier process are removed."""

    def __init__(self, run: Path, step: int, progress: Progress, *, validation_due: bool = False) -> None:
        """`validation_due`: the validation of `step` is repeated, so its entry is removed too."""
        from torch.utils.tensorboard import SummaryWriter

        self._progress, self._pictures = progress, run / "samples"
        last = {METRICS: step, VALIDATIONS: step - validation_due}
        self._lines = {name: Lines(run / name, last[name], progress.warn) for name in last}
        # TensorBoard ignores later steps in earlier files.
        try:
            self._board: Any = SummaryWriter(str(run / TENSORBOARD), purge_step=last[VALIDATIONS] + 1)
        except OSError as error:
            raise VaectlError(*cannot_write(run / TENSORBOARD, error)) from None
        if validation_due:  # TensorBoard ignores the losses of `step` too
            for _, values in read_lines(run / METRICS):
                if values and values["step"] == step:
                    self._show_losses(step, values)

    def step(self, step: int, values: Mapping[str, float | str | bool | None], speed: Mapping[str, float]) -> None:
        """Write the values of a step; `speed` goes only to TensorBoard."""
        self._write(METRICS, step, values)
        self._show_losses(step, values)
        self._show(step, {f"speed/{name}": value for name, value in speed.items()})

    def validation(self, step: int, values: Mapping[str, float], picture_3HW: Tensor | None) -> None:
        """Write the values of a validation, and its picture, (3, H, W) uint8."""
        self._write(VALIDATIONS, step, values)
        self._show(step, {f"validation/{name}": value for name, value in values.items()})
        if picture_3HW is not None:
            self._to_board("add_image", "samples", picture_3HW, step)
            picture = Clip(picture_3HW.unsqueeze(0), (Fraction(0),), Fraction(1))
            try:
                write_video(self._pictures / f"step-{step:08d}.png", picture, overwrite=True)
            except VaectlError as error:
                self._progress.warn(str(error))

    def flush(self) -> None:
        """Flush everything to the disk. Raises VaectlError if that fails."""
        for lines in self._lines.values():
            lines.flush()
        self._to_board("flush")

    def close(self) -> None:
        """Close the journals. Lines that cannot be written are lost."""
        self._to_board("close")

    def _write(self, name: str, step: int, values: Mapping[str, Any]) -> None:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        if message := self._lines[name].add({"step": step, **finite}):
            self._progress.warn(message)

    def _show_losses(self, step: int, values: Mapping[str, Any]) -> None:
        self._show(step, {f"train/{name}": value for name, value in values.items() if isinstance(value, float)})

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._to_board("add_scalar", name, value, step)

    def _to_board(self, what: str, *arguments: Any) -> None:
        """Call a method of TensorBoard's writer. After a failed write it does not recover, so it is dropped."""
        if self._board is None:
            return
        try:
            getattr(self._board, what)(*arguments)
        except OSError as error:
            self._board = None
            self._progress.warn(
                f"writing for TensorBoard failed ({error.strerror}) and stops; metrics.jsonl has all values"
            )


class Lines:
    """A journal in the order of steps. Reports a failed write once."""

    def __init__(self, path: Path, step: int, warn: Callable[[str], None] = lambda _: None) -> None:
        """Continue after `step`. Removes later lines, and all lines after a damaged one. Raises VaectlError."""
        self._path, self._failing = path, False
        try:
            size = size_up_to(path, step, warn)
        except OSError as error:
            raise VaectlError(*cannot_write(path, error)) from None
        self._journal = Journal(path, size)
        self.flush = self._journal.flush

    def add(self, value: Mapping[str, Any]) -> str | None:
        """Append a line. Return a message at the first of several failed writes, else None."""
        try:
            self._journal.add(value)
        except OSError as error:
            first, self._failing = not self._failing, True
            message = f"{self._path}: cannot be written ({error.strerror}); free space, its lines wait in memory"
            return message if first else None
        self._failing = False
        return None


def size_up_to(path: Path, step: int, warn: Callable[[str], None] = lambda _: None) -> int:
    """Return the bytes of a journal up to the last line of `step`, or up to the first damaged line.

    `warn` gets a message about a damaged line, unless it is the last one, which a kill may have cut short.
    """
    size = last = 0
    for end, value in read_lines(path) if path.exists() else ():
        if value is None or type(value.get("step")) is not int:
            if end < path.stat().st_size:
                warn(f"{path}: is damaged after step {last}; its later lines are removed")
            break
        if value["step"] > step:
            break
        size, last = end, value["step"]
    return size
