"""The program: `vaectl`, which is also `python -m vaectl`.

Until the command line can handle signals, Ctrl-C ends the process as it ends programs without Python: at once, and
without a traceback of whatever was being imported.
"""

import signal
import sys

if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> int:
    """Run the command line; gives the exit code."""
    from vaectl.cli.app import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
