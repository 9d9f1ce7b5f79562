"""The program: `vaectl`, which is also `python -m vaectl`.

Until the command line can handle signals, Ctrl-C ends the process as it ends programs without Python: at once, and
without a traceback of whatever was being imported.
"""

import os
import signal
import sys

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its sockets warn, with a stack, of what we say in one line

if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> int:
    """Run the command line; gives the exit code."""
    from vaectl.cli.app import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
