"""Going on where a run stopped: which checkpoint, with which options, and which of them contradict it.

The command line asks this before the job begins, so nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from vaectl.errors import UsageError
from vaectl.options.common import RUN
from vaectl.options.option import Option, cli_name, dump, options_of
from vaectl.options.train import CHECKPOINTS, VALIDATION, TrainOptions
from vaectl.training.folder import LATEST, checkpoints

FACTS = "training.json"


def is_free(name: str, option: Option) -> bool:
    """Whether a resumed run may have another value without a word: it changes nothing of what a step computes."""
    return option.panel in (VALIDATION, CHECKPOINTS, RUN) or name in (
        *("device", "num_workers", "strict", "epochs", "max_steps"),
        *("lpips_weights", "model_name", "disc_cls", "find_unused_parameters"),
    )


def checkpoint_to_resume(wish: str | None, ckpt_dir: Path, exp_name: str) -> Path | None:
    """The directory that `--resume-from-checkpoint` means; None where it is not given, or `latest` finds none.

    Raises UsageError for a path that does not exist.
    """
    if wish is None:
        return None
    if wish == LATEST:
        return next(reversed(checkpoints(ckpt_dir / exp_name).values()), None)
    path = Path(wish).expanduser()
    if not path.exists():
        raise UsageError(f"{path}: no such checkpoint; give a path, or latest for the last one of --exp-name")
    inside = checkpoints(path)
    return next(reversed(inside.values())) if inside else path.resolve()


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint's training.json says. Raises UsageError where there is none."""
    try:
        facts: dict[str, Any] = json.loads((checkpoint / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{checkpoint}: is no training checkpoint of vaectl ({FACTS}: {getattr(error, 'strerror', None) or error});"
            " --pretrained-model-name-or-path begins a new run with the weights of any model"
        ) from None
    return facts


def underlying(given: Mapping[str, Any]) -> dict[str, Any]:
    """What holds where nothing is `given`: the options of the checkpoint to resume from, above those of a recipe."""
    default = {field.name: field.default for field in fields(TrainOptions) if field.default is not MISSING}
    values: dict[str, Any] = {}
    if recipe := given.get("recipe"):
        from vaectl.training.recipes import read_recipe

        values = read_recipe(recipe)
    layered = {**default, **values, **given}
    checkpoint = checkpoint_to_resume(
        layered["resume_from_checkpoint"], Path(layered["ckpt_dir"]).expanduser(), layered["exp_name"]
    )
    if checkpoint is not None and (checkpoint / FACTS).is_file():
        recorded = read_facts(checkpoint)["options"]
        lasting = {name for name, option in options_of(TrainOptions).items() if option.in_file}
        values |= {name: value for name, value in recorded.items() if name in lasting and value is not None}
    return values


def contradictions(options: TrainOptions, recorded: Mapping[str, Any]) -> list[str]:
    """In words, each option that changes what is computed and is not what the checkpoint recorded."""
    now = recordable(options)
    return [
        f"{cli_name(name)} is {now[name]}, not {recorded[name]}"
        for name, option in options_of(type(options)).items()
        if name in recorded and not is_free(name, option) and now[name] != recorded[name]
    ]


def recordable(options: TrainOptions) -> dict[str, Any]:
    """The options as plain JSON values that hold wherever the run is resumed: paths are absolute."""
    values = dump(options)
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, Path):
            values[field.name] = str(value.absolute())
        elif isinstance(value, tuple) and value and isinstance(value[0], Path):
            values[field.name] = [str(path.absolute()) for path in value]
    return values
