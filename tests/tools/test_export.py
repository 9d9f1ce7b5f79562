"""A checkpoint exported as a model: statistics of its latents, half precision, nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tools.builtin_model.export import export, measure_latents

from tests.conftest import ROOT
from tests.training.runs import NANO
from tests.video.media import encode
from vaectl.errors import UsageError, VaectlError
from vaectl.models import build_model, load_model, save_model
from vaectl.models.config import WFVAEConfig
from vaectl.models.vae import AnyVAE
from vaectl.video.clip import batch_to_video

EXPORT = ROOT / "tools" / "builtin_model" / "export.py"


@pytest.fixture
def model() -> AnyVAE:
    torch.manual_seed(3)
    config = {name: value for name, value in NANO.items() if name != "_class_name"}
    return build_model(WFVAEConfig(**config)).eval().requires_grad_(False)


@pytest.fixture
def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (5, 3, 32, 32), generator=generator).byte() for _ in range(6)]


def test_the_statistics_are_those_of_latents_drawn_from_the_posterior(model, clips):
    means, deviations = measure_latents(model, clips)
    drawn = torch.cat(
        [
            model.encode(batch_to_video(clip[None])).sample(torch.Generator().manual_seed(i))
            for i, clip in enumerate(clips * 20)
        ]
    )
    values = drawn.transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.tensor(means), values.mean(1), rtol=0, atol=0.05)
    torch.testing.assert_close(torch.tensor(deviations), values.std(1), rtol=0.05, atol=0)


def test_an_export_is_a_model_with_its_statistics(tmp_path, model, clips):
    save_model(model, tmp_path / "best", metadata={"weights": "ema", "step": 90})
    (tmp_path / "best" / "training_state.pt").write_bytes(b"large")
    export(tmp_path / "best", tmp_path / "out", clips)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    means, deviations = measure_latents(model, clips)
    assert config["shift"] == pytest.approx(means, rel=1e-3)
    assert config["scale"] == pytest.approx([1 / deviation for deviation in deviations], rel=1e-3)
    assert (config["_weights"], config["_step"]) == ("ema", 90)
    stored = load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for name, tensor in stored.items() if "wavelet" not in name} == {torch.float16}
    loaded = load_model(tmp_path / "out")
    video = batch_to_video(clips[0][None])
    assert (loaded.reconstruct(video) - model.reconstruct(video)).abs().max() < 0.02
    assert torch.equal(
        loaded.get_buffer("decoder.inverse_wavelet_transform_out.h"),
        model.get_buffer("decoder.inverse_wavelet_transform_out.h"),
    )
    with pytest.raises(UsageError, match="exists already"):
        export(tmp_path / "best", tmp_path / "out", clips)


def test_a_channel_that_is_always_the_same_is_refused(model, clips):
    moments = model.get_submodule("encoder.conv_out.conv")
    moments.weight[2] = 0
    moments.bias[2], moments.bias[4 + 2] = 0, -30
    with pytest.raises(VaectlError, match="channel 2 of the latent is always the same"):
        measure_latents(model, clips)


def test_weights_beyond_half_precision_are_refused(tmp_path, model, clips):
    state = model.state_dict()
    state["decoder.conv_out.weight"] = state["decoder.conv_out.weight"] * 1e9
    save_model(model, tmp_path / "best", weights=state)
    with pytest.raises(VaectlError, match=r"NaN or infinite values in 1 tensor: decoder\.conv_out\.weight"):
        export(tmp_path / "best", tmp_path / "out", clips)
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path, model):
    videos = tmp_path / "videos"
    videos.mkdir()
    encode(videos / "a.mp4", 20)
    save_model(model, tmp_path / "best")
    run = [sys.executable, str(EXPORT), str(tmp_path / "best"), str(tmp_path / "out")]
    small = ["--video-path", str(videos), "--clips", "3", "--num-frames", "5", "--resolution", "32"]
    done = subprocess.run([*run, *small], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads((tmp_path / "out" / "config.json").read_text())["shift"]) == 4
    again = subprocess.run([*run, *small], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 1
    assert again.stderr == f"error: {tmp_path / 'out'}: exists already; give another directory\n"
