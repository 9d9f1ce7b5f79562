"""Compare numbers: the device with the references, half precision with float32, tiles with whole frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from tests.models.reference import CASES, load_reference
from torch import Tensor
from torch.nn import functional as F

from common import run_of
from gpu_steps.context import Context, Values, dtype_name, largest_difference, psnr
from gpu_steps.models import CAUSALVAE_CASES, WAN_CASES, built_in, clip, reference_model, wfvae
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.vae import AnyVAE
from vaectl.tiling.plan import Plan, both_sides, fastest_cut, uniform_plan
from vaectl.tiling.storage import Place
from vaectl.tiling.stream import reconstruct_windows

EXACT = 1e-4
"""Maximum difference in float32, for outputs of order 1."""
HALF_PRECISION_DB = 50.0
"""Minimum PSNR of bfloat16 and float16 against float32, with trained weights."""
SAME_DB = 2.0
"""Maximum difference by which the PSNR of vaectl may be below that of the plain formulation."""
PLACES: tuple[Place, ...] = ("device", "host", "disk")


def run(context: Context) -> None:
    context.case("float32 is not rounded to TF32", lambda: float32_rounding(context))
    for name in CASES:
        context.case(f"{name}, float32, against its reference", partial(against_reference, context, name))
    context.case("WF-VAE-S, float32, against the CPU", lambda: against_cpu(context))
    for dtype in (torch.bfloat16, torch.float16):
        title = f"{dtype_name(dtype)} against float32"
        if dtype not in context.dtypes:
            context.leave_out(title, "the device does not compute in it")
            continue
        context.case(f"built-in model, {title}", partial(trained_in_half_precision, context, dtype))
        context.case(f"WF-VAE-S with random weights, {title}", partial(random_in_half_precision, context, dtype))
    for place in PLACES:
        context.case(f"built-in model, tiles, state on {place}", partial(tiles, context, built_in, place))
    context.case("WF-VAE-S, tiles, state on device", lambda: tiles(context, partial(wfvae, "S"), "device"))
    for name in WAN_CASES:
        context.case(
            f"{name}, tiles, state on device", partial(tiles, context, partial(reference_model, name), "device")
        )
    context.case("a latent drawn with a seed, against the CPU", lambda: drawn_latent(context))
    for name in CAUSALVAE_CASES:
        for place in PLACES if name == CAUSALVAE_CASES[0] else PLACES[:1]:
            title = f"{name}, group by group, clip on {place}"
            context.case(title, partial(group_by_group, context, name, place))


def exact(difference: float) -> Values:
    return {"difference": difference, "bound": EXACT, "passed": difference <= EXACT}


def float32_rounding(context: Context) -> Values:
    """Compare a convolution and a product with float64 on the CPU, relative; TF32 would give about 3e-4."""
    built_in(context)  # loading a model sets the precision
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator) for size in ((1, 256, 8, 16, 16), (256, 256, 3, 3, 3)))
    a, b = (torch.randn(512, 512, generator=generator) for _ in range(2))
    pairs: list[tuple[Callable[..., Tensor], Tensor, Tensor]] = [(F.conv3d, x, weight), (torch.matmul, a, b)]
    errors = []
    for function, left, right in pairs:
        expected = function(left.double(), right.double())
        made = function(left.to(context.device), right.to(context.device)).cpu().double()
        errors.append(((made - expected).norm() / expected.norm()).item())
    return {"relative error": max(errors), "bound": 1e-5, "passed": max(errors) <= 1e-5}


def against_reference(context: Context, name: str) -> Values:
    """Compare with the moments and the reconstruction of the published implementation."""
    case, model = load_reference(name), reference_model(name, context)
    posterior = model.encode(case.video)
    moments = torch.cat([posterior.mean, posterior.logvar], dim=1)
    return exact(
        max(
            largest_difference(moments, case.moments),
            largest_difference(model.decode(posterior.mean), case.reconstruction),
        )
    )


def against_cpu(context: Context) -> Values:
    video = clip(5, 32, 32) if context.tiny else clip(9, 128, 128)
    model = wfvae("S", context)
    made = model.reconstruct(video).cpu()
    return exact(largest_difference(made, model.to("cpu").reconstruct(video)))


def trained_in_half_precision(context: Context, dtype: torch.dtype) -> Values:
    video = half_precision_clip(context)
    made, expected = (built_in(context, precision).reconstruct(video) for precision in (dtype, torch.float32))
    decibels = psnr(made, expected)
    return {"dB": decibels, "bound": HALF_PRECISION_DB, "passed": decibels >= HALF_PRECISION_DB}


def random_in_half_precision(context: Context, dtype: torch.dtype) -> Values:
    """Compare with random weights, which amplify rounding, so the bound is the error of the plain formulation."""
    video = half_precision_clip(context)
    expected = wfvae("S", context).reconstruct(video)
    model = wfvae("S", context, dtype)
    assert isinstance(model, WFVAE)
    x = video.to(context.device, dtype)
    encode, decode = (run_of(model, job, plain=True) for job in ("encode", "decode"))
    plain = psnr(decode(encode(x).chunk(2, dim=1)[0]), expected)
    decibels = psnr(model.reconstruct(video), expected)
    return {"dB": decibels, "plain formulation": plain, "passed": decibels >= plain - SAME_DB}


def half_precision_clip(context: Context) -> Tensor:
    return clip(5, 32, 32) if context.tiny else clip(17, 256, 256)


def tiles(context: Context, load: Callable[[Context], AnyVAE], place: Place) -> Values:
    """Compare tiles and windows of an odd size with whole frames."""
    video, tile = (clip(6, 36, 44), 4) if context.tiny else (clip(21, 250, 328), 16)
    model = load(context)
    made = in_windows(model, video, uniform_plan(model, *video.shape[2:], tile=tile, window=8, place=place))
    return exact(largest_difference(made, model.reconstruct(video)))


def group_by_group(context: Context, name: str, place: Place) -> Values:
    """Compare the smallest tiles of a model with statistics over the clip with an untiled run."""
    frames, height, width = (5, 16, 24) if context.tiny else (17, 128, 160)
    video = clip(frames, height, width)
    model = reference_model(name, context)
    encoder, decoder = (
        tuple(fastest_cut(side, number, 4, 2**24, place) for number in range(len(side.groups)))
        for side in both_sides(model, frames, height, width)
    )
    made = in_windows(model, video, Plan((frames, height, width), 4, place, encoder, decoder))
    return exact(largest_difference(made, model.reconstruct(video)))


def in_windows(model: AnyVAE, video: Tensor, plan: Plan) -> Tensor:
    return torch.cat([part.cpu() for part in reconstruct_windows(model, video.split(8, dim=2), plan)], dim=2)


def drawn_latent(context: Context) -> Values:
    """Check that the noise of a seed is the same on every device."""
    video, model = clip(5, 32, 32), built_in(context)

    def draw(model: AnyVAE) -> Tensor:
        return model.encode(video).sample(torch.Generator().manual_seed(1)).cpu()

    return exact(largest_difference(draw(model), draw(model.to("cpu"))))
