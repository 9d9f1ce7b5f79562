"""Entry point of `vaectl` and `python -m vaectl`.

Until the command line handles signals, Ctrl-C ends the process at once, without a traceback of an import.
"""

import os
import signal
import sys

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no stack traces of PyTorch's sockets

if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> int:
    """Run the command line. Returns the exit code."""
    from vaectl.cli.garbage import without_garbage

    with without_garbage():
        from vaectl.cli.app import main

        return main()


if __name__ == "__main__":
    sys.exit(main())
