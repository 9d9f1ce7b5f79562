"""Measure the effect of tiles, and time and memory of larger clips: WF-VAE-S, float32, half an hour on two cores.

    python benchmarks/memory.py

First, clips of noise in windows of whole frames, as in a run without options, and in tiles of half their size: the
maximum difference, the times within one process, and the peak memory of one process each. Then `vaectl reconstruct` on
longer and larger clips: the time and peak that it reports. The weights are random.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from common.clips import write_clip
from formulation import make_model
from tiling import in_windows
from vaectl.allocator import returning_freed
from vaectl.memory import peak, reuse_freed
from vaectl.models import save_model
from vaectl.models.families.wfvae import WFVAE
from vaectl.tiling.plan import window_frames

CPU = torch.device("cpu")
COMPARED = ((17, 256), (33, 256), (9, 512))
"""Frames, height and width."""
ALONE: tuple[tuple[int, int, int, tuple[str, ...]], ...] = (
    (33, 256, 256, ()),
    (257, 256, 256, ()),
    (33, 256, 256, ("--enable-tiling",)),
    (257, 256, 256, ("--enable-tiling",)),
    (17, 1920, 1080, ("--memory-limit", "6GiB")),
)
"""Frames, width, height, options."""


def run(way: str, model: WFVAE, clip: Tensor) -> tuple[Tensor, float]:
    """Return the reconstruction and its seconds."""
    height, width = clip.shape[3:]
    begun = time.perf_counter()
    tile = 0 if way == "untiled" else width // 2
    with returning_freed(model):  # as the commands do
        made = in_windows(model, window_frames(model.config, height, width, model.device), clip, tile=tile)
    return made, time.perf_counter() - begun


def compare(way: str, frames: int, size: int) -> dict[str, float]:
    """Measure the peak of one way, then its seconds and those of whole frames. Runs in its own process."""
    reuse_freed()
    torch.set_grad_enabled(False)
    model = make_model("WF-VAE-S", CPU, torch.float32)
    clip = torch.rand((1, 3, frames, size, size), generator=torch.Generator().manual_seed(0)) * 2 - 1
    made, _ = run(way, model, clip)
    found = {"peak": peak(CPU)}
    whole, found["base"] = run("untiled", model, clip)
    return {**found, "seconds": run(way, model, clip)[1], "difference": (made - whole).abs().max().item()}


def reconstruct(folder: Path, frames: int, width: int, height: int, options: Iterable[str]) -> dict[str, float]:
    clip = folder / f"{frames}-{width}x{height}.mp4"
    if not clip.is_file():
        write_clip(clip, frames, width, height)
    line = [sys.executable, "-m", "vaectl", "reconstruct", "--video-path", clip, "--rec-path", folder / "made.mp4"]
    line += ["--model", folder / "model", "--device", "cpu", "--overwrite", "--json", *options]
    reported = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {"peak": reported["peak_memory"], "seconds": reported["seconds"]}


def main() -> None:
    if arguments := sys.argv[1:]:
        print(json.dumps(compare(arguments[0], int(arguments[1]), int(arguments[2]))))
        return
    table = Table(title="WF-VAE-S, float32, CPU")
    for column in ("frames", "size", "way", "seconds", "ratio", "difference", "peak GiB"):
        table.add_column(column, justify="left" if column == "way" else "right")

    def add(frames: int, size: str, way: str, found: dict[str, float]) -> None:
        ratio = f"{found['seconds'] / found['base']:.2f}" if "base" in found else ""
        difference = f"{found['difference']:.1e}" if "difference" in found else ""
        most = f"{found['peak'] / 2**30:.2f}"
        table.add_row(str(frames), size, way, f"{found['seconds']:.0f}", ratio, difference, most)

    ask = partial(subprocess.run, check=True, stdout=subprocess.PIPE, text=True)
    for frames, size in COMPARED:
        for way in ("untiled", f"tiles of {size // 2}"):
            printed = ask([sys.executable, __file__, way, str(frames), str(size)]).stdout
            add(frames, f"{size}x{size}", way, json.loads(printed))
    with TemporaryDirectory() as folder:
        save_model(make_model("WF-VAE-S", CPU, torch.float32), Path(folder) / "model")
        for frames, width, height, options in ALONE:
            found = reconstruct(Path(folder), frames, width, height, options)
            add(frames, f"{width}x{height}", " ".join(("reconstruct", *options)), found)
    Console().print(table)


if __name__ == "__main__":
    main()
