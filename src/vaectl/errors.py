"""The errors that a user can do something about.

They are raised where they are understood, with one line that names the thing and the remedy, and rendered in one
place (`vaectl.cli.app`). Anything else that escapes is a bug.
"""

from vaectl.shortage import is_memory_shortage


class VaectlError(Exception):
    """A run that cannot go on. `str(error)` is one line: what failed, on which file, and what to do."""

    exit_code = 1


class UsageError(VaectlError):
    """A request that could never work as it was given: a wrong option, a missing file, a clash of paths."""

    exit_code = 2


class OutOfMemoryError(VaectlError):
    """The machine, or the model's device, has no room for what it was given."""


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
    """What to report about the clip `name` for an error that nobody foresaw. The other clips of the run go on."""
    said = " ".join(str(error).split())
    if is_memory_shortage(error):
        return VaectlError(f"{name}: out of memory ({said}); free some, or use smaller frames")
    return VaectlError(
        f"{name}: {type(error).__name__}: {said}; this is a bug: run this clip alone with --debug for the traceback"
    )
