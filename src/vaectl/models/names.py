"""The weights of the VAE in the content of a file, under the names of the network, however a tool stored them.

Knows no files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vaectl.errors import DamagedError, shown
from vaectl.models.build import Note, silent
from vaectl.models.containers import Stored
from vaectl.models.families.wan_original import diffusers_names
from vaectl.models.weights import STATE, Weights

NEITHER = "holds neither a state dict nor a training checkpoint of a video VAE"

PUBLISHED_FORM = ("state_dict", "gen_model")
WRAPPERS = (*PUBLISHED_FORM, "model", "module", "model_state_dict")
"""Keys under which training scripts store a state dict. They may be nested."""


def select(
    stored: Stored, expected: Collection[str], file: Path, weights: Weights | None = None, note: Note = silent
) -> dict[str, Any]:
    """Find the weights of the VAE in the content of a file, and return them under the names of the network.

    Accepts a state dict, a training checkpoint (its EMA weights, with raw weights where the EMA lacks tensors; only the
    raw weights if `weights` is raw), the names of the original code of Wan, and formats of other tools: a mapping under
    another key, or names with a prefix. A prefix is removed only if all names match without it. `note` is called for
    unusual content. Raises DamagedError for anything else.
    """
    averages = stored.get("ema_state_dict")
    averages = averages if isinstance(averages, Mapping) and weights != "raw" else {}
    keys, stored = unwrapped(stored)
    if averages:
        averages, _ = plain_names(named(averages, file), expected, partly=True)
        lacking = [name for name in expected if name not in averages]
        if not lacking or not keys:
            return averages
        rest, _ = plain_names(named(stored, file), expected)
        note(f"{file}: its EMA lacks {len(lacking)} of {len(expected)} tensors; their raw weights are used")
        return averages | {name: rest[name] for name in lacking if name in rest}
    plain, prefix = plain_names(named(stored, file), expected)
    usual = not keys or tuple(keys) == PUBLISHED_FORM or file.name == STATE
    ways = [] if usual else [f"under {'.'.join(keys)}"]
    ways += [f"with {shown(prefix)} in their names"] * bool(prefix)
    if ways:
        note(f"{file}: holds its weights {' and '.join(ways)}")
    return plain


def unwrapped(stored: Stored) -> tuple[list[str], Stored]:
    """Return the state dict in the content of a file, and the keys under which it is."""
    keys: list[str] = []
    while (key := next((key for key in WRAPPERS if isinstance(stored.get(key), Mapping)), None)) and len(keys) < 4:
        keys, stored = [*keys, key], stored[key]
    return keys, stored


def named(state: Stored, file: Path) -> dict[str, Any]:
    """Return the entries under the names of diffusers. Raises DamagedError if not all keys are names."""
    if not all(isinstance(name, str) for name in state):
        raise DamagedError(f"{file}: {NEITHER}: its tensors have no names")
    return diffusers_names(state)


def plain_names(
    state: dict[str, Any], expected: Collection[str], *, partly: bool = False
) -> tuple[dict[str, Any], str]:
    """Rename entries to the names of the network. Return them and the removed prefix. `partly`: some may be missing.

    `torch.compile` inserts `_orig_mod.` into names. DDP, Lightning and others put a prefix in front of all names.
    """
    # The first CausalVAE checkpoints contain the networks of their loss.
    own = {name: value for name, value in state.items() if not name.startswith("loss.")}
    names, some = set(expected), next(iter(own), "").replace("_orig_mod.", "")
    prefixes = ["", *(some.removesuffix(name) for name in expected if some.endswith(f".{name}"))]
    for compiled in ("", "_orig_mod."):
        for prefix in prefixes:
            plain = {name.replace(compiled, "") if compiled else name: value for name, value in own.items()}
            if len(plain) < len(own):  # two entries would have one name
                continue
            plain = {name.removeprefix(prefix): value for name, value in plain.items() if name.startswith(prefix)}
            plain = {name: value for name, value in plain.items() if not name.startswith("loss.")}
            if (plain.keys() <= names if partly else plain.keys() == names) and plain:
                return plain, compiled + prefix
    return own, ""
