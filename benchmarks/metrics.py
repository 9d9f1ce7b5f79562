"""Time the metrics for 33 frames of 256x256, compared with scikit-image, `pytorch-msssim` and the `lpips` package.

    python benchmarks/metrics.py [--threads N]

Both run in this process, in turns, frame by frame, on the same 8-bit frames in memory; the best of three runs counts.
LPIPS uses AlexNet and spatial maps. vmaf, psnr_y and xpsnr have no counterpart: FFmpeg computes them. The last line is
the peak memory of the process: after vaectl has measured one clip, after it has measured eight, and after the other
packages have measured one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pytorch_msssim import ms_ssim
from rich.console import Console
from rich.table import Table
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from vaectl.memory import format_size, peak
from vaectl.metrics import MetricSettings, build
from vaectl.metrics.lpips import load_lpips

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.metrics.reference import disturbed, package_lpips, smooth

FRAMES, SIDE, REPEATS = 33, 256, 3


def frame_by_frame(measure: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda real, generated: torch.tensor(
        [[measure(a, b) for a, b in zip(real[0], generated[0], strict=True)]], dtype=torch.float64
    )


def scikit_ssim(a: Tensor, b: Tensor) -> float:
    return float(
        structural_similarity(
            a.numpy(),
            b.numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=0,
        )
    )


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    torch.set_grad_enabled(False)

    cpu = torch.device("cpu")
    real = smooth(1, FRAMES, 3, SIDE, SIDE)
    generated = disturbed(real, 10)
    ours = build(["psnr", "ssim", "ms_ssim", "lpips"], MetricSettings(), cpu)
    for metric in ours.values():
        metric.measure(real, generated)
    memory = {"one clip": peak(cpu)}
    for metric in ours.values():
        for _ in range(8):
            metric.measure(real, generated)
    memory["eight clips"] = peak(cpu)

    package = package_lpips("alex", load_lpips("alex").features, spatial=True)
    theirs = {
        "psnr": frame_by_frame(lambda a, b: float(peak_signal_noise_ratio(a.numpy(), b.numpy()))),
        "ssim": frame_by_frame(scikit_ssim),
        "ms_ssim": frame_by_frame(lambda a, b: float(ms_ssim(a[None].float(), b[None].float()))),
        "lpips": frame_by_frame(lambda a, b: float(package(a[None] / 127.5 - 1, b[None] / 127.5 - 1).mean())),
    }
    table = Table(
        title=f"{FRAMES} frames of {SIDE}x{SIDE}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    )
    for column in ("metric", "vaectl, s", "frame by frame, s", "times as fast", "largest difference"):
        table.add_column(column, justify="right")
    total = [0.0, 0.0]
    for name, other in theirs.items():
        difference = (ours[name].measure(real, generated) - other(real, generated)).abs().max()
        rounds = [
            (
                seconds(lambda name=name: ours[name].measure(real, generated)),
                seconds(lambda f=other: f(real, generated)),
            )
            for _ in range(REPEATS)
        ]
        best = [min(side) for side in zip(*rounds, strict=True)]
        total = [a + b for a, b in zip(total, best, strict=True)]
        table.add_row(name, f"{best[0]:.3f}", f"{best[1]:.3f}", f"{best[1] / best[0]:.1f}", f"{difference:.0e}")
    table.add_row("all", f"{total[0]:.3f}", f"{total[1]:.3f}", f"{total[1] / total[0]:.1f}", "")
    for name, metric in build(["vmaf", "psnr_y", "xpsnr"], MetricSettings(), cpu).items():
        best_of = min(seconds(lambda metric=metric: metric.measure(real, generated)) for _ in range(REPEATS))
        table.add_row(name, f"{best_of:.3f}", "", "", "")
    memory["frame by frame"] = peak(cpu)
    console = Console()
    console.print(table)
    console.print("peak memory: " + ", ".join(f"{what} {format_size(size)}" for what, size in memory.items()))


if __name__ == "__main__":
    main()
