"""Resuming a run: which checkpoint, with which options, and which options contradict the checkpoint.

The command line uses this before the job starts, so nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from vaectl.errors import UsageError
from vaectl.model_names import hub_name, is_builtin
from vaectl.options.common import RUN, expand_user
from vaectl.options.option import Option, dump, options_of
from vaectl.options.train import CHECKPOINTS, VALIDATION, TrainOptions
from vaectl.training.run_dir import LATEST, checkpoints
from vaectl.training.whole import FACTS, damage, last_whole, read_facts
from vaectl.urls import check_local

START = ("recipe", "model", "weights", "model_config", "init", "ignore_mismatched_sizes")
"""How a run started. These options have no effect on a resumed run, so it cannot record other values of them."""


def is_free(name: str, option: Option) -> bool:
    """Return whether a resumed run may change the option without a warning: it does not affect what a step computes."""
    return (option.panel in (VALIDATION, CHECKPOINTS, RUN) and name not in START) or name in (
        *("device", "num_workers", "strict", "epochs", "max_steps", "json"),
        *("lpips_weights", "model_name", "disc_cls", "find_unused_parameters"),
    )


def silent(_warning: str) -> None:
    """Ignore the warning."""


def checkpoint_to_resume(
    wish: str | None, ckpt_dir: Path, exp_name: str, warn: Callable[[str], None] = silent
) -> Path | None:
    """Return the checkpoint that `resume_from_checkpoint` means; None if not given, or if `latest` finds none.

    `latest`, the directory of a run and its link `latest` mean the last complete checkpoint of the run. `warn` gets a
    line for each damaged one after it. Raises UsageError for a path that does not exist and for a damaged checkpoint.
    """
    if wish is None:
        return None
    if wish == LATEST:
        return last_whole(ckpt_dir / exp_name, warn)
    check_local(wish)
    path = expand_user(wish)
    if path.name == LATEST and (path.is_symlink() or not path.exists()) and checkpoints(path.parent):
        return last_whole(path.parent, warn)
    if not path.exists():
        raise UsageError(f"{path}: no such checkpoint", "give a path, or latest for the last checkpoint of `exp_name`")
    if (whole := last_whole(path, warn)) is not None:
        return whole
    if (path / FACTS).exists() and (reason := damage(path)) is not None:
        raise UsageError(reason, "take another checkpoint, or latest for the last complete one of `exp_name`")
    return path.resolve()


def underlying(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of options that are not `given`: those of the checkpoint to resume from, then of the recipe."""
    default = {field.name: field.default for field in fields(TrainOptions) if field.default is not MISSING}
    values: dict[str, Any] = {}
    if isinstance(recipe := given.get("recipe"), str) and recipe:  # `parse` rejects other types
        from vaectl.training.recipes import read_recipe

        values = read_recipe(recipe)
        if given.get("model"):  # the recipe's start is that of a new model
            values.pop("init", None)
            if not given.get("ignore_mismatched_sizes"):
                values.pop("model_config", None)
    layered = {**default, **values, **given}
    if not all(isinstance(layered[name], str | Path) for name in ("ckpt_dir", "exp_name")):
        return values
    checkpoint = checkpoint_to_resume(
        layered["resume_from_checkpoint"], expand_user(str(layered["ckpt_dir"])), layered["exp_name"]
    )
    if checkpoint is not None and (checkpoint / FACTS).is_file():
        recorded = read_facts(checkpoint).options
        lasting = {name for name, option in options_of(TrainOptions).items() if option.in_file} - {"json"}
        values |= {name: value for name, value in recorded.items() if name in lasting}
    return {name: value for name, value in values.items() if value is not None}


def contradictions(options: TrainOptions, recorded: Mapping[str, Any]) -> dict[str, str]:
    """Return a phrase for each option that affects the result and differs from the checkpoint, by its name."""
    now = recordable(options)
    return {
        name: f"`{name}` is {now[name]}, not {recorded[name]}"
        for name, option in options_of(type(options)).items()
        if name in recorded and not is_free(name, option) and now[name] != recorded[name]
    }


def check_start(options: TrainOptions, checkpoint: Path) -> None:
    """Raise UsageError for options that the checkpoint rules out, with or without `accept_changes`.

    They are `START`, the discriminator to start from if the checkpoint has one, and with the state of the optimizer
    `freeze_encoder`: the state is of other parameters.
    """
    recorded = read_facts(checkpoint).options
    different = contradictions(options, recorded)
    keeps_discriminator = recorded["disc_weight"] and not options.not_resume_discriminator
    start = (*START, "load_disc_from_checkpoint") if keeps_discriminator else START
    if fixed := {name: phrase for name, phrase in different.items() if name in start}:
        raise UsageError(
            f"{checkpoint}: was trained with other options: {'; '.join(fixed.values())}",
            f"leave out {', '.join(f'`{name}`' for name in fixed)}: no effect on a resumed run; or start a new run",
        )
    if "freeze_encoder" in different and not options.not_resume_optimizer:
        accepted = options.accept_changes or options.not_resume_training_process
        raise UsageError(
            f"{checkpoint}: was trained with other options: {different['freeze_encoder']}",
            f"pass {'' if accepted else '`accept_changes` and '}`not_resume_optimizer`, because the optimizer then has"
            " other parameters",
        )


def recordable(options: TrainOptions) -> dict[str, Any]:
    """Return the options as plain JSON values, with absolute paths, so that a run can resume from any directory."""
    values = dump(options)
    for field in fields(options):
        value = getattr(options, field.name)
        is_name = field.name in ("model", "model_config") and (is_builtin(value) or hub_name(value))
        if isinstance(value, Path) and not is_name:
            values[field.name] = str(value.absolute())
        elif isinstance(value, tuple) and value and isinstance(value[0], Path):
            values[field.name] = [str(path.absolute()) for path in value]
    return values
