"""The errors that a user can do something about.

They are raised where they are understood, with the problem and a remedy, and rendered in one place (`vaectl.cli.app`).
Any other error that escapes is a bug.
"""

from vaectl.shortage import is_memory_shortage


class VaectlError(Exception):
    """A run that cannot continue.

    `problem` says in one line what failed, on which file; `remedy`, if there is one, what to do. A parameter stands in
    backticks, with its value if there is one: `overwrite`, `dtype=float32`. The command line shows it as an option,
    `--dtype float32`.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem


class UsageError(VaectlError):
    """A request that cannot work as given: a wrong option, a missing file, two outputs with one name."""

    exit_code = 2


class OutOfMemoryError(VaectlError):
    """The machine, or the model's device, is out of memory."""


class DamagedError(VaectlError):
    """A file whose content is not what its format or its name promises."""


def shown(value: object, most: int = 100) -> str:
    """A name or a value that comes out of a file, as a message can hold it: printable, and at most `most` characters.

    What cannot be printed is escaped as in a Python string; what is cut off is marked with `…`.
    """
    text = value if isinstance(value, str) else repr(value)
    if len(text) > most:
        text = text[: most - 1] + "…"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def unforeseen(name: object, error: Exception) -> VaectlError:
    """What to report about the clip `name` after an unexpected error. The run continues with the other clips."""
    said = " ".join(str(error).split())
    if is_memory_shortage(error):
        return VaectlError(f"{name}: out of memory ({said})", "free some, or use smaller frames")
    return VaectlError(
        f"{name}: {type(error).__name__}: {said}", "this is a bug: run this clip alone with `debug` for the traceback"
    )
