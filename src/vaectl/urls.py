"""URLs where a path is expected: how to get the file, because vaectl reads local files only."""

from __future__ import annotations

import re
from shlex import quote

from vaectl.errors import UsageError, shown
from vaectl.model_names import download

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(?=.)", re.IGNORECASE)
_HUB = re.compile(
    r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co|(?P<mirror>hf-mirror\.com))|hf:/)/"
    r"(?!datasets/|spaces/|buckets/)(?P<name>\w[\w.-]*/[\w.-]+)"
    r"(?:/(?:(?:tree|blob|resolve)/[^/]+/?)?(?P<inside>[^?#]*))?"
)
_COPY = {
    "http": "curl -LO {}",
    "https": "curl -LO {}",
    "ftp": "curl -O {}",
    "s3": "aws s3 cp {} .",
    "gs": "gcloud storage cp {} .",
}


def scheme_of(text: str) -> str | None:
    """Return the scheme of a URL in lower case: `https`, `s3`, `hf`; None if `text` is not a URL."""
    found = _URL.match(text)
    return found[1].lower() if found else None


def check_local(path: object, *, written: bool = False) -> None:
    """Raise UsageError if a path to read, or one to be `written`, is a URL. For text: `Path` drops a slash of it."""
    if isinstance(path, str) and scheme_of(path):
        verb, remedy = ("writes", "give a path, and upload it later") if written else ("reads", how_to_fetch(path))
        raise UsageError(f"{shown(path)}: is a URL, and vaectl {verb} local files", remedy)


def how_to_fetch(url: str) -> str:
    """Return what to do with a URL to read, with the command that downloads it if there is a usual one."""
    if hub := _HUB.match(url):
        folder, name = (hub["inside"] or "").strip("/"), hub["name"]
        is_file = "." in folder.rpartition("/")[2]
        parts = [f"hf download {name} {quote(folder)}", download(name)[-1]] if is_file else download(name, folder)
        host = f"HF_ENDPOINT=https://{hub['mirror']} " if hub["mirror"] else ""
        return f"download it first: {host}{' '.join(parts)}"
    scheme = scheme_of(url)
    if scheme == "file":
        return "give the path of the file"
    copy = None if "://huggingface.co/" in url else _COPY.get(scheme or "")
    return "download it first" + (f": {copy.format(quote(url))}" if copy else "")
