"""What a plan expects: of windows as a clip really has them, and of the costliest of them."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.tiling.models import make_model, video
from vaectl.models.config import WFVAEConfig
from vaectl.models.streaming import WholeFrames, reconstruct_pieces
from vaectl.tiling import plan
from vaectl.tiling import trace as dry_run
from vaectl.tiling.trace import Region


class Recorder(WholeFrames):
    """Remembers how many frames and latent frames each window brings."""

    def __init__(self, model):
        super().__init__(model)
        self.pictures: list[int] = []
        self.latents: list[int] = []

    def encode(self, x_BCTHW: Tensor, *, last: bool) -> Tensor:
        self.pictures.append(x_BCTHW.shape[2])
        return super().encode(x_BCTHW, last=last)

    def decode(self, z_BCTHW: Tensor, *, last: bool) -> Iterable[Tensor]:
        self.latents.append(z_BCTHW.shape[2])
        return super().decode(z_BCTHW, last=last)


@pytest.mark.parametrize("interpolation", ["nearest", "trilinear"])
@pytest.mark.parametrize(("stride", "window"), [(4, 4), (4, 8), (8, 8), (8, 16)])
def test_no_window_takes_more_than_the_planned_ones(stride, window, interpolation):
    model = make_model(stride=stride, interpolation=interpolation)
    for frames in (1, window, window + 1, 2 * window, 3 * window, *range(4 * window, 5 * window + 2)):
        recorder = Recorder(model)
        list(reconstruct_pieces(model, video(frames, 16, 16).split(window, dim=2), recorder))
        planned = plan.windows(frames, window, stride)
        for all_pieces, some in zip((recorder.pictures, recorder.latents), planned, strict=True):
            assert (*all_pieces[:-1][:3], all_pieces[-1]) == some
        for part, all_pieces, some in (
            (dry_run.encoder_tile, recorder.pictures, planned[0]),
            (dry_run.decoder_tile, recorder.latents, planned[1]),
        ):
            region = Region(8, 8)
            whole = part(model.config, torch.float32, (*all_pieces,), region)
            assert part(model.config, torch.float32, some, region) == whole


def test_on_a_gpu_state_waits_on_the_host_if_it_has_room():
    model = make_model()
    way = plan.Way(8, 4, "host")
    needed = plan.needs(model, 33, 64, 512, way)
    for host, place in ((needed.waiting, "host"), (needed.waiting - 1, "disk")):
        budget = plan.Budget(needed.peak, 0, 0, ("device", "host", "disk"), host)
        made = plan.make_plan(model, 33, 64, 512, budget)
        assert (made.tile, made.window, made.state) == (way.tile, way.window, place)


def test_on_a_gpu_no_tensor_has_more_values_than_kernels_count():
    """4K in windows of 16 frames would have 2^31.3 of them; there is no such bound on the CPU."""
    budget = plan.Budget(2**40, 0, 0, ("device",))
    config = WFVAEConfig(norm_type="layernorm", t_interpolation="trilinear")
    values = {}
    for device in ("meta", "cpu"):
        model = SimpleNamespace(
            config=config,
            dtype=torch.bfloat16,
            device=torch.device(device),
            encoder=dry_run.twin(config, torch.bfloat16).encoder,
            decoder=dry_run.twin(config, torch.bfloat16).decoder,
        )
        way = plan.make_plan(model, 33, 2160, 3840, budget)
        values[device] = plan.needs(model, 33, 2160, 3840, way).largest
    assert values["meta"] < 2**31 < values["cpu"]


def test_the_last_window_may_be_the_costliest():
    """32 frames are filled up to 33, so the last window has one more; and it gives what up-sampling held."""
    model = make_model()
    peaks = [plan.needs(model, frames, 64, 64, plan.Way(8, 8, "device")).peak for frames in (32, 33)]
    assert peaks[0] > 1.05 * peaks[1]
