"""Files that are too large to ship: found in the cache of torch hub, else fetched into it. Knows no metric."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from vaectl.errors import VaectlError


def cached(name: str, url: str, sha256: str, option: str) -> Path:
    """The file `name` in `torch.hub.get_dir()/checkpoints`; if it is not there, from `url`, whole or not at all.

    Raises VaectlError, with where to put the file or the `option` that takes it, where it cannot be fetched or its
    SHA-256 is another.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), sha256, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # a wrong checksum is a RuntimeError
        reason = " ".join(str(error).split())
        raise VaectlError(
            f"{url} cannot be fetched ({reason}); put the file at {file}, or say where it is with {option}"
        ) from None
    return file
