"""Compare a model with the best linear transform of the same latent size, which a trained model must beat.

    python benchmarks/linear_bar.py [--model DIRECTORY] [--num-frames 33] [--resolution 256] [--train-path TREE ...]
        [--markdown] [CLIP ...]

The linear transform is a principal component analysis (PCA) of blocks of pixels, one block for each position of the
latent, with as many components as the latent has channels. As the models do, it takes the first frame alone (blocks of
1x8x8, fit on all frames) and then each group of four (or eight) frames (blocks of 4x8x8). It is fit on the other clips,
or on the measured clip itself, which is the optimum of a linear transform. With --train-path it is also fit on clips
sampled as in training: 17 frames, up to 4 apart, 64x64 pixels.

"pooled" is the PSNR of the mean squared error of the whole clip. PSNR as in the published tables is the mean over
frames, which a few nearly black frames dominate. Both sides give 8-bit frames, cropped to whole blocks. With more than
33 frames, the PSNR of each 32 frames is shown too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vaectl.cli.console import reporter
from vaectl.data import Sampling, Source, open_dataset
from vaectl.engine import HostOverhead, open_model, reconstruct_frames
from vaectl.evaluation.protocol import ClipProtocol, read_clip
from vaectl.memory import Limits
from vaectl.metrics import MetricSettings, build
from vaectl.metrics.psnr import mean_squared_errors
from vaectl.progress import Progress, Silent

CLIPS = ("bigbuckbunny", "bikes", "carphone_pristine")
STRETCH = 32


@dataclass(frozen=True)
class Grid:
    """The blocks of pixels of a model: one for each position of its latent."""

    channels: int
    time: int
    space: int

    def groups(self, frames: Tensor) -> Iterator[Tensor]:
        """Split into the first frame, (1, 3, H, W) uint8, and the groups of frames after it."""
        yield frames[:1]
        yield from frames[1:].split(self.time)

    def blocks(self, group: Tensor) -> Tensor:
        """Convert frames (t, 3, H, W) to blocks (positions, t·3·s·s) float64 in [-1, 1]."""
        t, _, height, width = group.shape
        s = self.space
        cut = group.reshape(t, 3, height // s, s, width // s, s).permute(2, 4, 0, 1, 3, 5)
        return cut.reshape(-1, t * 3 * s * s).double() / 127.5 - 1

    def frames(self, blocks: Tensor, like: Tensor) -> Tensor:
        """Convert blocks to 8-bit frames of the shape of `like`."""
        t, _, height, width = like.shape
        s = self.space
        cut = blocks.reshape(height // s, width // s, t, 3, s, s).permute(2, 3, 0, 4, 1, 5)
        return ((cut.reshape(like.shape) + 1) * 127.5).round().clamp(0, 255).byte()


class Basis:
    """Principal components of vectors that are added in batches."""

    def __init__(self, size: int) -> None:
        self.count, self.sum, self.products = 0, torch.zeros(size).double(), torch.zeros(size, size).double()

    def add(self, vectors: Tensor) -> None:
        self.count += len(vectors)
        self.sum += vectors.sum(0)
        self.products += vectors.T @ vectors

    def projection(self, components: int) -> Callable[[Tensor], Tensor]:
        """Return the projection onto the mean and this many components."""
        mean = self.sum / self.count
        directions = torch.linalg.eigh(self.products / self.count - mean.outer(mean))[1][:, -components:]
        return lambda vectors: (vectors - mean) @ directions @ directions.T + mean


def through_linear(grid: Grid, examples: Sequence[Tensor], clip: Tensor) -> Tensor:
    """Apply the linear transform that is fit on the examples to a clip, (1 + n·time, 3, H, W) uint8."""
    size = 3 * grid.space**2
    first, rest = Basis(size), Basis(grid.time * size)
    for example in examples:
        for frame in example.split(1):
            first.add(grid.blocks(frame))
        for group in list(grid.groups(example))[1:]:
            rest.add(grid.blocks(group))
    project_first, project = first.projection(grid.channels), rest.projection(grid.channels)
    return torch.cat(
        [
            grid.frames((project if i else project_first)(grid.blocks(group)), group)
            for i, group in enumerate(grid.groups(clip))
        ]
    )


def read(path: Path, grid: Grid, num_frames: int, resolution: int) -> Tensor:
    """Read the frames as `vaectl eval` does, or at full size for resolution 0, cropped to whole blocks."""
    from vaectl.video.probe import probe

    info = probe(path)
    short, crop = (resolution, resolution) if resolution else (min(info.width, info.height), None)
    fitting = 1 + (min(num_frames, info.num_frames_from_header or num_frames) - 1) // grid.time * grid.time
    frames = read_clip(path, ClipProtocol(fitting, 1, short, crop)).frames
    height, width = (side // grid.space * grid.space for side in frames.shape[2:])
    return frames[..., :height, :width].contiguous()


def drawn(trees: Sequence[Path], count: int = 2000) -> list[Tensor]:
    """Return clips sampled as in training."""
    sampling = Sampling(
        17, 256, 64, sample_rate=4, dynamic_sample=True, random_crop=True, flip=True, animate_images=True, seed=1
    )
    data = open_dataset([Source(tree, 1.0) for tree in trees], sampling, strict=True, progress=Silent())
    return [data.clip(number).frames for number in range(count)]


def row(real: Tensor, generated: Tensor, metrics: Sequence[str]) -> list[str]:
    """Return PSNR, pooled PSNR, the other metrics, and the PSNR of each stretch."""
    built = build(metrics, MetricSettings(), torch.device("cpu"))
    values = {name: metric.measure(real[None], generated[None])[0].tolist() for name, metric in built.items()}
    pooled = -10 * math.log10(fmean(mean_squared_errors(real, generated)) / 255**2)
    psnr = values.pop("psnr")
    means = [f"{fmean(psnr):.2f}", f"{pooled:.2f}", *(f"{fmean(each):.4f}" for each in values.values())]
    if len(psnr) <= STRETCH + 1:
        return means
    stretches = [psnr[: STRETCH + 1], *(psnr[i : i + STRETCH] for i in range(STRETCH + 1, len(psnr), STRETCH))]
    return [*means, " ".join(f"{fmean(stretch):.1f}" for stretch in stretches)]


def rows(arguments: argparse.Namespace, progress: Progress) -> Iterator[list[str]]:
    model = open_model(arguments.model, arguments.device, "float32", Limits())
    config = model.config
    grid = Grid(config.latent_channels, config.time_compression, config.space_compression)
    clips = {path: read(path, grid, arguments.num_frames, arguments.resolution) for path in arguments.clips}
    examples = drawn(arguments.train_path) if arguments.train_path else []
    for path, clip in clips.items():
        others = [other for name, other in clips.items() if name != path]
        overhead = HostOverhead.of(stored=0, frame=clip[0, 0].numel(), shown=0)
        came_back = {"model": reconstruct_frames(model, clip[None], path, Limits(), overhead, progress)[0]}
        if examples:
            came_back["linear, of the training clips"] = through_linear(grid, examples, clip)
        if others:
            came_back["linear, of other clips"] = through_linear(grid, others, clip)
        came_back["linear, of this clip"] = through_linear(grid, [clip], clip)
        for name, generated in came_back.items():
            yield [f"{path.stem}, {len(clip)} frames", name, *row(clip, generated, arguments.metric)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    samples = Path(__file__).parent.parent / ".samples"
    parser.add_argument("clips", nargs="*", type=Path, default=[samples / f"{name}.mp4" for name in CLIPS])
    parser.add_argument("--model", type=Path, help="a model directory (default: the built-in model)")
    parser.add_argument("--num-frames", type=int, default=33)
    parser.add_argument("--resolution", type=int, default=256, help="side of the square; 0: full size")
    parser.add_argument("--train-path", nargs="+", type=Path, help="videos and images to fit one more transform on")
    parser.add_argument("--metric", nargs="+", default=["psnr", "ssim", "lpips"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()

    with reporter() as progress:
        found = list(rows(arguments, progress))
    titles = ["clip", "", "PSNR", "pooled", *(name.upper() for name in arguments.metric if name != "psnr")]
    titles += [f"PSNR of every {STRETCH} frames"] * (len(found[0]) > len(titles))
    table = Table(*titles, box=box.MARKDOWN if arguments.markdown else box.SIMPLE_HEAD)
    for each in found:
        table.add_row(*each)
    console = Console(highlight=False)
    if arguments.markdown or not console.is_terminal:
        console.width = 1000
    console.print(table)


if __name__ == "__main__":
    main()
