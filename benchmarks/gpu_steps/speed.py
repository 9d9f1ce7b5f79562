"""Measure time and memory of encode and decode, for vaectl and the plain formulation, and the cost of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache, partial

import torch
from torch import Tensor

from common import WF_VAE_L, WF_VAE_S, Shape, flops, input_of, run_of
from gpu_steps.context import Context, Values, dtype_name, free_memory, largest_difference, peak_gib, seconds_of, timed
from gpu_steps.machine import product_rate
from gpu_steps.models import narrowed, placed
from vaectl.geometry import latent_frames
from vaectl.models import build_model
from vaectl.models.config import WFVAEConfig
from vaectl.models.families.wfvae import WFVAE
from vaectl.tiling.plan import Plan, uniform_plan
from vaectl.tiling.storage import Place
from vaectl.tiling.stream import executors, mark_last, reconstruct_windows

SHAPES = ((33, 256, 256), (17, 720, 1280))
TINY_SHAPES = ((5, 32, 32),)
CONFIGS = {"S": WF_VAE_S, "L": WF_VAE_L}
EAGER = ("vaectl", "plain")
COMPILED = ("compiled", "plain compiled")
COMPILED_EXACT = 1e-3
"""Maximum difference of a compiled network in float32, for outputs of order 1."""
COMPILING = 40.0
"""Seconds of a case with compilation: up to 17 on an H200."""
COMPILING_WINDOWS = 3 * COMPILING
"""The same for windows: the first, those between and the last are compiled."""
TRACING = 20.0
"""The same on tiny shapes, without a compiler."""


@dataclass(frozen=True)
class Subject:
    """One row: model, job, clip, precision and implementation."""

    size: str
    job: str
    shape: Shape
    dtype: torch.dtype
    way: str
    """vaectl, compiled, plain (the straightforward formulation), or plain compiled."""

    @property
    def name(self) -> str:
        clip = "x".join(map(str, self.shape))
        return f"WF-VAE-{self.size} {self.job} {clip} {dtype_name(self.dtype)}, {self.way}"


def run(context: Context) -> None:
    half, *exact = [torch.float32] if context.tiny else [each for each in context.dtypes if each != torch.float16]

    def compare(size: str, dtypes: list[torch.dtype], ways: tuple[str, ...]) -> None:
        for dtype in dtypes:
            for shape in TINY_SHAPES if context.tiny else SHAPES:
                for job in ("encode", "decode"):
                    for way in ways:
                        subject = Subject(size, job, shape, dtype, way)
                        seconds = COMPILING if way in COMPILED else None
                        context.case(subject.name, partial(measure, context, subject), seconds=seconds)

    compare("S", [half, *exact], EAGER)
    context.case("tiles and windows", lambda: price_of_tiles(context, half))
    context.case("frames of a window", lambda: windows(context, half))
    for job in ("encode",) if context.tiny else ("encode", "decode"):
        work = partial(compiled_windows, context, job, half)
        seconds = TRACING if context.tiny else COMPILING_WINDOWS
        context.case(f"windows of {job}, {dtype_name(half)}, --compile", work, seconds=seconds)
    if not context.tiny:
        compare("L", [half], EAGER)
        compare("S", [half, *exact], COMPILED[:1])
        compare("L", exact, EAGER)
        compare("S", [half, *exact], COMPILED[1:])


def measure(context: Context, subject: Subject) -> Values:
    rate = rate_of(context, subject.dtype)
    model = model_of(context, subject.size, subject.dtype)
    run = run_of(model, subject.job, plain=subject.way.startswith("plain"))
    x = input_of(model, subject.job, subject.shape)
    more: Values = {}
    free_memory(context.device)
    if subject.way in COMPILED:
        torch.compiler.reset()
        expected, run = run(x), torch.compile(run, dynamic=False)
        with timed(context.device) as seconds:
            made = run(x)
        difference = largest_difference(made, expected)
        more = {"compiling s": seconds(), "difference": difference}
        if subject.dtype == torch.float32:
            more["passed"] = difference <= COMPILED_EXACT
        del made, expected
        free_memory(context.device)
    taken = seconds_of(lambda: run(x), context.device)
    peak = peak_gib(context.device)
    if subject.way.startswith("plain") and context.device.type == "cuda":
        peak -= sum(weight.nbytes for weight in model.parameters()) / 2**30  # it has its own copy
    operations = operations_of(narrowed(CONFIGS[subject.size], context), subject.job, subject.shape)
    return {
        "ms": 1000 * taken,
        "frames/s": subject.shape[0] / taken,
        "peak GiB": peak,
        "TFLOP/s": operations / taken / 1e12,
        "of the product": operations / taken / rate,
        **more,
    }


rate_of = cache(product_rate)


@lru_cache(maxsize=1)
def model_of(context: Context, size: str, dtype: torch.dtype) -> WFVAE:
    """Build a model with random weights, which is faster than synthetic ones."""
    free_memory(context.device)
    torch.manual_seed(0)
    config = narrowed(CONFIGS[size], context)
    with context.device:
        weights = build_model(config).state_dict()
    model = placed(config, weights, context.device, dtype)
    assert isinstance(model, WFVAE)
    return model


@cache
def operations_of(config: WFVAEConfig, job: str, shape: Shape) -> int:
    """Count the FLOPs of convolutions and products, on meta tensors."""
    frames, height, width = shape
    with torch.device("meta"):
        model = build_model(config)
        x = torch.empty(1, 3, frames, height, width)
        z = torch.empty(1, config.latent_dim, latent_frames(frames, config.time_compression), height // 8, width // 8)
    return flops(lambda: model.encode(x) if job == "encode" else model.decode(z))


def price_of_tiles(context: Context, dtype: torch.dtype) -> Values:
    """Time encode and decode in tiles of half the sides and windows of 8 frames, relative to an untiled run."""
    model = model_of(context, "S", dtype)
    frames, side = (9, 32) if context.tiny else (17, 512)
    video = torch.rand(1, 3, frames, side, side) * 2 - 1
    whole = seconds_of(lambda: model.reconstruct(video), context.device)
    plans: dict[str, Plan | None] = {"windows": None}
    places: tuple[Place, ...] = ("device", "host", "disk")
    for place in places:
        plans[f"state on {place}"] = uniform_plan(model, frames, side, side, side // 16, 8, place)
    prices = {
        way: seconds_of(lambda plan=plan: through_windows(model, plan, video, 8), context.device) / whole
        for way, plan in plans.items()
    }
    return {"one go ms": 1000 * whole, **prices}


def windows(context: Context, dtype: torch.dtype) -> Values:
    """Measure frames per second of encode and decode at 256x256 for several lengths of window."""
    model = model_of(context, "S", dtype)
    frames, side = (9, 32) if context.tiny else (65, 256)
    video = (torch.rand(1, 3, frames, side, side) * 2 - 1).to(context.device)
    lengths = (4, 8, frames) if context.tiny else (4, 8, 16, 32, frames)
    return {
        f"{length} frames": frames / seconds_of(lambda n=length: through_windows(model, None, video, n), context.device)
        for length in lengths
    }


def compiled_windows(context: Context, job: str, dtype: torch.dtype) -> Values:
    """Measure encode or decode in windows of 16 frames without and with `--compile`, and the run that compiles."""
    model = model_of(context, "S", dtype)
    frames, side, window = (9, 32, 4) if context.tiny else (65, 256, 16)
    x = input_of(model, job, (frames, side, side))
    which, window = (0, window) if job == "encode" else (1, window // model.config.time_compression)

    def run() -> Tensor:
        return torch.cat([*executors(model)[which].run(mark_last(x.split(window, dim=2)))], dim=2)

    def measured(name: str) -> Values:
        free_memory(context.device)
        taken = seconds_of(run, context.device)
        return {f"{name} ms": 1000 * taken, f"{name} peak GiB": peak_gib(context.device)}

    expected, values = run(), measured("plain")
    torch.compiler.reset()
    model.compile(backend="eager" if context.tiny else "inductor")  # a CPU would take minutes
    try:
        with timed(context.device) as seconds:
            made = run()
        values |= {"compiling s": seconds(), "difference": largest_difference(made, expected), **measured("compiled")}
    finally:
        model.compiled = None  # the next case has the same model
    if dtype == torch.float32:
        values["passed"] = values["difference"] <= COMPILED_EXACT
    return values


def through_windows(model: WFVAE, plan: Plan | None, video: Tensor, window: int) -> None:
    for _ in reconstruct_windows(model, video.split(window, dim=2), plan):
        pass
