"""Read training samples from a real 720p clip, compared with plain PyAV, and measure how long training waits for them.

    python benchmarks/loading.py [VIDEO]

A sample is 17 frames at 256x256 from a random place. Plain PyAV seeks to the keyframe before that place, decodes up to
the same frames and converts them with `to_ndarray("rgb24")`, in full size. Both sides run in this process, on one
thread. Then two workers feed a WF-VAE-S with clips of 9x128x128, forward and backward with the L1 loss, in float32.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import av
import torch
from rich.console import Console
from rich.table import Table

from common import take_turns
from vaectl.data import ClipLoader, Sampling, Source, open_dataset
from vaectl.data.sampling import place
from vaectl.geometry import latent_frames
from vaectl.models import build_model
from vaectl.progress import Silent
from vaectl.training.network import AutoEncoder
from vaectl.training.recipes import model_config
from vaectl.video import VideoReader
from vaectl.video.clip import batch_to_video

CPU = torch.device("cpu")
SAMPLES = 12
STEPS = 2


def plain(path: Path, start: float, frames: int, *, convert: bool) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        container.seek(int(start / stream.time_base), stream=stream)
        wanted = (frame for frame in container.decode(stream) if (frame.time or 0) >= start - 1e-6)
        for frame in islice(wanted, frames):
            if convert:
                frame.to_ndarray(format="rgb24")


def compare(path: Path, console: Console) -> None:
    dataset = open_dataset([Source(path)], Sampling(17, 256), strict=True, progress=Silent())
    times = VideoReader(path).timestamps()
    starts = [float(times[place(dataset.draw(k), dataset.sampling, len(times)).start]) for k in range(SAMPLES)]
    works: dict[str, Callable[[], object]] = {
        "plain PyAV, decoding alone": lambda: [plain(path, start, 17, convert=False) for start in starts],
        "plain PyAV, to RGB in full size": lambda: [plain(path, start, 17, convert=True) for start in starts],
        "vaectl, to 256x256": lambda: [dataset.clip(k) for k in range(SAMPLES)],
    }
    seconds = dict(zip(works, take_turns(list(works.values()), CPU), strict=True))
    with ClipLoader(dataset, lambda k: [k % SAMPLES], first=0, workers=2) as loader:
        batches = iter(loader)
        list(islice(batches, SAMPLES))  # the workers have started, and nothing is ready in advance
        (seconds["vaectl, by two workers"],) = take_turns([lambda: list(islice(batches, SAMPLES))], CPU)
    table = Table("17 frames from anywhere", title=path.name)
    table.add_column("samples/s", justify="right")
    table.add_column("relative to decoding alone", justify="right")
    for name, taken in seconds.items():
        table.add_row(name, f"{SAMPLES / taken:.1f}", f"{seconds['plain PyAV, decoding alone'] / taken:.2f}")
    console.print(table)


def wait_for_data(path: Path, console: Console) -> None:
    dataset = open_dataset([Source(path)], Sampling(9, 128), strict=True, progress=Silent())
    config = model_config("wfvae-s")
    assert config is not None
    network = AutoEncoder(build_model(config).train(), freeze_encoder=False, recompute=False)
    noise = torch.randn(1, config.latent_channels, latent_frames(9, config.time_compression), 16, 16)
    with ClipLoader(dataset, lambda k: [k], first=0, workers=2) as loader:
        batches = iter(loader)
        for step in range(STEPS + 1):
            if step == 1:  # the first was for warming up
                begun, before = time.perf_counter(), loader.waited
            x = batch_to_video(next(batches).frames)
            (network(x, noise)[0] - x).abs().mean().backward()
            network.zero_grad()
        step_seconds, waited = (time.perf_counter() - begun) / STEPS, (loader.waited - before) / STEPS
    console.print(
        f"WF-VAE-S at 9x128x128, 2 workers: {step_seconds:.2f} s a step, of which {waited * 1000:.1f} ms is waiting"
        f" ({waited / step_seconds:.2%})"
    )


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / ".samples" / "bigbuckbunny.mp4"
    compare(path, Console())
    wait_for_data(path, Console())


if __name__ == "__main__":
    main()
