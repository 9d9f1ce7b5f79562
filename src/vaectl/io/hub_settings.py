"""The settings of `huggingface_hub`: the package itself, its environment variables, its token, and its cache.

Each function raises UsageError, which names the setting, before the client fails in its own way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vaectl.errors import UsageError, shown
from vaectl.model_names import DEFAULT_REVISION, HubName, how_to_download
from vaectl.shortage import system_reason

LOG_IN = "log in (hf auth login) or set HF_TOKEN"


def import_client(name: HubName) -> Any:
    """Return `huggingface_hub.utils`. Raises UsageError if it is not installed, or for settings that it cannot use."""
    try:
        endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
        # The port and the host may raise ValueError.
        usable = bool(endpoint.scheme in ("http", "https") and endpoint.port != 0 and endpoint.hostname)
        (endpoint.hostname or "").encode("idna")
    except ValueError:
        usable = False
    if not usable:
        remedy = "set it to one, as in HF_ENDPOINT=https://huggingface.co, or unset it"
        raise UsageError(f"{name}: HF_ENDPOINT is not the URL of a host", remedy)
    try:
        import_module("huggingface_hub.constants")
        return import_module("huggingface_hub.utils")
    except ImportError:
        remedy = f"to load it from Hugging Face, run pip install huggingface_hub; or elsewhere, {how_to_download(name)}"
        raise UsageError(f"{name}: no such file or directory", remedy) from None
    except ValueError as error:  # of an environment variable
        said = str(error)
        found = [key for key, value in os.environ.items() if key.startswith("HF_") and value and repr(value) in said]
        problem = f"{name}: huggingface_hub cannot use {' or '.join(found) or 'its settings'} ({shown(said)})"
        raise UsageError(problem, "correct or unset it") from None


def check_token(name: HubName) -> None:
    """Raise UsageError for a token that cannot be sent. The errors of the HTTP libraries would show it."""
    from huggingface_hub import constants, get_token

    try:
        usable = re.fullmatch("[!-~]*", get_token() or "")
    except (OSError, ValueError):
        usable = None
    if not usable:
        source = "HF_TOKEN" if os.environ.get("HF_TOKEN") else constants.HF_TOKEN_PATH
        raise UsageError(f"{name}: {source} has characters that no token has", LOG_IN)


def check_cache(name: HubName) -> None:
    """Raise UsageError if the cache cannot be read: its folder, or the file with the commit of the revision."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE, f"models--{name.repository.replace('/', '--')}")
    reads: dict[Path, Callable[[Path], object]] = {
        root / "refs" / (name.revision or DEFAULT_REVISION): Path.read_text,
        root / "snapshots": os.listdir,
    }
    for path, read in reads.items():
        try:
            read(path)
        except (PermissionError, ValueError) as error:
            remedy = "delete it, or set HF_HOME to another folder"
            raise UsageError(f"{name}: {path}: cannot be read ({system_reason(error)})", remedy) from None
        except OSError:
            pass  # not in the cache; or it cannot be written either, which has its own message
