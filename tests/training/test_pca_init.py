"""PCA initialization: what a model gives before any training, and `vaectl train --init pca`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.jobs import Listener
from tests.training.runs import NANO, lines, run, weights
from tests.training.test_survival import ENVIRONMENT, MAIN, arguments
from vaectl.cli.app import main
from vaectl.data import Sampling, Source, open_dataset
from vaectl.errors import UsageError, VaectlError
from vaectl.models import build_model
from vaectl.models.config import WFVAEConfig
from vaectl.models.families.wfvae import WFVAE
from vaectl.models.families.wfvae_pca import principal_components, wavelet_blocks
from vaectl.progress import Silent
from vaectl.rng import seed_of
from vaectl.training import pca_init
from vaectl.training.job import TrainResult
from vaectl.training.network import AutoEncoder
from vaectl.video.clip import batch_to_video

SMALL = {**NANO, "latent_dim": 6, "base_channels": 24, "use_attention": False}
SMALL |= {"encoder_energy_flow_hidden_size": 24, "decoder_energy_flow_hidden_size": 26}

FLOWS_32 = {"encoder_energy_flow_hidden_size": 32, "decoder_energy_flow_hidden_size": 32}


def model_of(**given: Any) -> WFVAE:
    torch.manual_seed(5)
    config = {name: value for name, value in {**SMALL, **given}.items() if name != "_class_name"}
    return build_model(WFVAEConfig(**config)).eval().requires_grad_(False)


def drifting(clips: int, frames: int) -> Tensor:
    """Smooth colours that drift: (clips, frames, 3, 48, 48) uint8."""
    generator = torch.Generator().manual_seed(2)
    speed, phase, wave = (torch.rand(clips, 1, 3, 1, 1, generator=generator) for _ in range(3))
    t, y, x = (
        torch.arange(n).float().reshape([-1 if i == axis else 1 for i in range(5)])
        for axis, n in ((1, frames), (3, 48), (4, 48))
    )
    return (torch.sin(speed * t / 2 + 0.15 * wave * y + 0.1 * (1 - wave) * x + 6 * phase) * 90 + 128).byte()


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return drifting(12, 9)


def split(clips: Tensor) -> list[Tensor]:
    """The clips in the batches of a run, as the model takes them."""
    return [batch_to_video(batch) for batch in torch.split(clips, pca_init.CLIPS_AT_ONCE)]


@pytest.fixture(scope="module")
def started(clips: Tensor) -> WFVAE:
    model = model_of()
    model.pca_init(split(clips))
    return model


def error(model: WFVAE, video: Tensor) -> float:
    return (model.reconstruct(video) - video).square().mean().item()


def test_it_reconstructs_before_it_is_trained(started, clips):
    """With 6 numbers for 768 values: 5 times nearer than the mean of each block of all, and new models are nowhere."""
    video = batch_to_video(clips)
    assert error(started, video) < 0.05 * video.var().item()
    assert error(model_of(), video) > 0.5 * video.var().item()


def test_the_latents_are_the_principal_components(started, clips):
    """Up to what the norm bends: their scale by some percent."""
    video = batch_to_video(clips)
    matrix, offset = principal_components(started, [video])
    posterior = started.encode(video)
    mean = posterior.mean.permute(0, 2, 3, 4, 1).flatten(0, 3)
    expected = wavelet_blocks(started, video) @ matrix.T + offset
    torch.testing.assert_close(expected.std(0), torch.ones(6), rtol=1e-3, atol=0)
    # Blocks have no neighbours in the encoder, and position by position they agree.
    assert (mean - expected).abs().mean() < 0.08
    for one, other in zip(mean.T, expected.T, strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.99
    assert (posterior.logvar == -9).all()


def test_wavelet_blocks_hold_all_that_is_smooth(started):
    """Haar wavelets are orthonormal: of blocks that are flat in 2x2 pixels and pairs of frames no energy is lost."""
    coarse = torch.randint(0, 2, (1, 1, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 255
    pairs = coarse.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4).repeat(1, 4, 1, 1, 1)
    video = batch_to_video(torch.cat([pairs[:, :1], pairs], dim=1).byte())
    energy = wavelet_blocks(started, video).reshape(2, 4, -1).square().sum((1, 2))[1]
    assert energy == pytest.approx(video[:, :, 1:].square().sum().item(), rel=2e-3)  # filters rounded to 4 digits


def test_every_weight_that_matters_can_learn(started, clips):
    network = AutoEncoder(started.requires_grad_(), freeze_encoder=False, recompute=False)
    video = batch_to_video(clips[:2])
    optimizer = torch.optim.SGD(started.parameters(), lr=1e-7)
    for _ in range(2):  # the convolutions that are zero learn first, and what lies before them next
        optimizer.zero_grad()
        reconstruction, _, _ = network(video, torch.zeros(2, 6, 3, 6, 6))
        (reconstruction - video).square().sum().backward()
        optimizer.step()
    still = [name for name, p in started.named_parameters() if p.grad is None or not p.grad.any()]
    started.requires_grad_(False)
    assert [name for name in still if not name.endswith("conv_out.conv.bias")] == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base_channels": 16}, "base_channels and energy flows of 24 or more"),
        ({"encoder_energy_flow_hidden_size": 16}, "energy flows of 24 or more"),
        ({"latent_dim": 32}, "at least as many base_channels as latent channels"),
        ({"base_channels": 32, "norm_type": "groupnorm", **FLOWS_32}, "of 4x8x8 with norm_type layernorm"),
    ],
)
def test_models_that_it_does_not_fit(given, message, clips):
    with pytest.raises(UsageError, match=message):
        model_of(**given).pca_init(split(clips))


def test_clips_without_content_are_refused(clips):
    with pytest.raises(VaectlError, match="not all the same"):
        model_of().pca_init(split(torch.zeros_like(clips)))


CONFIG = {"model_config": "small.json", "lr": 0, "weight_decay": 0, "max_steps": 1, "init": "pca"}


@pytest.fixture
def few(monkeypatch):
    """Fewer clips than a real run reads."""
    monkeypatch.setattr(pca_init, "CLIPS", 20)


@pytest.fixture
def started_run(videos, tmp_path, few):
    """Train a small model that has enough channels; by default without changing its weights."""

    def train(**given: Any) -> TrainResult:
        config = tmp_path / "small.json"
        config.write_text(json.dumps(SMALL))
        values = {**CONFIG, "model_config": str(config), **given}
        return run(
            videos, tmp_path, given.pop("listener", None), **{k: v for k, v in values.items() if k != "listener"}
        )

    return train


def test_a_run_starts_from_the_components_of_its_clips(videos, started_run):
    result = started_run(seed=1, crop_size=16, resolution=32)
    torch.manual_seed(seed_of(1, "weights"))
    expected = build_model(WFVAEConfig(**{name: value for name, value in SMALL.items() if name != "_class_name"}))
    sampling = Sampling(17, 32, 16, 4, dynamic_sample=True, random_crop=True, flip=True, animate_images=True, seed=1)
    data = open_dataset([Source(videos)], sampling, strict=True, progress=Silent())
    expected.pca_init(split(torch.stack([data.clip(number).frames for number in range(20)])))
    for name, tensor in weights(result.checkpoint).items():
        torch.testing.assert_close(tensor, expected.state_dict()[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("frames", [5, 9, 33])
def test_the_start_holds_for_longer_clips(frames):
    """A start from clips of the length that a run of so many frames cuts."""
    used = pca_init.clip_sampling(frames, 64, 64, 0).num_frames
    model = model_of()
    model.pca_init(split(drifting(12, used)))
    video = batch_to_video(drifting(6, 41))
    errors = (model.reconstruct(video) - video).square().mean(dim=(0, 1, 3, 4))
    assert errors[17:].mean() < 2 * errors[:9].mean()


def test_the_seed_alone_decides_and_workers_do_not(started_run):
    one, same, other = (
        weights(started_run(exp_name=name, **given).checkpoint)
        for name, given in {"a": {}, "b": {"num_workers": 1, "batch_size": 1}, "c": {"seed": 7}}.items()
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(
        one["encoder.mid.0.nin_shortcut.conv.weight"], other["encoder.mid.0.nin_shortcut.conv.weight"]
    )


def test_random_weights_are_the_default(started_run):
    first, second = (started_run(exp_name=name, init=init) for name, init in (("a", "random"), ("b", None)))
    assert all(
        torch.equal(weights(first.checkpoint)[name], tensor) for name, tensor in weights(second.checkpoint).items()
    )
    assert weights(first.checkpoint)["encoder.mid.0.conv2.conv.weight"].any(), "PCA initialization sets this to zero"


def test_a_resumed_run_keeps_its_weights(started_run, monkeypatch):
    first = started_run(lr=1e-3)
    monkeypatch.setattr(WFVAE, "pca_init", lambda *_: pytest.fail("the weights were initialised once more"))
    resumed = started_run(lr=1e-3, max_steps=2, resume_from_checkpoint="latest", model_config=None, init=None)
    assert (first.step, resumed.step) == (1, 2)
    assert json.loads((resumed.run / "options.json").read_text())["init"] == "pca"


def test_clips_that_are_too_short_for_it_are_an_error_that_says_what_needs_more(videos, tmp_path):
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    short = videos / "b.mp4"
    problem = f"{short}: all 1 videos are shorter than the 17 frames of a clip (the longest has 12)"
    with pytest.raises(UsageError, match=r"^`init=pca` reads clips of 17 frames: ") as error:
        run(short, tmp_path, **CONFIG | {"model_config": str(tmp_path / "small.json")})
    assert (error.value.problem.partition(": ")[2], error.value.remedy) == (problem, "use `init=random`")


def test_reading_the_clips_is_reported(started_run):
    listener = Listener()
    started_run(listener=listener)
    assert ("clips for PCA initialization", 20, 20) in listener.clips


def test_two_ranks_have_the_same_averaged_weights(videos, tmp_path, started_run):
    """Each rank measures some of the clips, so the PSNR shows the weights of both."""
    given = {"ema": True, "eval_video_path": str(videos), "eval_steps": 1}
    alone = started_run(exp_name="alone", **given)
    script = tmp_path / "few.py"
    script.write_text(f"from vaectl.training import pca_init\npca_init.CLIPS = 20\n{MAIN}")
    values = {**CONFIG, "model_config": tmp_path / "small.json", "batch_size": 1, "exp_name": "shared", **given}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", script, "train"]
    done = subprocess.run(
        [*command, *arguments(videos, tmp_path, **values)], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    shared, single = (lines(tmp_path / "results" / name, "validation.jsonl") for name in ("shared", "alone"))
    assert shared[0]["ema_psnr"] == pytest.approx(single[0]["ema_psnr"], rel=1e-5)
    start, other = (weights(alone.checkpoint), weights(tmp_path / "results" / "shared" / "latest"))
    assert all(torch.equal(start[name], other[name]) for name in start)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model m", "--init pca is for a new model, and --model gives the weights; leave out one of them"),
        ("--pretrained_model_name_or_path m --model-config c", "--init pca is for a new model, and --model gives"),
        ("", "what to train is missing; give --model, --model-config or --recipe"),
        ("--recipe od-vae", "PCA initialization is not available for a CausalVAEModel; use --init random"),
        (
            "--recipe tiny --model-config nano.json",
            "PCA initialization needs base_channels and energy flows of 24 or more; use --init random",
        ),
    ],
)
def test_what_it_does_not_fit_is_one_line(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano.json").write_text(json.dumps(NANO))
    assert main(["train", "--video-path", "none", "--device", "cpu", "--init", "pca", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


def test_another_start_is_one_line(capsys):
    assert main(["train", "--video-path", "none", "--model-config", "c", "--init", "linear"]) == 2
    assert capsys.readouterr().err.startswith("error: --init: must be 'random' or 'pca', not 'linear'")
