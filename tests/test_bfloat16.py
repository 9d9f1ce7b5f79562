"""bfloat16 on the CPU: where `auto` chooses it, how far it is from float32, and tiles. CPUs without it emulate it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.jobs import Listener, run
from tests.tiling.plans import through, tiled
from vaectl.engine import open_model
from vaectl.evaluation.protocol import ClipProtocol, read_clip
from vaectl.memory import Limits
from vaectl.models import load_model
from vaectl.models.vae import AnyVAE
from vaectl.video.clip import to_video

pytestmark = pytest.mark.usefixtures("one_thread")
NOTE = "running in bfloat16, which is faster on this CPU; `dtype=float32` gives the numbers of eval"


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)


@pytest.fixture(scope="module")
def clip(samples: Path) -> Tensor:
    return to_video(read_clip(samples / "bikes.mp4", ClipProtocol(5, 1, 96, 96)).frames)


def psnr(made: Tensor, wanted: Tensor) -> float:
    return float(10 * torch.log10(4 / (made.double() - wanted.double()).square().mean()))


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("dtype", "used"), [("auto", "bfloat16"), ("bfloat16", "bfloat16"), ("float32", "float32")])
def test_reconstruct_chooses_it_and_notes_that(samples: Path, tmp_path: Path, dtype: str, used: str) -> None:
    listener = Listener()
    options = {"num_frames": 2, "width": 32, "height": 32, "device": "cpu", "dtype": dtype}
    made = run(samples / "carphone_pristine.mp4", tmp_path / "out.mkv", listener, **options)
    assert made.dtype == used
    assert listener.notes == ([NOTE] if dtype == "auto" else [])


@pytest.mark.usefixtures("fast")
def test_numbers_to_compare_stay_in_float32(tmp_path: Path) -> None:
    listener = Listener()
    for model in (open_model(None, "cpu", "auto", Limits(), progress=listener), load_model(device="cpu", dtype="auto")):
        assert model.dtype == torch.float32
    assert listener.notes == []


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
