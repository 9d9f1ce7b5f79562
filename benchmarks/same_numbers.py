"""Check whether a change of the code changes a number: record the output of every command, and compare it later.

    python benchmarks/same_numbers.py write before.json [--lpips-weights VGG16]
    python benchmarks/same_numbers.py compare before.json [--lpips-weights VGG16]

Run it on the CPU of one machine, with the same versions, in a clone of each side.

- The reference models without tiles: SHA-256 of moments and decoded frames, equal bit for bit.
- The same models with tiles and windows, and segment by segment: frames differ by at most one 8-bit level.
- The published command lines of docs/published-scripts.md: printed numbers and weights of the checkpoint, equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from vaectl import read_video
from vaectl.models import load_model, save_model

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.models.reference import CASES, load_reference, synthetic_model

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / ".samples"
TILED = (("tiled", "--enable-tiling"), ("low memory", "--save-memory"))
UNSTEADY = {
    "seconds",
    "frames_per_second",
    "clips_per_second",
    "waiting",
    "decoding",
    "peak_memory",
    "source_stamp",
    "versions",
}
"""Keys of values that differ between runs: times, memory sizes, modification times, versions."""


def digest(*tensors: Tensor) -> str:
    """Return the SHA-256 of the values."""
    made = hashlib.sha256()
    for tensor in tensors:
        made.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def vaectl(folder: Path, line: list[str]) -> str:
    """Run a command and return its output."""
    command = [sys.executable, "-m", "vaectl", *line]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{shlex.join(line)}: {result.stderr}")
    return result.stdout


def references(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the numbers of the reference models, from `load_model` and from `prepare-eval`."""
    clips = folder / "few"
    clips.mkdir()
    shutil.copy(SAMPLES / "bikes.mp4", clips)
    for name in CASES:
        case = load_reference(name)
        save_model(synthetic_model(case.config), folder / name)
        model = load_model(folder / name, device="cpu", dtype="float32")
        posterior = model.encode(case.video)
        yield f"{name}: moments", digest(posterior.mean, posterior.logvar)
        yield f"{name}: decoded", digest(model.decode(posterior.mean))

        def prepared(way: str, *options: str, name: str = name) -> np.ndarray[Any, Any]:
            out = folder / f"{name}-{way}"
            size = ["--num-frames", "22", "--resolution", "88", "--crop-size", "88"]
            line = ["prepare-eval", "--real-video-dir", str(clips), "--generated-video-dir", str(out)]
            vaectl(folder, [*line, "--ckpt", str(folder / name), "--device", "cpu", *size, *options])
            [file] = [file for file in out.rglob("*") if file.suffix in (".mkv", ".mp4", ".avi")]
            return np.asarray(read_video(file).frames, dtype=np.int16)

        whole = prepared("whole")
        yield f"{name}: prepared", hashlib.sha256(whole.tobytes()).hexdigest()
        for way, option in TILED:
            apart = np.abs(prepared(way, option) - whole)
            yield f"{name}: {way}, at most one step apart", bool(apart.max() <= 1)


def published(folder: Path, lpips_weights: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the numbers of the command lines in docs/published-scripts.md, on its clips."""
    (folder / "held-out").mkdir()
    (folder / "clips").mkdir()
    shutil.copy(SAMPLES / "bikes.mp4", folder / "held-out")
    for name in ("carphone_pristine.mp4", "bigbuckbunny.mp4"):
        shutil.copy(SAMPLES / name, folder / "clips")
    save_model(load_model(device="cpu", dtype="float32"), folder / "model")
    page = (ROOT / "docs" / "published-scripts.md").read_text()
    block = page.partition("```console")[2].partition("```")[0].replace("\\\n", " ")
    for line in re.findall(r"^\$ vaectl (.*)$", block, re.MULTILINE):
        words = shlex.split(line)
        weights = lpips_weights if words[0] == "train" else []
        printed = vaectl(folder, [*words, *weights, "--json"]).strip().splitlines()
        yield " ".join(words), steady(json.loads(printed[-1]), folder)
    for file in sorted((folder / "results").rglob("*.safetensors")):
        weights = load_file(file)
        yield str(file.relative_to(folder)), digest(*(weights[name] for name in sorted(weights)))


def steady(value: Any, folder: Path) -> Any:
    """Return a JSON value without values that differ between runs, and with paths relative to `folder`."""
    if isinstance(value, dict):
        return {key: steady(each, folder) for key, each in value.items() if key not in UNSTEADY}
    if isinstance(value, list):
        return [steady(each, folder) for each in value]
    return value.replace(str(folder), ".") if isinstance(value, str) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("action", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--lpips-weights", type=Path, help="of VGG16, where PyTorch's cache has none")
    arguments = parser.parse_args()
    weights = ["--lpips-weights", str(arguments.lpips_weights)] if arguments.lpips_weights else []
    torch.set_grad_enabled(False)
    before = json.loads(arguments.file.read_text()) if arguments.action == "compare" else {}
    made: dict[str, Any] = {}
    with TemporaryDirectory() as place:
        for name, value in chain(references(Path(place)), published(Path(place), weights)):
            made[name] = value
            print(f"{'' if not before else 'same ' if before.get(name) == value else 'OTHER '}{name}", flush=True)
    if arguments.action == "write":
        arguments.file.write_text(json.dumps(made, indent=1) + "\n")
    elif before != made:
        sys.exit(f"{sum(before.get(name) != made.get(name) for name in before.keys() | made.keys())} differ")


if __name__ == "__main__":
    main()
