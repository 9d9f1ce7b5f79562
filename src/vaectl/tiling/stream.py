"""A clip through both networks of a model, window by window: the same numbers as in one go.

Memory does not grow with the length of the clip, unless a layer looks at all of it. Causal caches are values that go in
and out, so clips may be interleaved through one model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from vaectl.models.posterior import Posterior
from vaectl.models.vae import AnyVAE, pad_to_fit
from vaectl.tiling.executor import Cut, Executor, Window
from vaectl.tiling.fusion import fuse, unfused
from vaectl.tiling.plan import Plan, both_sides
from vaectl.tiling.storage import DiskBuffer, DiskStore, MemoryBuffer, MemoryStore, Place
from vaectl.tiling.trace import value_shapes

CPU = torch.device("cpu")


def executors(
    model: AnyVAE, plan: Plan | None = None, report: Callable[[int], None] = lambda _: None
) -> tuple[Executor, Executor]:
    """What encodes one clip, and what decodes it. Without a plan they run whole frames.

    With a plan whole frames are in the memory of the host, and a tile goes to the model's device and back. `report`
    gets the number of each group when it begins, those of the encoder first.
    """
    cuts: tuple[tuple[Cut, ...], tuple[Cut, ...]]
    place: Place
    if plan is None:
        sides = (unfused(model.encoder_segments()), unfused(model.decoder_segments()))
        cuts, latent, to_device, place = ((Cut(1, 0),), (Cut(1, 0),)), (1, 1), model.device, "device"
    else:
        encoder, decoder = both_sides(model, *plan.size)
        sides = (
            fuse(model.encoder_segments(), value_shapes(encoder.network, encoder.x), encoder.x),
            fuse(model.decoder_segments(), value_shapes(decoder.network, decoder.x), decoder.x),
        )
        cuts, latent, to_device, place = (plan.encoder, plan.decoder), encoder.latent, CPU, plan.place
    device = CPU if place == "host" else model.device
    make = partial(
        Executor,
        latent=latent,
        device=model.device,
        dtype=model.dtype,
        store=DiskStore() if place == "disk" else MemoryStore(device),
        make_buffer=DiskBuffer if place == "disk" else partial(MemoryBuffer, device=device),
    )
    return (
        make(sides[0], cuts[0], report=report),
        make(sides[1], cuts[1], to_device=to_device, report=lambda number: report(len(sides[0]) + number)),
    )


@torch.no_grad()
def reconstruct_windows(
    model: AnyVAE,
    windows_BCTHW: Iterable[Tensor],
    plan: Plan | None = None,
    *,
    sample: bool = False,
    generator: torch.Generator | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> Iterator[Tensor]:
    """The clip that the windows make up, (B, C, T, H, W) in [-1, 1] each, through the model and back.

    The windows may have any lengths of at least one frame, and so have the ones that come back; together they have
    exactly the frames of the input, of the same size. Without a `plan` whole frames are run. Raises ValueError for a
    clip of another size than the plan's, or of another length, where the model looks at all of it.
    """
    encoder, decoder = executors(model, plan, report)
    streams, config = model.streams, model.config
    frames_in = frames_out = height = width = 0
    last = False

    def padded() -> Iterator[Window]:
        """The last window is filled up with copies of its last frame to 1 + s·n frames of the clip."""
        nonlocal frames_in, height, width, last
        for window, last in mark_last(windows_BCTHW if plan or streams else whole(windows_BCTHW)):
            height, width = window.shape[3:]
            frames_in += window.shape[2]
            if plan and (height, width) != plan.size[1:]:
                raise ValueError(f"a plan for {plan.size[2]}x{plan.size[1]} pixels, and a clip of {width}x{height}")
            yield pad_to_fit(window, config, (1 - frames_in) % config.time_compression if last else 0), last

    def latents() -> Iterator[Window]:
        posteriors = map(Posterior.from_moments, encoder.run(padded()))
        made = (each.sample(generator) if sample else each.mode() for each in posteriors)
        if plan is None or streams:
            yield from ((z, last) for z in made)
        else:
            for latent in whole(made):
                yield from mark_last(torch.split(latent, plan.decoder[0].window, dim=2))

    for video in decoder.run(latents()):
        wanted = video[:, :, : frames_in - frames_out, :height, :width]
        frames_out += wanted.shape[2]
        if wanted.shape[2]:
            yield wanted
    if frames_out != frames_in:
        raise AssertionError(f"{frames_in} frames went into the model and {frames_out} came out")


def mark_last(items: Iterable[Tensor]) -> Iterator[Window]:
    """Each item with whether it is the last."""
    iterator = iter(items)
    current = next(iterator, None)
    while current is not None:
        following = next(iterator, None)
        yield current, following is None
        current = following


def whole(windows: Iterable[Tensor]) -> Iterator[Tensor]:
    """All windows as one."""
    collected = list(windows)
    if collected:
        yield torch.cat(collected, dim=2)
