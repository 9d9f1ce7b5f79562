"""8-bit frames through a model: they become numbers tile by tile, and nothing in the loop asks for a value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.reference import load_reference, synthetic_model
from tests.tiling.models import make_model
from tests.tiling.plans import tiled
from vaectl import engine
from vaectl.errors import VaectlError
from vaectl.models import build_model
from vaectl.tiling import trace
from vaectl.tiling.executor import Cut
from vaectl.tiling.plan import Budget, both_sides, streaming_plans, uniform_plan
from vaectl.tiling.storage import HostStateStore
from vaectl.tiling.stream import reconstruct_windows
from vaectl.video.clip import batch_to_frames, batch_to_video


def frames_of(num_frames: int, height: int, width: int) -> Tensor:
    """Make 8-bit frames (1, T, 3, H, W)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, num_frames, 3, height, width), dtype=torch.uint8, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("tile", [0, 2])
@pytest.mark.parametrize("size", [(5, 24, 40), (6, 21, 34)])
def test_8_bit_windows_give_what_numbers_give_bit_for_bit(size, tile):
    model, frames, seen = make_model(), frames_of(*size), []
    video = batch_to_video(frames)
    plan = tiled(model, video, tile) if tile else None

    def finish(y: Tensor) -> Tensor:
        seen.append(y.shape[-2:])
        return batch_to_frames(y).transpose(1, 2)

    expected = torch.cat([*reconstruct_windows(model, video.split(4, dim=2), plan)], dim=2)
    windows = frames.transpose(1, 2).split(4, dim=2)
    made = torch.cat([*reconstruct_windows(model, windows, plan, finish=finish)], dim=2)
    assert torch.equal(made.transpose(1, 2), batch_to_frames(expected))
    assert all(max(shape) <= 8 * tile for shape in seen) == bool(tile)


@torch.no_grad()
@pytest.mark.parametrize("name", ["wfvae_4x8x8", "wan_2_1", "wan_2_2"])
@pytest.mark.parametrize("tile", [0, 2])
def test_nothing_in_the_loop_asks_for_a_value(name, tile, monkeypatch):
    """On tensors without values that would raise; on a GPU, the host would wait."""
    config = synthetic_model(load_reference(name).config).config
    with torch.device("meta"):
        model = build_model(config).eval()
    scale = model.config.space_compression
    frames = frames_of(5, 2 * scale, 3 * scale)
    plan = uniform_plan(model, 5, *frames.shape[3:], tile, 4) if tile else None
    monkeypatch.setattr(engine, "download", lambda x: lambda: torch.ones(x.shape, dtype=x.dtype))
    run = engine.Run(model, 4, plan, lambda _: None)
    made = [*engine._run_windows(run, frames.split(4, dim=1), None, Path("clip"))]
    assert torch.cat(made, dim=1).shape == frames.shape


@torch.no_grad()
@pytest.mark.parametrize("tile", [0, 2])
def test_one_number_that_is_not_finite_in_one_tile_is_an_error(tile, monkeypatch):
    model, frames = make_model(), frames_of(9, 32, 48)
    model = type(model)(model.config).eval()
    model.decoder.conv_out.bias.data[0] = torch.nan
    plan = tiled(model, batch_to_video(frames), tile) if tile else None
    run = engine.Run(model, 4, plan, lambda _: None)
    with pytest.raises(VaectlError, match="clip: the model's output has NaN or infinity"):
        next(engine._run_windows(run, frames.split(4, dim=1), None, Path("clip")))


class Copies(TorchDispatchMode):
    """Records whether copies make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.non_blocking: list[bool] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.copy_.default:
            self.non_blocking.append((args[2:] or (False,))[0])
        return function(*args, **(kwargs or {}))


def test_caches_go_to_the_host_without_a_wait_and_to_the_same_place_in_every_window():
    store, layer, places = HostStateStore(), torch.nn.Identity(), set()
    with Copies() as copies:
        for number in range(3):
            cache = torch.full((1, 4, 2, 5, 6), float(number)).contiguous(memory_format=torch.channels_last_3d)
            store.put("tile", {layer: cache})
            returned = store.get("tile")[layer]
            assert torch.equal(returned, cache)
            places.add(returned.data_ptr())
    assert copies.non_blocking == [True] * 3
    assert len(places) == 1


def test_a_gpu_prefers_large_tiles_and_long_windows_to_memory_nearby(monkeypatch):
    """Each window of each tile costs a launch of every kernel: small ones took 10 times as long on an H200."""
    config = make_model().config
    with torch.device("meta"):
        model = build_model(config)
    budget, first = Budget(2**40, 0, 0, ("device", "host", "disk"), 2**40), {}
    for device in ("cuda", "cpu"):
        monkeypatch.setattr(type(model), "device", torch.device(device))
        plans = [
            (plan.encoder[0].tile, plan.window, plan.place)
            for plan in streaming_plans(model, (33, 128, 512), budget, False)
        ]
        first[device] = min((32, 4, "device"), (64, 16, "disk"), key=plans.index)
    assert first == {"cuda": (64, 16, "disk"), "cpu": (32, 4, "device")}


def test_a_plan_for_a_gpu_counts_the_conversion_to_frames(monkeypatch):
    """In a narrow network it may take more than the layers do. On the CPU it is counted with the host."""
    monkeypatch.setattr(trace, "checked_frames", lambda y: y + torch.empty(2**30, dtype=torch.uint8, device="meta")[0])
    _, decoder = both_sides(make_model(), 9, 72, 64)
    peaks = [replace(decoder, cpu=cpu).estimate(0, Cut(9, 9)).peak for cpu in (True, False)]
    assert peaks[0] < 2**30 < peaks[1]


def test_checking_and_converting_frames_needs_no_data():
    made = trace.checked_frames(torch.empty(1, 3, 5, 8, 8, dtype=torch.bfloat16, device="meta"))
    assert (made.shape, made.dtype) == ((1, 3, 5, 8, 8), torch.uint8)
