"""What a plan expects: of windows as a clip really has them, and of the costliest of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor

from tests.tiling.models import make_model, video
from vaectl.models.config import WFVAEConfig
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.vae import AnyVAE
from vaectl.tiling import plan, stream
from vaectl.tiling.executor import Cut, Executor, Window
from vaectl.tiling.trace import estimate, meta_model, weight_bytes


class Recorder(Executor):
    """Remembers how many frames or latent frames each window brings."""

    def run(self, clip: Iterable[Window]) -> Iterator[Tensor]:
        self.lengths: list[int] = []

        def recorded() -> Iterator[Window]:
            for x, last in clip:
                self.lengths.append(x.shape[2])
                yield x, last

        return super().run(recorded())


@pytest.mark.parametrize("interpolation", ["nearest", "trilinear"])
@pytest.mark.parametrize(("stride", "window"), [(4, 4), (4, 8), (8, 8), (8, 16)])
def test_no_window_takes_more_than_the_planned_ones(stride, window, interpolation, monkeypatch):
    made: list[Recorder] = []
    monkeypatch.setattr(stream, "Executor", lambda *parts, **named: made.append(Recorder(*parts, **named)) or made[-1])
    model, cut = make_model(stride=stride, interpolation=interpolation), Cut(1, window)
    for frames in (1, window, window + 1, 2 * window, 3 * window, *range(4 * window, 5 * window + 2)):
        made.clear()
        for _ in stream.reconstruct_windows(model, video(frames, 16, 16).split(window, dim=2)):
            pass
        planned = plan.window_lengths(frames, window, stride)
        sides = plan.both_sides(model, frames, 16, 16, window)
        for recorder, some, side in zip(made, planned, sides, strict=True):
            assert (*recorder.lengths[:-1][:3], recorder.lengths[-1]) == side.lengths == some
            every = estimate(side.network, side.x, 0, cut, (*recorder.lengths,))
            assert side.estimate(0, cut) == every


def needed(model: AnyVAE, frames: int, height: int, width: int, cut: Cut) -> tuple[int, int, int]:
    """Bytes that a plan of that cut expects where caches wait elsewhere, of these caches, and values in a tensor."""
    sides = plan.both_sides(model, frames, height, width, cut.window)
    costs = [side.estimate(0, cut) for side in sides]
    peak = weight_bytes(sides[0].network) + round(plan.SLACK * max(cost.peak for cost in costs))
    return peak, sum(cost.state for cost in costs), max(cost.largest for cost in costs)


def test_on_a_gpu_state_waits_on_the_host_if_it_has_room():
    model, cut = make_model(), Cut(8, 4)
    peak, state, _ = needed(model, 33, 64, 512, cut)
    for host, place in ((state, "host"), (state - 1, "disk")):
        made = plan.make_plan(model, 33, 64, 512, plan.Budget(peak, 0, 0, ("device", "host", "disk"), host))
        assert (made.encoder, made.decoder, made.window, made.place) == ((cut,), (cut,), 4, place)


class OnCpu(WFVAE):
    device = torch.device("cpu")


def test_on_a_gpu_no_tensor_has_more_values_than_kernels_count():
    """4K in windows of 16 frames would have 2^31.3 of them; there is no such bound on the CPU."""
    budget = plan.Budget(2**40, 0, 0, ("device",))
    config = WFVAEConfig(norm_type="layernorm", t_interpolation="trilinear")
    values = {}
    for family in (WFVAE, OnCpu):
        model = meta_model(family, config, torch.bfloat16)
        made = plan.make_plan(model, 33, 2160, 3840, budget)
        values[model.device.type] = needed(model, 33, 2160, 3840, made.decoder[0])[2]
    assert values["meta"] < 2**31 < values["cpu"]


def test_the_last_window_may_be_the_costliest():
    """32 frames are filled up to 33, so the last window has one more; and it gives what up-sampling held."""
    model = make_model()
    peaks = [needed(model, frames, 64, 64, Cut(8, 8))[0] for frames in (32, 33)]
    assert peaks[0] > 1.05 * peaks[1]
