"""`vaectl models`: run `vaectl.inventory` and show the models."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaectl.inventory import ModelFacts, Published
    from vaectl.options.models import ModelsOptions

HOW_TO_USE = (
    "The built-in model is the default. To use another one, pass its name on Hugging Face, as in"
    " --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers, or download it with hf and pass --model as shown. Both need the package"
    " huggingface_hub."
)
MOST_CHANNELS = 8
"""Of more channels, only the range of the values is shown."""
EXAMPLES = """
Examples:
  vaectl models
  vaectl models results/vae/best --weights raw
  vaectl models WF-VAE-L-16Chn/ --json
  vaectl models chestnutlzj/WF-VAE-L-16Chn
"""


def models(options: ModelsOptions) -> None:
    """Describe a model, or list the known models.

    With a PATH or a name on Hugging Face: describe that checkpoint. Only the header of the file is read, so the
    size does not matter. Without: list the built-in model and the published checkpoints.
    """
    from vaectl.cli.console import reporter
    from vaectl.inventory import PUBLISHED, describe

    path = options.path or options.model
    with reporter() as progress:
        facts = describe(path, options.weights, progress=progress)
    if path is not None and not options.json:
        show(facts)
    elif path is not None:
        print(json.dumps(asdict(facts)))
    elif not options.json:
        show_all(facts, PUBLISHED)
    else:
        listed = [asdict(each) | {"path": each.path, "download": " ".join(each.download)} for each in PUBLISHED]
        print(json.dumps({"builtin": asdict(facts), "published": listed}))


def show(facts: ModelFacts) -> None:
    """Print the facts of one model on stdout."""
    from vaectl.cli.tables import print_facts, stdout

    rows = {
        "weights": f"{facts.path} ({size(facts.bytes)}, {facts.dtype})",
        "family": facts.class_name + (f" ({facts.version})" if facts.version else ""),
        "parameters": count(facts.parameters),
        "compression": f"{facts.compression}, {facts.latent_channels} latent channels",
        "shift": channels(facts.shift),
        "scale": channels(facts.scale),
        "long clips": streaming(facts.streams),
    }
    if facts.commit is not None:
        rows["commit"] = facts.commit
    if facts.weights is not None:
        others = [f"; --weights {other} for the others" for other in facts.available if other != facts.weights]
        rows["averaged"] = {"ema": "yes (EMA)", "raw": "no (raw)"}[facts.weights] + "".join(others)
    if facts.step is not None:
        rows["step"] = str(facts.step)
    print_facts(stdout(), rows)


def show_all(builtin: ModelFacts, published: tuple[Published, ...]) -> None:
    """Print the known models on stdout."""
    from vaectl.cli.tables import print_line, print_table, stdout

    console = stdout()
    known: list[tuple[str, ModelFacts | Published]] = [("built-in model", builtin)]
    known += [(each.name, each) for each in published]
    rows = [
        (
            name,
            model.family,
            count(model.parameters),
            size(4 * model.parameters),
            model.compression,
            str(model.latent_channels),
        )
        for name, model in known
    ]
    print_table(console, ("model", "family", "parameters", "float32", "compression", "latent"), rows, names=(0, 1))
    for line in textwrap.wrap(HOW_TO_USE, min(console.width, 80), break_long_words=False, break_on_hyphens=False):
        print_line(console, line)
    for each in published:
        first, *others = each.download
        print(f"\n{each.name}: --model {each.path or 'FOLDER, the one with config.json in it'}")
        print(f"  {first} \\\n    {' '.join(others)}")


def count(parameters: int) -> str:
    return f"{parameters / 1e6:.{1 if parameters < 1e8 else 0}f}M"


def size(number: int) -> str:
    """Format bytes in decimal units, as disks and downloads do."""
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.{1 if number < 1e8 else 0}f} MB"


def channels(values: tuple[float, ...]) -> str:
    """Format the values of the channels: one if all are equal, and the range if there are very many."""
    if len(values) > MOST_CHANNELS and len(set(values)) > 1:
        return f"{min(values):.4g} to {max(values):.4g}, one per channel (--json lists them)"
    return " ".join(f"{value:.4g}" for value in (values if len(set(values)) > 1 else values[:1]))


def streaming(streams: bool) -> str:
    if streams:
        return "streamed; memory does not grow with their length"
    return "need --enable-tiling, because GroupNorm or AttnBlock3D uses all frames"
