"""The program: its commands, errors, signals and exit codes.

Errors that end a run are shown here and nowhere else. Does not know what a command does.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vaectl import options
from vaectl.cli import compare, eval, interruption, models, prepare_eval, reconstruct, train
from vaectl.cli.derive import Underlying, add_command
from vaectl.cli.help import Guide
from vaectl.distributed import RENDEZVOUS
from vaectl.errors import UsageError, VaectlError, shown
from vaectl.io.terminal import leave_lost_terminal
from vaectl.memory import expand_segments
from vaectl.shortage import is_memory_shortage

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


class Commands(Guide, TyperGroup):
    """The commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line. The options for completion may have a value, the name of a shell."""
        name, _, shell = args[0].partition("=") if args else ("", "", "")
        for parameter in self.get_params(ctx):
            if parameter.metavar == "[SHELL]" and name in parameter.opts and not ctx.resilient_parsing:
                shell = shell or next(iter(args[1:]), "")
                if shell and shell not in SHELLS:
                    raise UsageError(f"{name}: unknown shell {shown(shell)}", f"give one of {', '.join(SHELLS)}")
                parameter.callback(ctx, parameter, shell or True)  # ends the program
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters; those for completion with a place for the name of a shell."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if parameter.name in ("show_completion", "install_completion"):
                verb = parameter.name.partition("_")[0].capitalize()
                parameter.metavar = "[SHELL]"
                parameter.help = f"{verb} completion for the current shell, or for SHELL: {', '.join(SHELLS)}."
        return parameters


COMMANDS: tuple[tuple[Callable[[Any], None], Callable[[], type[Any]], str], ...] = (
    (train.train, lambda: options.TrainOptions, train.EXAMPLES),
    (reconstruct.reconstruct, lambda: options.ReconstructOptions, reconstruct.EXAMPLES),
    (prepare_eval.prepare_eval, lambda: options.PrepareEvalOptions, prepare_eval.EXAMPLES),
    (eval.eval, lambda: options.EvalOptions, eval.EXAMPLES),
    (compare.compare, lambda: options.CompareOptions, compare.EXAMPLES),
    (models.models, lambda: options.ModelsOptions, models.EXAMPLES),
)
"""Each command, a function that imports its options, and the examples below its help."""

UNDERLYING: dict[Callable[[Any], None], Underlying] = {
    train.train: train.underlying,
    prepare_eval.prepare_eval: prepare_eval.underlying,
    eval.eval: eval.underlying,
}
"""Where a command looks up options that are not given."""

app = typer.Typer(cls=Commands, invoke_without_command=True)
for _command in COMMANDS:
    _arguments = reconstruct.ARGUMENTS if _command[0] is reconstruct.reconstruct else None
    add_command(app, *_command, UNDERLYING.get(_command[0]), _arguments)


@app.callback(
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["--help", "-h"],
    }
)
def vaectl(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version, and those of Python, PyTorch and PyAV.")
    ] = False,
    versions: Annotated[
        bool, typer.Option("--versions", help="Print all versions and the hardware, for a bug report.")
    ] = False,
) -> None:
    """Train, run and measure causal video auto-encoders (Wan, Qwen-Image, WF-VAE, CausalVAE)."""
    if version:
        from vaectl.versions import summary

        typer.echo(summary())
    elif versions:
        from vaectl.versions import environment

        for name, value in environment():
            typer.echo(f"{name:<14} {value}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0, 1 for a failed run, 2 for wrong usage, 128 + n after signal n."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    status, message = 1, ""
    expand_segments()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may contain bytes that are not text
    with _signals_stop_the_run() as received:
        try:
            status = typer.main.get_command(app).main(arguments, prog_name="vaectl", standalone_mode=False) or 0
            print(end="", flush=True)
        except KeyboardInterrupt:
            pass
        except Exception as error:
            lost = _is_of_output(error)
            if lost:
                # Stdout is closed or the disk is full; without this, Python reports it again at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if not (lost and isinstance(error, BrokenPipeError)):
                if "--debug" in arguments:
                    traceback.print_exc()
                status, message = _describe(error, "standard output" if lost else "the system")
    if received:
        status, message = 128 + received[0], "interrupted"
    if message:
        from vaectl.cli.console import say

        say("error", message)
    deaf = any(thread.name == RENDEZVOUS for thread in threading.enumerate())
    if deaf or (received and threading.active_count() > 1):
        # A thread is still computing, and PyTorch aborts if the interpreter exits meanwhile.
        os._exit(status)
    return status


@contextmanager
def _signals_stop_the_run() -> Iterator[list[int]]:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt like Ctrl-C, so that the run cleans up; yields received signals.

    Signals that the parent process ignores stay ignored: SIGINT for background jobs, SIGHUP under nohup.
    """
    received = interruption.received
    received.clear()

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        leave_lost_terminal()
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_of_output(error: Exception) -> bool:
    """Whether an error comes from printing: stdout is closed, or its disk is full."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = str(trace.tb_frame.f_globals.get("__name__")) if trace is not None else ""
    printing = place.startswith(("vaectl.cli.", "rich.", "typer."))
    return isinstance(error, OSError) and error.filename is None and printing


def _describe(error: Exception, place: str) -> tuple[int, str]:
    """Return the exit code and the message of an error; `place` names the origin of an error without a file name."""
    if is_memory_shortage(error) and not isinstance(error, VaectlError):
        return 1, "out of memory; free some, or use smaller frames, fewer frames, or a smaller batch"
    if isinstance(error, VaectlError):
        return error.exit_code, str(error)
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        return error.exit_code, error.format_message().rstrip(".") + hint
    if isinstance(error, OSError):
        return 1, f"{error.filename or place}: {error.strerror}; check its permissions and free space"
    return 1, f"{type(error).__name__}: {error}; this is a bug: run again with --debug for the traceback"
