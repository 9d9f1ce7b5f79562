"""Reading, training samples, metrics and start-up, next to the libraries that people use instead."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tests.metrics.reference import disturbed, package_lpips, smooth
from torch import Tensor
from torch.nn import functional as F

import startup as startup_benchmark
from common import flops, take_turns
from common.clips import SAMPLES, write_clip
from common.rates import measure_rates
from performance_sections.rows import AnyRow, LeftOut, Options, Row
from vaectl.data import Sampling, Source, open_dataset
from vaectl.data.sampling import place
from vaectl.metrics import MetricSettings, build
from vaectl.metrics.i3d import I3D
from vaectl.metrics.lpips import load_lpips
from vaectl.progress import Silent
from vaectl.video import VideoReader, read_video
from vaectl.video.transform import scale_and_crop, target_size

CPU = torch.device("cpu")
CLIP_FRAMES = 17
MISSING = LeftOut("torchcodec", "is not installed")
NO_SAMPLES = LeftOut("the sample clips", "are missing; make samples downloads them")


def sample_clips(options: Options, folder: Path) -> list[Path]:
    """Return real clips, the 720p one first. A tiny run makes one of its own."""
    if not options.tiny:
        names = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")
        return [SAMPLES / name for name in names if (SAMPLES / name).is_file()]
    write_clip(folder / "tiny.mp4", 24, 64, 48)
    return [folder / "tiny.mp4"]


def reading(options: Options) -> Iterator[AnyRow]:
    """All frames of a clip from a file that is not open, and clips at random places of one that is."""
    with tempfile.TemporaryDirectory() as folder:
        clips = sample_clips(options, Path(folder))
        if not clips:
            yield NO_SAMPLES
            return
        yield from read_clip(clips[0], options)


def read_clip(path: Path, options: Options) -> Iterator[AnyRow]:
    threads = torch.get_num_threads()
    whole = VideoReader(path)
    length = len(whole.timestamps())
    draw = random.Random(0)
    starts = [draw.randrange(length - CLIP_FRAMES) for _ in range(3 if options.tiny else 12)]
    on = f"{path.name}, {whole.info.width}x{whole.info.height}"
    if decoder_of := torchcodec():
        opened = decoder_of(str(path), num_ffmpeg_threads=threads)
        peers: dict[str, tuple[str, Callable[[], object]]] = {
            "in order": (
                "torchcodec",
                lambda: decoder_of(str(path), num_ffmpeg_threads=threads).get_frames_in_range(0, length),
            ),
            "at random": (
                "torchcodec",
                lambda: [opened.get_frames_in_range(start, start + CLIP_FRAMES) for start in starts],
            ),
        }
    else:
        yield MISSING
        peers = {}
    for conversion in ("swscale", "accurate"):
        reader = VideoReader(path, rgb_conversion=conversion, threads=threads)
        jobs: dict[str, tuple[Callable[[], object], int]] = {
            "in order": (lambda kind=conversion: read_video(path, rgb_conversion=kind), length),
            "at random": (
                lambda reader=reader: [reader.read(start, CLIP_FRAMES) for start in starts],
                CLIP_FRAMES * len(starts),
            ),
        }
        for job, (ours, count) in jobs.items():
            peer, theirs = peers.get(job, ("", None))
            yield compared(f"read {job}, {conversion}", on, ours, peer, theirs, options, count)


def compared(
    what: str,
    on: str,
    ours: Callable[[], object],
    peer: str,
    theirs: Callable[[], object] | None,
    options: Options,
    count: int = 0,
    **more: Any,
) -> Row:
    """Time both in turns, after a run of each."""
    works = [ours] if theirs is None else [ours, theirs]
    for work in works:
        work()
    seconds = take_turns(works, CPU, options.turns, options.clock)
    peer_seconds = seconds[1] if theirs is not None else None
    return Row(what, on, seconds[0], peer if theirs is not None else "", peer_seconds, count=count, **more)


def torchcodec() -> Any:
    """Return the decoder of torchcodec, which is exact by default; None if it is not installed."""
    if find_spec("torchcodec") is None:
        return None
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder


def samples(options: Options) -> Iterator[AnyRow]:
    """Clips of 17 frames from random places, with the short side resized to 256 and cropped, on one thread."""
    decoder_of = torchcodec()
    if decoder_of is None:
        yield MISSING
    with tempfile.TemporaryDirectory() as folder:
        clips = sample_clips(options, Path(folder))
        if not clips:
            yield NO_SAMPLES
        torch.set_num_threads(1)
        for path in clips:
            yield from sample_rows(path, decoder_of, options)


def sample_rows(path: Path, decoder_of: Any, options: Options) -> Iterator[Row]:
    """Compare with torchcodec and the resize of torchvision, which is float32 on AVX-512, and with our resize."""
    size, numbers = (32, range(2)) if options.tiny else (256, range(8))
    dataset = open_dataset([Source(path)], Sampling(CLIP_FRAMES, size), strict=True, progress=Silent())
    length = len(VideoReader(path).timestamps())
    starts = [place(dataset.draw(k), dataset.sampling, length).start for k in numbers]

    def in_float(frames: Tensor) -> Tensor:
        width, height = target_size(frames.shape[-1], frames.shape[-2], short_size=size)
        resized = F.interpolate(frames.float(), (height, width), mode="bilinear", antialias=True)
        top, left = (height - size) // 2, (width - size) // 2
        return resized[..., top : top + size, left : left + size].round().clamp(0, 255).byte()

    def theirs(start: int, resize: Callable[[Tensor], Tensor]) -> Tensor:
        decoder = decoder_of(str(path), num_ffmpeg_threads=1)
        frames: Tensor = decoder.get_frames_in_range(start, start + CLIP_FRAMES).data
        return resize(frames)

    resizes: dict[str, Callable[[Tensor], Tensor]] = {
        "resize": in_float,
        "our 8-bit resize": lambda frames: scale_and_crop(frames, size, size, exact=False),
    }
    for name, resize in resizes.items():
        yield compared(
            "training samples",
            f"{path.name}, {CLIP_FRAMES}x{size}x{size}",
            lambda: [dataset.clip(k) for k in numbers],
            f"torchcodec and {name}",
            None if decoder_of is None else lambda resize=resize: [theirs(start, resize) for start in starts],
            options,
            len(numbers),
            counted="samples",
        )
        if decoder_of is None:
            return


@torch.no_grad()
def metrics(options: Options) -> Iterator[AnyRow]:
    """Metrics of 8-bit frames in memory, next to packages that are called frame by frame."""
    frames, side = (5, 176) if options.tiny else (33, 256)  # MS-SSIM needs more than 160 pixels
    real = smooth(1, frames, 3, side, side)
    generated = disturbed(real, 10)
    ours = build(["psnr", "ssim", "ms_ssim", "lpips", "vmaf", "xpsnr", "psnr_y"], MetricSettings(), CPU)
    on = f"{frames}x{side}x{side}"
    peers = packages()
    for name, metric in ours.items():
        peer, by_frame = peers.get(name, ("", None))
        if by_frame is None:
            if name in peers:
                yield LeftOut(peer, "is not installed")
            yield compared(name, on, partial(metric.measure, real, generated), "", None, options, frames)
            continue
        work = partial(frame_by_frame, by_frame, real, generated)
        difference = (metric.measure(real, generated) - work()).abs().max().item()
        run = partial(metric.measure, real, generated)
        yield compared(name, on, run, peer, work, options, frames, difference=difference)
    yield features(options)


def features(options: Options) -> Row:
    """The network of FVD, with random weights."""
    shape = (1, 3, 9, 224, 224) if options.tiny else (1, 3, 33, 224, 224)
    network, x = I3D().eval(), torch.rand(shape)
    limit = measure_rates(options.clock, small=options.tiny).convolution
    with torch.device("meta"):
        twin = I3D().eval()
    work = flops(lambda: twin(torch.empty(shape, device="meta")))
    on = "x".join(map(str, shape[2:]))
    return compared("I3D, for fvd", on, lambda: network(x), "", None, options, shape[2], work=work, limit=limit)


def packages() -> dict[str, tuple[str, Callable[[Tensor, Tensor], float] | None]]:
    """Return for each metric a package and how it measures a frame; None if it is not installed."""
    skimage, msssim, lpips = (find_spec(name) is not None for name in ("skimage", "pytorch_msssim", "lpips"))
    made: dict[str, tuple[str, Callable[[Tensor, Tensor], float] | None]] = {
        **dict.fromkeys(("psnr", "ssim"), ("scikit-image", None)),
        "ms_ssim": ("pytorch-msssim", None),
        "lpips": ("lpips", None),
    }
    if skimage:
        from skimage.metrics import peak_signal_noise_ratio, structural_similarity

        gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        ssim = partial(structural_similarity, **gaussian, data_range=255, channel_axis=0)
        made["psnr"] = "scikit-image", lambda a, b: float(peak_signal_noise_ratio(a.numpy(), b.numpy()))
        made["ssim"] = "scikit-image", lambda a, b: float(ssim(a.numpy(), b.numpy()))
    if msssim:
        from pytorch_msssim import ms_ssim

        made["ms_ssim"] = "pytorch-msssim", lambda a, b: float(ms_ssim(a[None].float(), b[None].float()))
    if lpips:
        package = package_lpips("alex", load_lpips("alex").features, spatial=True)
        made["lpips"] = "lpips", lambda a, b: float(package(a[None] / 127.5 - 1, b[None] / 127.5 - 1).mean())
    return made


def frame_by_frame(measure: Callable[[Tensor, Tensor], float], real: Tensor, generated: Tensor) -> Tensor:
    values = [measure(a, b) for a, b in zip(real[0], generated[0], strict=True)]
    return torch.tensor([values], dtype=torch.float64)


def startup(options: Options) -> Iterator[AnyRow]:
    """Whole processes, by the clock on the wall: commands next to importing their libraries."""
    rounds, job_rounds = (1, 0) if options.tiny else (startup_benchmark.ROUNDS, startup_benchmark.JOB_ROUNDS)
    cases = dict(list(startup_benchmark.CASES.items())[: 2 if options.tiny else None])
    yield from startup_rows(startup_benchmark.fastest(cases, rounds))
    if job_rounds:
        with tempfile.TemporaryDirectory() as folder:
            yield from startup_rows(startup_benchmark.fastest(startup_benchmark.jobs(Path(folder)), job_rounds))


def startup_rows(seconds: dict[str, float]) -> Iterator[Row]:
    """Yield a row for each case but the first, with which the others are compared."""
    (base, base_seconds), *others = seconds.items()
    for name, taken in others:
        yield Row(name, "", taken, f"`{base}`", base_seconds)
