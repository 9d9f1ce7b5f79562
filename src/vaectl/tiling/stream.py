"""Run a clip through both networks of a model, window by window, with the result of the whole clip.

Memory does not grow with the length of the clip, unless a layer needs all of it. No layer keeps state, so several clips
may run through one model in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from vaectl.models.posterior import Posterior
from vaectl.models.segments import Segment
from vaectl.models.vae import AnyVAE, pad_to_fit
from vaectl.tiling.executor import Cut, Executor, Finish, Window
from vaectl.tiling.fusion import fuse, unfused
from vaectl.tiling.plan import Plan, both_sides
from vaectl.tiling.storage import STORES, DiskTensor, memory_room

CPU = torch.device("cpu")
WHOLE = Cut(1, 0)
"""No tiles, and windows as they are given."""


def executors(
    model: AnyVAE,
    plan: Plan | None = None,
    report: Callable[[int], None] = lambda _: None,
    finish: Finish = lambda y: y,
) -> tuple[Executor, Executor]:
    """Create the executors that encode and decode one clip. Without a plan they run whole frames.

    `report` is called with the number of each group when it begins, those of the encoder first. `finish` is done to
    each tile of the video.
    """
    place = plan.place if plan else "device"
    device = CPU if place == "host" else model.device
    make = partial(
        Executor,
        device=model.device,
        dtype=model.dtype,
        store=STORES[place](),
        make_room=DiskTensor if place == "disk" else partial(memory_room, device=device),
    )
    if plan is None:
        encoder, decoder = unfused(model.encoder_segments()), unfused(model.decoder_segments())
        if model.compiled:  # each network is one segment
            runs = (model.run_encoder, model.run_decoder)
            encoder, decoder = (unfused([Segment(lambda x, c, run=run: run(x, c)[0], "x", "y")]) for run in runs)
        return make(encoder, [WHOLE], (1, 1)), make(decoder, [WHOLE], (1, 1), finish=finish)
    sides = both_sides(model, *plan.size)
    encoder, decoder = (
        fuse(segments, side.outputs, side.input(0))
        for segments, side in zip((model.encoder_segments(), model.decoder_segments()), sides, strict=True)
    )
    return (
        make(encoder, plan.encoder, sides[0].latent, report=report),
        make(decoder, plan.decoder, sides[1].latent, finish=finish, report=lambda n: report(len(encoder) + n)),
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
    finish: Finish = lambda y: y,
) -> Iterator[Tensor]:
    """Reconstruct a clip given as windows, (B, C, T, H, W) in [-1, 1] or 8-bit; yields windows of the reconstruction.

    `finish` is done to each tile of the reconstruction, (B, C, T, h, w), before they are joined; it may change the
    type. Windows may have any length of at least one frame; the reconstruction may have other windows, but as many
    frames in total. Without a `plan`, whole frames run. Raises ValueError for a clip whose size differs from the plan;
    if the model needs the whole clip, also for another length.
    """
    encoder, decoder = executors(model, plan, report, finish)
    streams, config = model.streams, model.config
    frames_in = frames_out = height = width = 0
    last = False

    def padded() -> Iterator[Window]:
        """Yield the windows, the last one padded with copies of its last frame: the clip then has 1 + s·n frames."""
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
    """Yield each item with whether it is the last."""
    iterator = iter(items)
    current = next(iterator, None)
    while current is not None:
        following = next(iterator, None)
        yield current, following is None
        current = following


def whole(windows: Iterable[Tensor]) -> Iterator[Tensor]:
    """Concatenate all windows; yields nothing if there is none."""
    collected = list(windows)
    if collected:
        yield torch.cat(collected, dim=2)
