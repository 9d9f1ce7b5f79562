"""`vaectl reconstruct`: run the job of the same name and show its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vaectl.cli.derive import Arguments, unexpected
from vaectl.errors import UsageError

if TYPE_CHECKING:
    from vaectl.options import ReconstructOptions
    from vaectl.reconstruction import ClipResult, RunResult

EXAMPLES = """
Examples:
  vaectl reconstruct clip.mp4 rec.mp4
  vaectl reconstruct clips/ more.mp4 out/ --short-size 256
  vaectl reconstruct --video-path clip.mp4 --rec-path rec.mp4
  vaectl reconstruct --config rec.toml --overwrite
"""


def paths_of(arguments: Sequence[str], typed: Mapping[str, Any], configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that arguments mean: the last one of several is the target, as in cp.

    A single one is an input, and with a typed `rec_path` all are. Raises UsageError without a target.
    """
    if "video_path" in typed:
        from vaectl.options import ReconstructOptions

        raise unexpected(ReconstructOptions, arguments, typed)
    if "rec_path" not in typed and len(arguments) > 2:
        *_, last_input, target = arguments
        if Path(last_input).suffix and not Path(last_input).exists():  # probably meant as the output
            raise UsageError(
                f"{last_input}: no such file or folder; the last argument, {target}, is the output", "check the path"
            )
    if len(arguments) == 1 and "rec_path" not in {**typed, **configured}:
        raise UsageError(
            f"{arguments[0]}: is the input, and the output is missing", "give it as a second argument, or as `rec_path`"
        )
    if len(arguments) == 1 or "rec_path" in typed:
        return {"video_path": arguments}
    return {"video_path": arguments[:-1], "rec_path": arguments[-1]}


ARGUMENTS = Arguments(
    "IN... OUT",
    "Videos, images or folders, and the output: a file, or a folder if there are several inputs.",
    paths_of,
)


def reconstruct(options: ReconstructOptions) -> None:
    """Reconstruct videos with a video auto-encoder.

    Writes the reconstructions and prints their PSNR, measured on the 8-bit frames before and after the network. The
    loss of the output codec is reported separately. The last of several arguments is the output, as in cp; with
    --rec-path, all are inputs.
    """
    from vaectl.cli.console import reporter, say
    from vaectl.cli.spelling import as_json
    from vaectl.reconstruction import reconstruct as run

    with reporter() as progress:
        result = run(options, progress)
    if options.json:
        print(as_json(result.as_json()))
    else:
        show(result)
    failed = [clip.error for clip in result.clips if clip.error]
    for error in failed:
        say("error", error)
    if failed:
        raise typer.Exit(1)


def show(result: RunResult) -> None:
    """Print the table of clips and a line about the run on stdout."""
    from vaectl.cli.tables import print_line, print_table, stdout

    console = stdout()
    if any(not clip.error for clip in result.clips):
        titles = ("clip", "frames", "size", "PSNR\ndB", "codec\ndB", "seconds", "frames/s")
        failed = {number: "red" for number, clip in enumerate(result.clips) if clip.error}
        print_table(console, titles, map(row, result.clips), styles=failed)
    memory = f"{result.peak_memory / 2**30:.2f} GiB"
    print_line(
        console, f"{result.model} on {result.device} in {result.dtype}: {result.seconds:.1f} s, peak memory {memory}"
    )
    if result.record:
        print_line(console, f"options and results of this run: {result.record}")


def row(clip: ClipResult) -> tuple[str, ...]:
    """Return the row of a clip in the table."""
    if clip.error:
        return str(clip.source), "failed"
    return (
        str(clip.target),
        str(clip.num_frames),
        f"{clip.width}x{clip.height}",
        f"{clip.psnr:.2f}",
        "" if clip.codec_psnr is None else f"{clip.codec_psnr:.2f}",
        f"{clip.seconds:.1f}",
        "" if (speed := clip.frames_per_second) is None else f"{speed:.{1 if speed >= 1 else 3}f}",
    )
