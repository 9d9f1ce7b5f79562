"""Compare vaectl with the tools that people use instead: seams, speed, memory, frames, and PSNR of files.

    python benchmarks/comparison.py [--wfvae FOLDER] [--wan MODEL] [--clip FILE]
                                    [--parts networks diffusers frames files]

FOLDER is a clone of PKU-YuanGroup/WF-VAE. Its network needs the packages diffusers and einops; its scripts need its
requirements.txt. Without FOLDER, only the figures of vaectl are measured. Parts, all on the CPU:

    networks   encode and decode the centre of a clip with the built-in model in float32: vaectl, the published network,
               and tiles with the overlap and the linear blending of diffusers (256 pixels, every 192)
    diffusers  the VAE of Wan: diffusers and vaectl, whole frames and tiles; needs the package diffusers. MODEL is a
               directory; without it, the network is narrow and has random weights
    frames     how many frames come back, for several lengths
    files      PSNR of the frames that the network gives, and of the file that was written

Ways run in turns, and the best CPU time of each counts; with OMP_NUM_THREADS=1 it varies little on a busy machine. Peak
memory is that of one process per way. The figures are in docs/comparison.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imageio_ffmpeg
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import vaectl
from common import in_another_process
from common.published import published_model
from formulation import make_model
from tiling import in_windows
from vaectl.memory import peak, reuse_freed
from vaectl.tiling.plan import window_frames
from vaectl.video.clip import to_frames, to_video

ROOT = Path(__file__).parents[1]
BUILTIN = ROOT / "src" / "vaectl" / "models" / "builtin"
CPU = torch.device("cpu")
PARTS = ("networks", "diffusers", "frames", "files")
LENGTHS = (1, 9, 10, 33, 132)
Way = Callable[[Tensor], Tensor]


def blended(run: Way, x_BCTHW: Tensor, tile: int, stride: int, scale: float) -> Tensor:
    """Run overlapping tiles and blend neighbours linearly; `scale` is the size of the output relative to the input."""
    height, width = (round(size * scale) for size in x_BCTHW.shape[3:])
    overlap = round((tile - stride) * scale)
    total: Any = 0
    weights = torch.zeros(height, width)
    for top, left in product(range(0, x_BCTHW.shape[3], stride), range(0, x_BCTHW.shape[4], stride)):
        part = run(x_BCTHW[..., top : top + tile, left : left + tile])
        down, across = ramp(part.shape[3], overlap, top), ramp(part.shape[4], overlap, left)
        y, x = round(top * scale), round(left * scale)
        if not torch.is_tensor(total):
            total = part.new_zeros(*part.shape[:3], height, width)
        weight = down[:, None] * across
        total[..., y : y + len(down), x : x + len(across)] += part * weight
        weights[y : y + len(down), x : x + len(across)] += weight
    return total / weights


def ramp(length: int, overlap: int, start: int) -> Tensor:
    """Weights that rise over the overlap with the tile before, and fall over that with the next one."""
    rising = (torch.arange(length) + 0.5) / overlap
    return (rising if start else torch.ones(length)).clamp(max=1) * rising.flip(0).clamp(max=1)


def blended_tiles(model: Any, clip: Tensor) -> Tensor:
    latent = blended(lambda x: model.encode(x).mode(), clip, 256, 192, 1 / 8)
    return blended(model.decode, latent, 32, 24, 8)


def wan(folder: str) -> tuple[Any, Any]:
    """Return the VAE of Wan of diffusers and of vaectl, with the same weights."""
    from tests.models.oracle import diffusers_class

    AutoencoderKLWan = diffusers_class("AutoencoderKLWan")
    if folder:
        return AutoencoderKLWan.from_pretrained(folder).eval(), vaectl.load_model(folder, device="cpu")
    torch.manual_seed(0)
    theirs = AutoencoderKLWan(base_dim=16).eval()
    with TemporaryDirectory() as directory:
        theirs.save_pretrained(directory)
        return theirs, vaectl.load_model(directory, device="cpu")


def there_and_back(peer: Any, clip: Tensor, *, tiling: bool) -> Tensor:
    """Encode and decode with a model that has the interface of diffusers."""
    (peer.enable_tiling if tiling else peer.disable_tiling)()
    peer.temporal_size = None  # the published network would accept only clips of one length
    with redirect_stdout(StringIO()):  # it prints shapes
        return peer.decode(peer.encode(clip).latent_dist.mode()).sample


def windows(model: Any, clip: Tensor, tile: int = 0) -> Tensor:
    """Encode and decode with a model of vaectl in windows of frames, and in tiles of so many pixels (0: none)."""
    return in_windows(model, window_frames(model.config, *clip.shape[3:], model.device), clip, tile=tile)


def ways_of(part: str, arguments: argparse.Namespace, names: list[str] | None = None) -> dict[str, Way]:
    """Return the ways of a part that `names` wants. A peer is imported and built only when it is wanted."""
    ours, peer = ("vaectl", "vaectl, tiles of 256 pixels", "blended tiles"), ("published", "published, enable_tiling")
    theirs = ("diffusers", "diffusers, enable_tiling")
    ways: dict[str, Way] = {}
    if part == "networks" and (names is None or set(names) & set(ours)):
        model = make_model("built-in", CPU, torch.float32)
        whole = partial(windows, model)
        ways |= dict(zip(ours, (whole, partial(whole, tile=256), partial(blended_tiles, model)), strict=True))
    if part == "networks" and arguments.wfvae and (names is None or set(names) & set(peer)):
        other = published_model(Path(arguments.wfvae), make_model("built-in", CPU, torch.float32))
        ways |= {name: partial(there_and_back, other, tiling=name != peer[0]) for name in peer}
    if part == "diffusers":
        other, own = wan(arguments.wan)
        ways |= {name: partial(there_and_back, other, tiling=name != theirs[0]) for name in theirs}
        clamped = {ours[0]: 0, ours[1]: 256}  # as diffusers does
        ways |= {name: lambda clip, tile=tile: windows(own, clip, tile).clamp(-1, 1) for name, tile in clamped.items()}
    return ways


def read(path: Path, num_frames: int, size: int) -> Tensor:
    """Read the centre square of a clip, (1, 3, T, size, size) in [-1, 1]."""
    frames = vaectl.read_video(path, num_frames=num_frames).frames
    top, left = ((whole - size) // 2 for whole in frames.shape[2:])
    return to_video(frames[..., top : top + size, left : left + size])


def compare_networks(part: str, arguments: argparse.Namespace, console: Console) -> None:
    reuse_freed()
    clip = read(arguments.clip, arguments.frames, arguments.size)
    ways = ways_of(part, arguments)
    results = {name: way(clip) for name, way in ways.items()}
    seconds = dict.fromkeys(ways, math.inf)
    for _, (name, way) in product(range(arguments.turns), ways.items()):
        begun = time.process_time()
        way(clip)
        seconds[name] = min(seconds[name], time.process_time() - begun)
    table = Table(title=f"{part}: {arguments.frames} frames of {arguments.size}x{arguments.size}, float32")
    for column in ("way", "CPU seconds", "ratio", "largest difference", "PSNR, dB", "peak GiB"):
        table.add_column(column, justify="left" if column == "way" else "right")
    whole = next(iter(results.values()))
    for name, taken in seconds.items():
        difference = results[name] - whole
        decibels = 10 * torch.log10(4 / difference.square().mean()).item()
        most = in_another_process("--peak-of", part, name) / 2**30
        ratio = f"{taken / next(iter(seconds.values())):.2f}"
        table.add_row(name, f"{taken:.1f}", ratio, f"{difference.abs().max():.1e}", f"{decibels:.1f}", f"{most:.2f}")
    console.print(table)


def compare_frames(arguments: argparse.Namespace, console: Console) -> None:
    table = Table(title="frames that come back, from 64x64 and from 100x60 pixels")
    table.add_column("way")
    for frames in LENGTHS:
        table.add_column(str(frames), justify="right")
    for name, way in ways_of("networks", arguments).items():
        if "blended" not in name:
            cells = [f"{came_back(way, length, 64, 64)}, {came_back(way, length, 60, 100)}" for length in LENGTHS]
            table.add_row(name, *cells)
    console.print(table)


def came_back(way: Way, *shape: int) -> str:
    try:
        made = way(torch.rand(1, 3, *shape) * 2 - 1)
    except (RuntimeError, ValueError) as error:
        return type(error).__name__
    return str(made.shape[2]) if made.shape[3:] == shape[1:] else "x".join(map(str, made.shape[2:]))


def compare_files(arguments: argparse.Namespace, console: Console) -> None:
    """Measure one reconstruction three times: its frames, its file, and its file as the psnr filter of FFmpeg does."""
    size = min(vaectl.read_video(arguments.clip, num_frames=1).frames.shape[2:])
    title = f"PSNR in dB of {arguments.frames} frames of {arguments.clip.name}, the centre of {size}x{size}"
    table = Table(title=title)
    for column in ("way", "frames", "file", "file, FFmpeg", "bytes"):
        table.add_column(column, justify="left" if column == "way" else "right")
    common = ["--video_path", arguments.clip, "--num_frames", arguments.frames, "--device", "cpu"]
    common += ["--width", size, "--height", size, "--rec_path"]
    with TemporaryDirectory() as folder:
        target = Path(folder) / "vaectl.mp4"
        ours = ["reconstruct", *common, target, "--dtype", "float32", "--json"]
        (clip,) = json.loads(run([sys.executable, "-m", "vaectl", *ours]))["clips"]
        table.add_row("vaectl", f"{clip['psnr']:.2f}", *measure_file(arguments, size, target))
        if arguments.wfvae:
            target = Path(folder) / "published.mp4"
            model = ["--model_name", "WFVAE", "--from_pretrained", BUILTIN]
            run([sys.executable, "scripts/recon_single_video.py", *common, target, *model], arguments.wfvae)
            table.add_row("published", "", *measure_file(arguments, size, target))
    console.print(table)


def measure_file(arguments: argparse.Namespace, size: int, target: Path) -> tuple[str, str, str]:
    """Return the PSNR of a file on its RGB frames, what FFmpeg reports for it, and its size."""
    real = to_frames(read(arguments.clip, arguments.frames, size))
    errors = (real.double() - vaectl.read_video(target).frames).square().mean(dim=(1, 2, 3))
    decibels = (10 * torch.log10(255**2 / errors)).mean().item()
    count = "settb=1/25,setpts=N"  # the filter pairs frames by their times, which differ between files
    graph = f"[0:v]trim=end_frame={arguments.frames},crop={size}:{size},{count}[a];[1:v]{count}[b];[a][b]psnr"
    line = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", arguments.clip, "-i", target, "-lavfi", graph, "-f", "null", "-"]
    report = subprocess.run(list(map(str, line)), check=True, capture_output=True, text=True).stderr
    (ffmpeg,) = re.findall(r"PSNR (y:.* average:\S+)", report)
    return f"{decibels:.2f}", ffmpeg, f"{target.stat().st_size:,}"


def run(line: list[object], folder: str | None = None) -> str:
    """Run a command that has to succeed; return what it printed."""
    environment = os.environ | ({"PYTHONPATH": str(ROOT / "src")} if folder is None else {})
    done = subprocess.run(list(map(str, line)), cwd=folder, env=environment, check=True, stdout=-1, text=True)
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--wfvae", default="", metavar="FOLDER", type=lambda text: text and str(Path(text).absolute()))
    parser.add_argument("--wan", default="", metavar="MODEL")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=("networks", "frames", "files"))
    parser.add_argument("--clip", type=lambda text: Path(text).absolute(), default=ROOT / ".samples/bigbuckbunny.mp4")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    if arguments.peak_of:
        part, name = arguments.peak_of
        clip = read(arguments.clip, arguments.frames, arguments.size)
        if name.startswith("vaectl"):
            reuse_freed()  # as the commands do
        ways_of(part, arguments, [name])[name](clip)
        print(peak(CPU))
        return
    console = Console()
    for part in arguments.parts:
        if part in ("networks", "diffusers"):
            compare_networks(part, arguments, console)
        else:
            {"frames": compare_frames, "files": compare_files}[part](arguments, console)


if __name__ == "__main__":
    main()
