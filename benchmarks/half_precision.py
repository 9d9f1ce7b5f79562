"""Measure how far half precision is from float32 on real clips, by PSNR between both results, and how fast it is.

    python benchmarks/half_precision.py [--model results/vae/best] [--dtype float16] [--size 128] [CLIP ...]

"decode" decodes the same latents, those of the encoder in float32. "8 bits" compares the frames that would be written,
and "both" encoding and decoding. "faster" is the time of float32 divided by that of half precision, for both (best of
3, in turns). Use trained weights: random ones amplify rounding. The clips are those of `make samples`, unless others
are given.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from common import take_turns
from gpu_steps.context import dtype_name, psnr
from vaectl.evaluation.protocol import ClipProtocol, read_clip
from vaectl.metrics.psnr import mean_psnr, mean_squared_errors
from vaectl.models import load_model
from vaectl.models.device import choose_device, choose_dtype
from vaectl.video.clip import to_frames, to_video

FRAMES = 17
SAMPLES = Path(__file__).parent.parent / ".samples"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--size", type=int, default=256, help="shorter side and centre crop in pixels")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bfloat16", help="float16 is very slow on the CPU")
    parser.add_argument("--every-layer", action="store_true", help="half precision in those kept in float32 too")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype, device)
    torch.set_grad_enabled(False)

    exact = load_model(arguments.model, device=device, dtype=torch.float32)
    if arguments.every_layer:
        type(exact).float32_modules = lambda self: []
    model = load_model(arguments.model, device=device, dtype=dtype)
    size = arguments.size
    table = Table(title=f"{dtype_name(dtype)} against float32, dB: {FRAMES} frames of {size}x{size}", box=SIMPLE)
    table.add_column("clip")
    for column in ("decode", "8 bits", "both", "faster"):
        table.add_column(column, justify="right")
    for path in arguments.clips or sorted(SAMPLES.glob("*.mp4")):
        frames = read_clip(path, ClipProtocol(FRAMES, 1, size, size)).frames
        latent = exact.encode(to_video(frames)).mean
        wanted, made, both = exact.decode(latent), model.decode(latent), model.reconstruct(to_video(frames))
        written = mean_psnr(mean_squared_errors(to_frames(wanted.float()), to_frames(made.float())))
        figures = (psnr(made, wanted), written, psnr(both, wanted))
        slow, fast = take_turns([partial(each.reconstruct, to_video(frames)) for each in (exact, model)], device)
        table.add_row(path.stem, *(f"{value:.1f}" for value in figures), f"{slow / fast:.2f} times")
    Console().print(table)


if __name__ == "__main__":
    main()
