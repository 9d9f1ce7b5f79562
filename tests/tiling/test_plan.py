"""Plans estimate the memory of the windows that a clip really has, including the costliest."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.models.reference import load_reference, synthetic_model
from tests.tiling.models import make_model, video
from vaectl.io import spill_file
from vaectl.models.config import WFVAEConfig
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.vae import VideoVAE
from vaectl.tiling import plan
from vaectl.tiling.executor import Cut, GroupRun
from vaectl.tiling.plan import uniform_plan
from vaectl.tiling.stream import reconstruct_windows
from vaectl.tiling.trace import meta_model

NOTHING_ELSE = plan.Budget(0, 0, 0, ())


def lengths_of(model: WFVAE, num_frames: int, window: int, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return how many frames and latent frames each window of a clip has."""
    lengths: list[list[int]] = []
    original = GroupRun.run

    def run(self, clip):
        own: list[int] = []
        lengths.append(own)

        def seen():
            for x, last in clip:
                own.append(x.shape[2])
                yield x, last

        yield from original(self, seen())

    with monkeypatch.context() as patched:
        patched.setattr(GroupRun, "run", run)
        for _ in reconstruct_windows(model, video(num_frames, 16, 16).split(window, dim=2)):
            pass
    return lengths[::-1]  # the decoder asks the encoder


@pytest.mark.parametrize("interpolation", ["nearest", "trilinear"])
@pytest.mark.parametrize(("stride", "window"), [(4, 4), (4, 8), (8, 8), (8, 16)])
def test_no_window_takes_more_than_the_planned_ones(stride, window, interpolation, monkeypatch):
    model = make_model(stride=stride, interpolation=interpolation)
    for num_frames in (1, window, window + 1, 2 * window, 3 * window, *range(4 * window, 5 * window + 2)):
        every = lengths_of(model, num_frames, window, monkeypatch)
        sides = plan.both_sides(model, num_frames, 64, 64, window)
        for side, all_windows in zip(sides, every, strict=True):
            assert (*all_windows[:-1][:4], all_windows[-1]) == side.given
            whole = replace(side, given=tuple(all_windows))
            assert side.estimate(0, Cut(8, window)) == whole.estimate(0, Cut(8, window))


def test_on_a_gpu_state_waits_on_the_host_if_it_has_room():
    model = make_model()
    way = uniform_plan(model, 33, 64, 512, tile=8, window=4, place="host")
    needed = plan.needed(model, way, NOTHING_ELSE)
    for host, place in ((needed.waiting, "host"), (needed.waiting - 1, "disk")):
        budget = plan.Budget(needed.peak, 0, 0, ("device", "host", "disk"), host)
        made = plan.make_plan(model, 33, 64, 512, budget)
        assert (made.encoder, made.decoder, made.window, made.place) == (way.encoder, way.decoder, way.window, place)


def test_a_full_disk_leaves_the_plans_that_need_none(monkeypatch):
    model, budget = (
        synthetic_model(load_reference("wfvae_4x8x8").config),
        plan.Budget(40 * 2**20, 0, 0, ("device", "disk")),
    )
    assert plan.make_plan(model, 17, 256, 256, budget).place == "disk"
    monkeypatch.setattr(spill_file.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert plan.make_plan(model, 17, 256, 256, budget).place == "device"


def test_on_a_gpu_no_tensor_has_more_values_than_kernels_count(monkeypatch):
    """4K in windows of 16 frames would have 2^31.3 of them; there is no such bound on the CPU."""
    budget = plan.Budget(2**40, 0, 0, ("device",))
    config = WFVAEConfig(norm_type="layernorm", t_interpolation="trilinear")
    model = meta_model(WFVAE, config, torch.bfloat16)
    values = {}
    for device in ("cuda", "cpu"):
        monkeypatch.setattr(VideoVAE, "device", torch.device(device))
        values[device] = plan.needed(model, plan.make_plan(model, 33, 2160, 3840, budget), budget).largest
    assert values["cuda"] < 2**31 < values["cpu"]


def test_the_last_window_may_be_the_costliest():
    """32 frames are padded to 33, so the last window has one more; it also gives the frames that were held back."""
    model = make_model()
    plans = [uniform_plan(model, n, 64, 64, tile=8, window=8) for n in (32, 33)]
    peaks = [plan.needed(model, each, NOTHING_ELSE).peak for each in plans]
    assert peaks[0] > 1.05 * peaks[1]


@pytest.mark.parametrize(("fixed", "calls", "saved"), [(2**30, 4, False), (0, 99, True)])
def test_low_memory_keeps_the_fastest_plan_if_others_need_hardly_less(fixed, calls, saved, monkeypatch):
    """Each estimate is a trace: on a short, small clip, those of all candidates took longer than the run."""
    model, budget, done = make_model(), plan.Budget(2**40, fixed, 0, ("device", "disk")), []
    fastest = plan.make_plan(model, 5, 64, 256, budget)
    needed = plan.needed
    monkeypatch.setattr(plan, "needed", lambda *inputs: done.append(inputs) or needed(*inputs))
    low = plan.make_plan(model, 5, 64, 256, budget, low_memory=True)
    assert (low.peak < 0.8 * fastest.peak) if saved else low == fastest
    assert len(done) <= calls
