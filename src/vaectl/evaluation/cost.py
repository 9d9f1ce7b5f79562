"""What a model costs: its size, that of its latent, and the speed and peak memory of both networks.

The networks run on noise of the size of the clips, in the windows and tiles of an evaluation. Knows no files.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TypeAlias

import torch
from torch import Tensor

from vaectl.allocator import returning_freed
from vaectl.engine import Run, explain_shortage, prepare_run, retry_on_oom
from vaectl.errors import BUG, VaectlError, unforeseen
from vaectl.evaluation.manifest import Manifest, ManifestModel
from vaectl.evaluation.protocol import host_overhead
from vaectl.evaluation.results import Cost
from vaectl.geometry import latent_frames
from vaectl.memory import Limits, resident, return_freed
from vaectl.models.device import choose_dtype
from vaectl.models.vae import AnyVAE
from vaectl.progress import Progress, Silent
from vaectl.tiling.executor import Window
from vaectl.tiling.stream import executors

SECONDS = 10.0
"""After this time, a run gets no further window, and no further run starts."""
RUNS = 3
"""Most measured runs, after one for warm-up."""
SAMPLING_SECONDS = 0.002
"""Between two looks at the resident memory."""

Size: TypeAlias = tuple[int, int, int]
"""Frames, height and width of a clip."""


@dataclass(frozen=True)
class Speed:
    """The measurement of one network."""

    frames_per_second: float
    """Median of the runs."""
    peak: int
    """Bytes."""
    warm: bool


def known_costs(models: Mapping[int, AnyVAE], manifests: Sequence[Manifest | None], size: Size) -> list[Cost | None]:
    """Return what is known about each candidate without a measurement: models by number, or folders by manifest."""
    costs = [known_cost(each.model, size) if each else None for each in manifests]
    return [model_cost(models[number], size) if number in models else cost for number, cost in enumerate(costs)]


def measure_costs(
    models: Mapping[int, AnyVAE],
    names: Sequence[str],
    known: Sequence[Cost | None],
    size: Size,
    limits: Limits,
    progress: Progress,
) -> list[Cost | None]:
    """Return the costs that are `known`, with speed and memory of the models.

    `names` are those of the candidates. Whatever fails is a warning: the costs are not worth the other numbers.
    """
    costs = list(known)
    for number, model in models.items():
        others = [other for other in models.values() if other is not model]
        try:
            costs[number] = measure_cost(model, *size, limits, progress, others, names[number])
        except Exception as error:
            why = error if isinstance(error, VaectlError) else unforeseen("the measurement", error, BUG)
            progress.warn(f"{names[number]}: speed and memory are not measured: {why}")
    return costs


def model_cost(model: AnyVAE, size: Size) -> Cost:
    """Return the cost of a model without a measurement."""
    config, parameters = model.config, sum(parameter.numel() for parameter in model.parameters())
    return _cost(
        parameters, config.time_compression, config.space_compression, config.latent_channels, model.dtype, size
    )


def known_cost(made_by: ManifestModel, size: Size) -> Cost | None:
    """Return the cost that a manifest has; None for a manifest of an earlier version."""
    values = made_by.parameters, made_by.temporal_compression, made_by.spatial_compression, made_by.latent_channels
    parameters, time, space, channels = values
    if parameters is None or time is None or space is None or channels is None:
        return None
    return _cost(parameters, time, space, channels, choose_dtype(made_by.dtype, torch.device("cpu")), size)


def _cost(parameters: int, time: int, space: int, channels: int, dtype: torch.dtype, size: Size) -> Cost:
    num_frames, height, width = size
    positions = _latent_length(num_frames, time) * -(-height // space) * -(-width // space)
    bits = channels * positions * torch.finfo(dtype).bits
    return Cost(parameters, (time, space), channels, bits / math.prod(size))


def _latent_length(num_frames: int, time: int) -> int:
    """Return the latent frames of a clip, which is padded to 1 + s·n frames."""
    return latent_frames(num_frames + (1 - num_frames) % time, time)


@torch.no_grad()
def measure_cost(
    model: AnyVAE,
    num_frames: int,
    height: int,
    width: int,
    limits: Limits,
    progress: Progress,
    others: Sequence[AnyVAE] = (),
    name: str = "the model",
) -> Cost:
    """Measure speed and peak memory of both networks on a clip of that size, on the model's device.

    Each network runs once for warm-up, and up to `RUNS` times more within `SECONDS`. A run of a model that streams ends
    after `SECONDS`, at the end of a window; if the run for warm-up takes that long, it is the measurement. A compiled
    network is compiled before, in a whole run.

    Peak memory is that of the weights and of what a run adds to them, without the clip: allocated by PyTorch on a GPU
    (whose peak statistics are reset), resident memory on the CPU. Nothing else may run in the process. `others` are
    models that are loaded too. Raises OutOfMemoryError, and UsageError for a limit that is too small.
    """
    frames_BT3HW = torch.empty((1, num_frames, 3, height, width), dtype=torch.uint8, device="meta")
    overhead = host_overhead(frames_BT3HW, stored=height * width).with_weights(others)

    def attempt(limits: Limits) -> Cost:
        run = prepare_run(model, num_frames, width, height, limits, overhead, Silent())
        speeds = []
        with explain_shortage(f"{num_frames} frames of {width}x{height} pixels", model.device), returning_freed(model):
            for number, (x_BCTHW, windows) in enumerate(inputs(run, (num_frames, height, width))):
                if model.compiled:
                    run_network(run, number, x_BCTHW, windows, math.inf)
                speeds.append(measure(model, partial(run_network, run, number, x_BCTHW, windows), num_frames))
                progress.advance(1)
        encode, decode = speeds
        return replace(
            model_cost(model, (num_frames, height, width)),
            encode_frames_per_second=encode.frames_per_second,
            decode_frames_per_second=decode.frames_per_second,
            encode_peak_memory=encode.peak,
            decode_peak_memory=decode.peak,
            warm=encode.warm and decode.warm,
        )

    progress.start(f"measuring speed and memory of {name}", 2, "networks")
    try:
        return retry_on_oom(attempt, model, limits, progress)
    finally:
        progress.finish()
        return_freed()  # what the allocator keeps for this model would add to the peak of the next one


def inputs(run: Run, size: Size) -> Iterator[tuple[Tensor, list[int]]]:
    """Yield a window of the longest input, and the lengths of all windows, of the encoder and of the decoder."""
    model, (num_frames, height, width), config = run.model, size, run.model.config
    time, space = config.time_compression, config.space_compression
    length, rows, columns = _latent_length(num_frames, time), -(-height // space), -(-width // space)
    total = 1 + time * (length - 1)
    whole = run.window >= num_frames or not (model.streams or run.plan)
    window, latent_window = (total, length) if whole else (run.window, max(1, run.window // time))
    if run.plan and not model.streams:
        latent_window = run.plan.decoder[0].window
    rng = torch.Generator().manual_seed(0)
    for channels, frames, longest, scale in (
        (model.in_channels, total, window, space),
        (config.latent_channels, length, latent_window, 1),
    ):
        windows = [min(longest, frames - start) for start in range(0, frames, longest)]
        x_BCTHW = torch.rand((1, channels, windows[0], scale * rows, scale * columns), generator=rng) * 2 - 1
        yield (x_BCTHW if run.plan else model.prepare(x_BCTHW)), windows


def run_network(run: Run, number: int, x_BCTHW: Tensor, windows: Sequence[int], seconds: float = SECONDS) -> int:
    """Run the encoder (`number` = 0) or the decoder (1), for `seconds` if the model streams; return the frames done."""
    deadline = time.perf_counter() + (seconds if run.model.streams else math.inf)
    done = 0

    def parts() -> Iterator[Window]:
        nonlocal done
        for index, length in enumerate(windows, 1):
            done += length
            yield x_BCTHW[:, :, :length], index == len(windows)

    for _ in executors(run.model, run.plan)[number].run(parts()):
        if time.perf_counter() > deadline:
            break
    synchronize(run.model.device)
    return 1 + run.model.config.time_compression * (done - 1) if number else done


def measure(model: AnyVAE, run: Callable[[], int], num_frames: int) -> Speed:
    """Measure `run`, which returns the frames that it did; frames after `num_frames` are padding."""

    def rate() -> float:
        synchronize(model.device)
        begun = time.perf_counter()
        frames = min(run(), num_frames)
        return frames / (time.perf_counter() - begun)

    begun = time.perf_counter()
    first, peak = peak_of(model, rate)
    if time.perf_counter() - begun >= SECONDS:
        return Speed(first, peak, warm=False)
    begun, rates = time.perf_counter(), [rate()]
    while len(rates) < RUNS and time.perf_counter() - begun < SECONDS:
        rates.append(rate())
    return Speed(median(rates), peak, warm=True)


def peak_of(model: AnyVAE, run: Callable[[], float]) -> tuple[float, int]:
    """Return the result of `run`, and the bytes of the weights and of what it adds at its peak."""
    device, weights = model.device, sum(weight.nbytes for weight in model.parameters())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = run()
        return result, weights + torch.cuda.max_memory_allocated(device) - before
    return_freed()
    before = most = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(SAMPLING_SECONDS):
            most = max(most, resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        result = run()
    finally:
        done.set()
        thread.join()
    return result, weights + most - before


def synchronize(device: torch.device) -> None:
    """Wait for what was started on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
