"""Models that have a name: the built-in one, those on the Hugging Face hub, and the command that downloads them.

Imports no torch. Downloads nothing: `vaectl.io.hub` does.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

BUILTIN_NAME = "builtin"
"""The built-in model, wherever the path of a model is expected. A folder of that name is `./builtin`."""

Weights: TypeAlias = Literal["ema", "raw"]
"""Of a training checkpoint: the moving average over the training, or the raw ones."""

DEFAULT_REVISION = "main"
WEIGHTS = "diffusion_pytorch_model"
"""How the names of the weights files of diffusers begin."""
LAYOUTS = tuple(f"{WEIGHTS}{end}" for end in (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json"))
"""Weights of a model directory, the first choice first. Training checkpoints, *.ckpt, come before them."""
WEIGHTS_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".gguf", ".json")


@dataclass(frozen=True)
class Published:
    """A checkpoint that its authors published."""

    name: str
    family: str
    parameters: int
    compression: str
    latent_channels: int
    hub: str
    """owner/name of the repository on the Hugging Face hub."""
    folder: str | None
    """Its folder in the repository; empty if it is the whole repository, None if the authors do not say."""
    streams: bool

    @property
    def download(self) -> tuple[str, ...]:
        """The command that downloads it, in parts of a line."""
        return download(self.hub, self.folder)

    @property
    def path(self) -> str | None:
        """Where the command puts it; None if the folder in the repository is unknown."""
        return None if self.folder is None else f"{target_of(self.hub)}/{self.folder}".rstrip("/")


PUBLISHED = (
    Published("Wan 2.1", "Wan", 126_892_531, "4x8x8", 16, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "vae", True),
    Published("Wan 2.2 TI2V-5B", "Wan", 704_688_668, "4x16x16", 48, "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "vae", True),
    Published("Qwen-Image", "QwenImage", 126_892_531, "4x8x8", 16, "Qwen/Qwen-Image", "vae", True),
    Published("WF-VAE-L-16Chn", "WFVAE", 317_081_244, "4x8x8", 16, "chestnutlzj/WF-VAE-L-16Chn", "", True),
    Published(
        "Open-Sora Plan v1.5", "WFVAE", 227_035_624, "8x8x8", 32, "LanguageBind/Open-Sora-Plan-v1.5.0", None, True
    ),
    Published(
        "Open-Sora Plan v1.3", "WFVAE", 147_347_660, "4x8x8", 8, "LanguageBind/Open-Sora-Plan-v1.3.0", "vae", True
    ),
    Published(
        "Open-Sora Plan v1.2", "CausalVAE", 239_189_991, "4x8x8", 4, "LanguageBind/Open-Sora-Plan-v1.2.0", "vae", False
    ),
    Published(
        "Open-Sora Plan v1.1", "CausalVAE", 246_859_499, "4x8x8", 4, "LanguageBind/Open-Sora-Plan-v1.1.0", "vae", False
    ),
)
"""The numbers of parameters follow from the published configurations."""


def is_builtin(model: str | Path | None) -> bool:
    """Return whether `model` means the built-in model. The string `./builtin` is a path."""
    return model is None or str(model) == BUILTIN_NAME


class HubName(NamedTuple):
    """A model on the Hugging Face hub: `owner/name`, `owner/name@revision`, `owner/name/folder@revision`."""

    repository: str
    inside: str = ""
    """A folder of the repository, or a weights file in it; empty for its root."""
    revision: str | None = None
    """A branch, a tag or a commit; None for the branch main."""

    @property
    def is_file(self) -> bool:
        return self.inside.endswith(WEIGHTS_SUFFIXES)

    @property
    def full(self) -> str:
        """The name with its revision, for records: it stays a name where there is a folder `owner`."""
        return str(self) if self.revision else f"{self}@{DEFAULT_REVISION}"

    def __str__(self) -> str:
        return f"{self.repository}/{self.inside}".rstrip("/") + (f"@{self.revision}" if self.revision else "")


_HUB_NAME = re.compile(
    r"(?P<owner>\w[\w.-]*)/(?P<name>\w[\w.-]*)(?:/(?P<inside>\w[^/@]*(?:/\w[^/@]*)*))?"
    r"(?:@(?P<revision>(?!.*\.\.)\w[\w./+-]*))?",
    re.ASCII,
)


_SITES = r"(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)"
_NO_MODEL = r"(?:datasets|spaces|buckets)/"
_SLIPS = (
    (
        rf"^(?:https?:/+)?{_SITES}/([^/?#]+/[^/?#]+)(?:/(?:tree|blob|resolve)/([^/?#]+))?(/[^?#]*)?(?:[?#].*)?$",
        r"\1\3@\2",
    ),
    (rf"@([^@]+)(/[^/@]+(?:{'|'.join(map(re.escape, WEIGHTS_SUFFIXES))}))$", r"\2@\1"),
    (r"^([^/:]+/[^/:]+):(?=\w)", r"\1/"),
    ("@$", ""),
)
"""What users write, and the name that they mean: the address of a page, a revision before the file, a folder after a
colon, and no revision."""


def hub_name(model: str | Path | None) -> HubName | None:
    """Return the model of the hub that `model` names; None for a path.

    A path that exists is a path. So is one below a folder that exists, and the name of a weights file, unless there is
    a revision. `./owner/name` is always a path. Slashes at the end, and second ones, do not count, as in a path.
    """
    text = re.sub("/+", "/", str(model)).removesuffix("/")
    # Path.exists and Path.is_dir raise without permission.
    if os.path.exists(text) or re.match(f"{_SITES}/|{_NO_MODEL}", text, re.IGNORECASE):  # noqa: PTH110
        return None
    match = _HUB_NAME.fullmatch(text)
    if match is None or (match["revision"] or "").endswith(WEIGHTS_SUFFIXES):
        return None
    owner, name, inside, revision = match.group("owner", "name", "inside", "revision")
    targets = {target_of(each.hub).lower() for each in PUBLISHED}
    is_file = not inside and name.endswith(WEIGHTS_SUFFIXES)
    if revision is None and (is_file or os.path.isdir(owner) or owner.lower() in targets):  # noqa: PTH112
        return None
    return HubName(f"{owner}/{name}", inside or "", None if revision == DEFAULT_REVISION else revision)


def target_of(repository: str) -> str:
    """Return the folder in which `download` puts a repository."""
    return repository.partition("/")[2]


def download(repository: str, inside: str | None = "", revision: str | None = None) -> tuple[str, ...]:
    """Return the command that downloads a repository of the hub, or a part of it, in parts of a line.

    `inside` is a folder, a weights file or a pattern. If it is unknown (None): all files with "vae" in their path.
    """
    if inside and "*" in inside:
        part = f'--include "{inside}"'
    elif inside and inside.endswith(WEIGHTS_SUFFIXES):
        part = f'"{inside}"'
    else:
        part = '--include "*vae*"' if inside is None else f'--include "{inside}/*"' if inside else ""
    at = f"--revision {revision}" if revision else ""
    parts = (f"hf download {repository}", part, at, f"--local-dir {target_of(repository)}")
    return tuple(each for each in parts if each)


def how_to_download(name: HubName) -> str:
    """Return the command that downloads a model of the hub, and what to pass then.

    Unless a published model says where it is: in `vae`, as in all pipelines, or in the root of a repository of a VAE
    or of the original code of Wan.
    """
    known = next((each for each in PUBLISHED if each.hub.lower() == name.repository.lower()), None)
    usual = known.folder if known else "" if "vae" in target_of(name.repository).lower() else "vae"
    if re.fullmatch("wan-ai/.*(?<!-diffusers)", name.repository, re.IGNORECASE):
        usual = "*VAE.pth"
    inside = name.inside or usual
    place = f"`model={target_of(name.repository)}/{inside}`".replace("/*VAE.pth`", "`").replace("/`", "`")
    where = "its folder with config.json as `model`" if inside is None else place
    return f"download it: {' '.join(download(name.repository, inside, name.revision))}; then pass {where}"


def how_to_get(model: Path) -> str | None:
    """Return how to get a model that is not here; None unless `model` looks like a published one or a name on the hub.

    That is a slip in a name on the hub; the name of a published model, or the folder that its command makes; or
    `owner/name` next to a folder `owner`, which may also be a path.
    """
    name = meant = model.as_posix()
    for slip, right in _SLIPS:
        meant = re.sub(slip, right, meant, flags=re.IGNORECASE)
    if re.match(_NO_MODEL, meant, re.IGNORECASE):
        return "check the path, or give the repository of a model: data sets, spaces and buckets hold none"
    if meant != name and (right_name := hub_name(meant)):
        return f"for the model on Hugging Face, give `model={right_name}`"
    for known in PUBLISHED:
        repository = f"/{target_of(known.hub)}/".lower()
        places = (repository, f"{repository}{known.folder}/")
        if name.lower() == known.name.lower() or f"/{name}/".lower().endswith(places):
            return how_to_download(HubName(known.hub))
    on_hub = hub_name(f"{name}@{DEFAULT_REVISION}")
    if on_hub and not on_hub.inside and not name.endswith(WEIGHTS_SUFFIXES):
        return f"check the path; for the model of that name on Hugging Face, give `model={on_hub.full}`"
    return None
