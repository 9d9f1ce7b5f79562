"""The errors that a user can do something about.

They are raised where they are understood, with one line that names the thing and the remedy, and rendered in one
place (`vaectl.cli.app`). Anything else that escapes is a bug.
"""

import re


class VaectlError(Exception):
    """A run that cannot go on. `str(error)` is one line: what failed, on which file, and what to do."""

    exit_code = 1


class UsageError(VaectlError):
    """A request that could never work as it was given: a wrong option, a missing file, a clash of paths."""

    exit_code = 2


_NO_MEMORY = re.compile(r"allocate memory|out of memory|ALLOC_FAILED", re.IGNORECASE)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether memory was short, as Python, NumPy, PyTorch or FFmpeg say it."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def unforeseen(name: object, error: Exception) -> VaectlError:
    """What to report about the clip `name` for an error that nobody foresaw. The other clips of the run go on."""
    said = " ".join(str(error).split())
    if is_lack_of_memory(error):
        return VaectlError(f"{name}: out of memory ({said}); free some, or use smaller frames")
    return VaectlError(
        f"{name}: {type(error).__name__}: {said}; this is a bug: run this clip alone with --debug for the traceback"
    )
