"""The errors that a user can do something about.

They are raised where they are understood, with one line that names the thing and the remedy, and rendered in one
place (`vaectl.cli.app`). Anything else that escapes is a bug.
"""


class VaectlError(Exception):
    """A run that cannot go on. `str(error)` is one line: what failed, on which file, and what to do."""

    exit_code = 1


class UsageError(VaectlError):
    """A request that could never work as it was given: a wrong option, a missing file, a clash of paths."""

    exit_code = 2
