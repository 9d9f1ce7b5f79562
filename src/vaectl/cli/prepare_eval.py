"""`vaectl prepare-eval`: run the job of the same name and show its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from vaectl.evaluation.prepare import PrepareResult
    from vaectl.options import PrepareEvalOptions

EXAMPLES = """
Examples:
  vaectl prepare-eval --real-video-dir clips/ --generated-video-dir out/
  vaectl prepare-eval --real-video-dir clips/ --generated-video-dir out/ \\
    --model model/ --num-frames 17 --sample-rate 2 --output-origin
  torchrun --nproc-per-node 8 -m vaectl prepare-eval --config prepare.toml
"""

REASONS = 10
"""Maximum number of reasons shown; the manifest has all."""


def prepare_eval(options: PrepareEvalOptions) -> None:
    """Reconstruct a folder of clips, or one clip, with a video auto-encoder, for eval.

    Follows the published protocol: take the first frames, resize the shorter side, crop the centre. Writes the
    reconstructions without loss and records in manifest.json how they were made. A stopped run continues when started
    again.
    """
    from vaectl.cli.console import reporter, say
    from vaectl.cli.spelling import as_json
    from vaectl.distributed import is_main
    from vaectl.evaluation.prepare import prepare

    with reporter() as progress:
        result = prepare(options, progress)
    if is_main():
        if options.json:
            print(as_json(result.as_json()))
        else:
            show(result, options)
        reasons = [clip.reason or "" for clip in result.manifest.clips if clip.status == "failed"]
        for reason in reasons[:REASONS]:
            say("error", reason)
        if result.failed:
            say("error", f"clips left out: {result.failed}; {options.generated_video_dir}/manifest.json says why")
    if result.failed:
        raise typer.Exit(1)


def underlying(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options below the `given` ones: those of the protocol that this command has."""
    from vaectl.evaluation.protocols import options_of_protocol

    values = options_of_protocol(given)
    values.pop("metric", None)
    if {"crop_size_width", "crop_size_height"} & given.keys():  # other names of the option
        values.pop("crop_size", None)
    return values


def show(result: PrepareResult, options: PrepareEvalOptions) -> None:
    """Print the counts and settings of the run on stdout."""
    from dataclasses import asdict

    from vaectl.cli.tables import print_facts, stdout
    from vaectl.evaluation.protocols import frames_in_words

    model, protocol = result.manifest.model, result.manifest.protocol
    sizes = sorted({(clip.width, clip.height) for clip in result.manifest.clips if clip.status == "ok"})
    size = "x".join(map(str, sizes[0])) if len(sizes) == 1 else f"{len(sizes)} sizes"
    rgb = ", RGB by swscale" if protocol.rgb_conversion == "swscale" else ""
    counts = [f"{result.made} made"]
    counts += [f"{result.kept} kept from before"] * (result.kept > 0) + [f"{result.failed} failed"] * (
        result.failed > 0
    )
    rows = {
        "clips": ", ".join(counts),
        "frames": f"{frames_in_words(asdict(protocol), ' of each clip')}, {size}{rgb}",
        "model": f"{model.path or 'built-in model'} on {model.device} in {model.dtype}",
        "written": str(options.generated_video_dir),
        "manifest": str(result.manifest_path),
        "time": f"{result.seconds:.1f} s, peak memory {result.peak_memory / 2**30:.2f} GiB",
    }
    print_facts(stdout(), rows)
