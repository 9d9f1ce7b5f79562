"""bfloat16 on the CPU: how far it is from float32, whole and in tiles. CPUs without it emulate it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tiling.plans import through, tiled
from vaectl.evaluation.protocol import ClipProtocol, read_clip
from vaectl.models import load_model
from vaectl.models.vae import AnyVAE
from vaectl.video.clip import to_video

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clip(samples: Path) -> Tensor:
    return to_video(read_clip(samples / "bikes.mp4", ClipProtocol(5, 1, 96, 96)).frames)


def psnr(made: Tensor, wanted: Tensor) -> float:
    return float(10 * torch.log10(4 / (made.double() - wanted.double()).square().mean()))


@pytest.fixture(scope="module")
def models() -> tuple[AnyVAE, AnyVAE]:
    return load_model(device="cpu", dtype="float32"), load_model(device="cpu", dtype="bfloat16")


@torch.no_grad()
def test_the_built_in_model_is_within_50_db(models: tuple[AnyVAE, AnyVAE], clip: Tensor) -> None:
    exact, model = models
    latent = exact.encode(clip).mean
    wanted = exact.decode(latent)
    assert psnr(model.decode(latent), wanted) > 54  # measured: 55.5
    assert psnr(model.reconstruct(clip), wanted) > 51  # 52.9
    assert psnr(model.encode(clip).mean, latent) > 50  # 51.2


def test_tiles_are_as_close_to_float32_as_whole_frames(models: tuple[AnyVAE, AnyVAE], clip: Tensor) -> None:
    exact, model = models
    whole, in_tiles = through(model, clip, [5], None), through(model, clip, [1, 4], tiled(model, clip, 4))
    wanted = exact.reconstruct(clip)
    assert psnr(in_tiles, whole) > 52
    assert psnr(in_tiles, wanted) == pytest.approx(psnr(whole, wanted), abs=0.5)
