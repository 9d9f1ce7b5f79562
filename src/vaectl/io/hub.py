"""Models on the Hugging Face hub: find the files that a model needs, and get only those.

Knows how repositories are laid out. Knows no networks: the caller checks a config before weights are downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vaectl.errors import UsageError, VaectlError, shown
from vaectl.io.hub_client import (
    FailedError,
    Files,
    LacksError,
    client,
    files_in_cache,
    files_on_hub,
    is_offline,
    root_of,
)
from vaectl.io.parsing import read_json
from vaectl.model_names import LAYOUTS, WEIGHTS_SUFFIXES, HubName, hub_name
from vaectl.progress import Progress

CONFIG = "config.json"
ORIGINALS = ("Wan2.1_VAE.pth", "Wan2.2_VAE.pth")
"""Weights without a config. A config and weights in the layout of diffusers next to them are of a transformer."""
PLACES = (f"vae/{CONFIG}", *ORIGINALS, CONFIG)
"""Where the model of a repository is, the first choice first."""
INDEX_BYTES = 2**24
LISTED = 5
"""Maximum number of files of a repository in a message."""
OTHERS = re.compile("transformer|encoder|unet|t5|clip|tokenizer|scheduler", re.IGNORECASE)
"""Parts of a pipeline that are not its VAE."""

Check = Callable[[Path], object]
"""Raises VaectlError for a config that is not of a known family."""
Note = Callable[[str], None]


class Fetched(NamedTuple):
    path: Path
    """In the cache: a model directory, a weights file, or a config."""
    commit: str


_fetched: dict[tuple[HubName, bool], Fetched] = {}
"""What this process has fetched. A revision does not change while a process runs."""


def commit_of(model: str | Path | None) -> str | None:
    """Return the commit of a model that this process has fetched; None for a model that is not from the hub."""
    wanted = hub_name(model)
    return next((found.commit for (name, _), found in _fetched.items() if name == wanted), None)


def fetch(
    name: HubName, check: Check, note: Note, progress: Progress | None = None, *, config_only: bool = False
) -> Path:
    """Return the directory or the weights file of a model in the cache; download what is missing.

    Searches the root of the repository, or the folder of the name: for the folder `vae`, then for ORIGINALS, then for a
    model directory. A directory has a config that passes `check`, and weights in one of the layouts. If the hub cannot
    be reached, the cache is used, with one `note`. `progress` shows the download; without it, `huggingface_hub` shows
    its own bars. `config_only`: fetch and return only the config.

    Raises UsageError without `huggingface_hub`, for an unknown repository or revision, without access, and for a
    repository without a model; as `check` does; VaectlError if a download fails and the cache lacks the model. Every
    message begins with the name.
    """
    key = name, config_only
    if key not in _fetched:
        try:
            with client(name, quiet=progress is not None):
                _fetched[key] = _fetch(name, check, note, progress, config_only)
        except VaectlError as error:
            if error.problem.startswith(f"{name}: "):
                raise
            raise type(error)(f"{name}: {error.problem}", error.remedy) from None
    return _fetched[key].path


def _fetch(name: HubName, check: Check, note: Note, progress: Progress | None, config_only: bool) -> Fetched:
    is_commit = re.fullmatch("[0-9a-f]{40}", name.revision or "")
    if is_commit or is_offline():
        with suppress(VaectlError):  # raised below if the hub does not help
            if found := _from_cache(name, check, config_only):
                return found
    try:
        return _choose(name, files_on_hub(name, progress), check, config_only)
    except FailedError as failure:
        if (found := _from_cache(name, check, config_only)) is None:
            raise failure.error from None
        note(f"{name}: {failure.clause}; the copy in the cache is used, commit {found.commit[:8]}")
        return found


def _from_cache(name: HubName, check: Check, config_only: bool) -> Fetched | None:
    """Return the model if all its files are in the cache. Raises VaectlError if one of them is damaged or refused."""
    probes = [name.inside] if name.is_file else [_join(name.inside, place) for place in PLACES]
    files = files_in_cache(name, probes)
    try:
        return _choose(name, files, check, config_only) if files else None
    except LacksError:
        return None
    except VaectlError as error:
        remedy = error.remedy or "delete this file, and load the model again"
        raise type(error)(error.problem, remedy) from None


def _choose(name: HubName, files: Files, check: Check, config_only: bool) -> Fetched:
    """Find the model that `name` means among the files, and get its files. Raises as `fetch` does."""
    if name.is_file and name.inside in files.names:
        config = _join(_parent(name.inside), CONFIG)
        if config in files.names and not name.inside.endswith(ORIGINALS):
            files.get(config)
        return _got(files, name.inside)
    refused = None
    for place in PLACES:
        if (file := _join(name.inside, place)) not in files.names or (config_only and place in ORIGINALS):
            continue
        if place in ORIGINALS:
            return _got(files, file)
        try:
            check(files.get(file))
        except VaectlError as error:
            refused = refused or error
            continue
        if not config_only:
            _got(files, _weights_in(_parent(file), name, files.names))
        found = _got(files, file)
        return found if config_only else found._replace(path=found.path.parent)
    if refused and name.inside not in ("", "vae") and PLACES[0] in files.names:
        raise UsageError(refused.problem, f"give `model={name._replace(inside='vae')}`")
    raise refused or _holds_none(name, files.names)


def _weights_in(folder: str, name: HubName, names: Collection[str]) -> str:
    """Return the weights file of a model directory, or the index of several.

    Raises UsageError if it is ambiguous, LacksError if there is none.
    """
    inside = sorted(file for file in names if _parent(file) == folder and file.endswith(WEIGHTS_SUFFIXES))
    checkpoints = [file for file in inside if file.endswith(".ckpt")]
    found = [*checkpoints, *(file for file in (_join(folder, each) for each in LAYOUTS) if file in names)]
    if found and len(checkpoints) < 2:
        return found[0]
    others = checkpoints or [file for file in inside if not file.endswith(".json")]
    what = "several checkpoints" if checkpoints else f"no {LAYOUTS[0]} or .bin, sharded or not"
    kind = UsageError if checkpoints else LacksError
    raise kind(f"{name}: its folder {folder or '.'} has {what}{_listed(others)}", _give_one(name, others))


def _got(files: Files, file: str) -> Fetched:
    """Get a file, and the shards that it lists if it is an index."""
    path = files.get(file)
    if file.endswith(".index.json"):
        index = read_json(path, INDEX_BYTES)
        shards = index.get("weight_map") if isinstance(index, Mapping) else None
        for shard in sorted(set(map(str, shards.values())) if isinstance(shards, Mapping) else ()):
            files.get(_join(_parent(file), shard))
    return Fetched(path, root_of(path, file).name)


def _holds_none(name: HubName, names: Collection[str]) -> LacksError:
    """Return the error for a repository, or a folder of it, without a model: it says what there is."""
    folders = {_parent(file) for file in names if file.endswith(f"/{CONFIG}")}
    weights = {file for file in names if file.endswith(WEIGHTS_SUFFIXES[:-1]) and _parent(file) not in folders}
    found = sorted((*folders, *weights), key=lambda each: (_rank(each), each.count("/"), each))
    below = f" in {name.inside}" if name.inside else ""
    what = name.inside if name.is_file else f"model that vaectl reads{below}"
    return LacksError(f"{name}: the repository has no {what}{_listed(found)}", _give_one(name, found))


def _listed(files: Collection[str]) -> str:
    more = ", …" if len(files) > LISTED else ""
    return f" ({', '.join(shown(file) for file in [*files][:LISTED])}{more})" if files else ""


def _give_one(name: HubName, found: list[str]) -> str:
    if not found or _rank(found[0]) == 2:
        return "check the name"
    return f"name one, as in `model={name._replace(inside=found[0])}`"


def _rank(file: str) -> int:
    """Return 0 for what is called a VAE, 2 for another part of a pipeline, else 1."""
    return 0 if "vae" in file.lower() else 2 if OTHERS.search(file) else 1


def _parent(file: str) -> str:
    return file.rpartition("/")[0]


def _join(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder else file
