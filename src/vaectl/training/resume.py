"""Going on where a run stopped: which checkpoint, with which options, and which of them contradict it.

The command line asks this before the job begins, so nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaectl.errors import UsageError
from vaectl.training.folder import checkpoints

if TYPE_CHECKING:
    from vaectl.options.train import TrainOptions

FACTS = "training.json"
LATEST = "latest"

# What a resumed run may do otherwise without a word: it changes nothing of what is computed at a step.
FREE = frozenset(
    "device num_workers strict epochs max_steps eval_video_path eval_steps eval_num_frames eval_resolution"
    " eval_sample_rate eval_batch_size eval_subset_size eval_num_video_log eval_lpips enable_tiling ckpt_dir exp_name"
    " save_ckpt_step save_ckpt_minutes keep log_steps model_name disc_cls find_unused_parameters recipe".split()
)
# What belongs to one start of the command, and is not taken over from the checkpoint.
MOMENTARY = frozenset(
    "resume_from_checkpoint accept_changes not_resume_optimizer not_resume_discriminator json config debug".split()
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
    from vaectl.options.train import TrainOptions

    default = {field.name: field.default for field in fields(TrainOptions) if field.default is not MISSING}
    values: dict[str, Any] = {}
    if recipe := given.get("recipe"):
        from vaectl.training.recipes import read_recipe

        values = read_recipe(recipe)
    layered = {**default, **values, **given}
    checkpoint = checkpoint_to_resume(
        layered["resume_from_checkpoint"], Path(layered["ckpt_dir"]).expanduser(), layered["exp_name"]
    )
    if checkpoint is not None and checkpoint.is_dir():
        recorded = read_facts(checkpoint)["options"]
        values |= {name: value for name, value in recorded.items() if name not in MOMENTARY and value is not None}
    return values


def contradictions(now: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """In words, each option that changes what is computed and is not what the checkpoint recorded."""
    from vaectl.options.option import cli_name

    return [
        f"{cli_name(name)} is {shown(now[name])}, not {shown(value)}"
        for name, value in recorded.items()
        if name in now and name not in FREE | MOMENTARY and now[name] != value
    ]


def shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def recordable(options: TrainOptions) -> dict[str, Any]:
    """The options as plain JSON values that hold wherever the run is resumed: paths are absolute."""
    from vaectl.options.option import dump

    values = dump(options)
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, Path):
            values[field.name] = str(value.absolute())
        elif isinstance(value, tuple) and value and isinstance(value[0], Path):
            values[field.name] = [str(path.absolute()) for path in value]
    return values
