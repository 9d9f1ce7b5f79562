"""Errors that the user can fix.

They are raised with a problem and a remedy, and shown in one place (`vaectl.cli.app`). Any other error that reaches the
user is a bug.
"""

from collections.abc import Iterable
from itertools import islice

from vaectl.shortage import is_memory_shortage


class VaectlError(Exception):
    """A run that cannot continue.

    `problem` says in one line what failed, and on which file. `remedy` says what to do, or is empty. Both put
    parameters in backticks, with a value if needed: `overwrite`, `dtype=float32`. The command line shows them as
    its options (`vaectl.cli.spelling`).
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem


class UsageError(VaectlError):
    """A request that cannot work: for example a wrong option, a missing file, or two outputs with one name."""

    exit_code = 2


class OutOfMemoryError(VaectlError):
    """The machine, or the model's device, is out of memory."""


class DamagedError(VaectlError):
    """A file whose content does not match its format or name."""


def shown(value: object, most: int = 100) -> str:
    """Return a name or value from a file as printable text of at most `most` characters, for a message.

    Other characters are escaped as in a Python string. A cut is marked with `…`.
    """
    text = value if isinstance(value, str) else repr(value)
    if len(text) > most:
        text = text[: most - 1] + "…"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def first_few(names: Iterable[str], count: int = 3) -> str:
    """Format the first names from a file for a message."""
    names = iter(names)
    first = [shown(name) for name in islice(names, count)]
    return ", ".join(first) + (", …" if any(True for _ in names) else "")


BUG = "this is a bug: please report it"
OF_CLIP = "this is a bug: run this clip alone with `debug` for the traceback"


def unforeseen(name: object, error: Exception, remedy: str = OF_CLIP) -> VaectlError:
    """Return the error to report for a clip, or a step, `name` after an unexpected one. The run continues."""
    said = " ".join(str(error).split())
    if is_memory_shortage(error):
        return VaectlError(f"{name}: out of memory ({said})", "free some, or use smaller frames")
    return VaectlError(f"{name}: {type(error).__name__}: {said}", remedy)
