"""What is given to a model: a wrong video or latent is answered with the expression that converts it."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

import vaectl
from vaectl.errors import UsageError
from vaectl.models import build_model
from vaectl.models.build import FAMILIES
from vaectl.models.config import WFVAEConfig
from vaectl.models.inputs import check_video
from vaectl.video import Clip
from vaectl.video.clip import to_frames, to_video

from .test_checkpoint import TINY

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = torch.randint(0, 256, (5, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LAST = FRAMES.permute(0, 2, 3, 1)
VIDEO = to_video(FRAMES)
CLIP = Clip.from_frames(FRAMES, 25)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(WFVAEConfig(**TINY)).eval().requires_grad_(False)


def message(call, *arguments) -> str:
    with pytest.raises(UsageError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


WRONG = {
    "uint8": FRAMES,
    "uint8, channels last": LAST,
    "uint8, a batch": FRAMES[None],
    "uint8, a batch, channels last": LAST[None],
    "uint8 of the right shape": FRAMES[None].transpose(1, 2),
    "int64": FRAMES.long(),
    "0 to 255": FRAMES[None].transpose(1, 2).float(),
    "0 to 255 in half precision": FRAMES[None].transpose(1, 2).half(),
    "(B, T, C, H, W)": VIDEO.transpose(1, 2),
    "(B, T, H, W, C)": VIDEO.permute(0, 2, 3, 4, 1),
    "4-D": VIDEO[0],
    "4-D, time first": VIDEO[0].transpose(0, 1),
    "NumPy": VIDEO.numpy(),
    "NumPy frames": LAST.numpy(),
    "NumPy, 0 to 255": LAST.numpy().astype("float64"),
    "unsigned, 16 bits": FRAMES.to(torch.uint16),
    "unsigned, 32 bits": LAST.to(torch.uint32),
    "unsigned, 64 bits, a list": list(FRAMES.to(torch.uint64)),
    "NumPy, unsigned, 16 bits": LAST.numpy().astype(np.uint16),
    "NumPy, a list of 64 bits": list(LAST.numpy().astype(np.uint64)),
    "NumPy, reversed": LAST.flip(3).numpy()[..., ::-1],
    "NumPy, reversed floats": VIDEO.flip(2).numpy()[:, :, ::-1],
    "NumPy, big-endian": LAST.numpy().astype(">i4"),
    "NumPy, big-endian floats": VIDEO.numpy().astype(">f8"),
    "NumPy, extended precision": VIDEO.numpy().astype(np.longdouble),
    "NumPy, a list, big-endian": list(LAST.numpy().astype(">u2")),
    "a list of arrays": list(LAST.numpy()),
    "a list of tensors": list(FRAMES),
    "a list of PIL images": [Image.fromarray(frame) for frame in LAST.numpy()],
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("method", ["encode", "reconstruct", "__call__"])
def test_a_wrong_video_is_answered_with_what_converts_it(model, name, method):
    said = message(getattr(model, method), WRONG[name])
    assert said.startswith("a video must be a float tensor (B, 3, T, H, W) in [-1, 1], not a ")
    converted = eval(said.split("; convert it: ")[1], {"video": WRONG[name], "torch": torch, "np": np})
    torch.testing.assert_close(converted.float(), VIDEO, rtol=0, atol=1e-2 if "half" in name else 1e-6)
    getattr(model, method)(converted)


DENSE = "give a dense tensor of float32, bfloat16 or float16"
ODD = (
    VIDEO.to(torch.complex64),
    VIDEO.numpy().astype("complex64"),
    VIDEO.to_sparse(),
    FRAMES.to_sparse(),
    VIDEO.to(torch.float8_e4m3fn),
)


@pytest.mark.parametrize(
    ("video", "said"),
    [
        (None, "not a value of type NoneType"),
        ([], "not a list of 0"),
        (torch.zeros(1, 4, 5, 16, 16), "not a tensor of float32 (1, 4, 5, 16, 16)"),
        (torch.zeros(1, 3, 0, 16, 16), "not a tensor of float32 (1, 3, 0, 16, 16)"),
        (torch.zeros(3, 3, 16, 16), "not a tensor of float32 (3, 3, 16, 16)"),  # which 3 are the channels?
        (VIDEO * 1000, "with values up to 1000"),
        (torch.zeros(1, 3, 5, 16, 16, dtype=torch.bool), "not a tensor of bool"),
        (FRAMES.to(torch.uint16) * 200, "not a tensor of uint16 (5, 3, 16, 24)"),
        (np.full((5, 16, 24, 3), "a"), "not a NumPy array of <U1"),
        ([[[1], [2, 3]]], "not a list of 1"),
        *((odd, f"{DENSE}, with values") for odd in ODD),
        (VIDEO[0] * torch.nan, "not a tensor of float32 (3, 5, 16, 24)"),
        (VIDEO * torch.nan, "not a tensor of float32 (1, 3, 5, 16, 24) with NaN"),
        (VIDEO.half() + torch.inf, "with values up to inf"),
        (Clip(FRAMES[:0], (), Fraction(25)), "not a tensor of float32 (1, 3, 0, 16, 24)"),
        ([FRAMES[0], FRAMES[0, :, 1:]], "give frames of one size, not (3, 16, 24) and (3, 15, 24)"),
        ([Image.new("RGB", (8, 4)), Image.new("RGB", (8, 8))], "give frames of one size, not (4, 8, 3) and (8, 8, 3)"),
    ],
)
def test_what_cannot_be_converted_is_described(model, video, said):
    answer = message(model.encode, video)
    assert said in answer
    assert "convert" not in answer


def test_a_path_is_answered_with_read_video(model):
    assert message(model.reconstruct, "clip.mp4").endswith("; convert it: vaectl.read_video(video)")


def test_what_is_right_is_not_questioned(model):
    for video in (VIDEO, VIDEO.double(), VIDEO.half(), VIDEO[:, :, :1, :1, :1], VIDEO.repeat(2, 1, 1, 1, 1)):
        assert model.reconstruct(video).shape == video.shape
    model.encode(torch.randn(1, 3, 5, 64, 64))  # noise, as in a first try
    model.encode(3 * VIDEO)


def test_a_clip_is_taken_as_it_is_and_comes_back_as_a_clip(model):
    expected = model.reconstruct(VIDEO)
    assert torch.equal(model.encode(CLIP).mean, model.encode(VIDEO).mean)
    for made in (model.reconstruct(CLIP), model(CLIP)):
        assert torch.equal(made.frames, to_frames(expected))
        assert (made.timestamps, made.frame_rate) == (CLIP.timestamps, Fraction(25))


def test_a_model_whose_output_leaves_the_range_gives_a_clip_if_it_is_no_nan(model):
    loud = copy.deepcopy(model)
    loud.last_layer.mul_(1e6)
    assert loud.reconstruct(CLIP).frames.shape == FRAMES.shape
    loud.last_layer.fill_(torch.nan)
    assert message(loud.reconstruct, CLIP).endswith("with NaN")


def test_a_wrong_latent_is_answered_with_what_converts_it(model):
    posterior = model.encode(torch.zeros(1, 3, 9, 32, 40))
    latent = posterior.mode()
    given = [posterior, latent[0], latent.transpose(1, 2), latent.numpy(), latent[0].numpy()]
    for wrong in given:
        said = message(model.decode, wrong)
        assert said.startswith("a latent must be a float tensor (B, 2, t, h, w), not a ")
        converted = eval(said.split("; convert it: ")[1], {"latent": wrong, "torch": torch, "np": np})
        assert torch.equal(converted, latent)
    assert message(model.decode, VIDEO).endswith("not a tensor of float32 (1, 3, 5, 16, 24)")
    assert message(model.decode, latent.long()).endswith("not a tensor of int64 (1, 2, 3, 4, 5)")
    for wrong in (latent * torch.nan, latent / 0):
        assert "(1, 2, 3, 4, 5) with NaN or infinity; " in message(model.decode, wrong)


def test_calling_the_model_reconstructs_with_gradients(model):
    assert torch.equal(model(VIDEO), model.reconstruct(VIDEO))
    drawn = [
        run(VIDEO, sample=True, generator=torch.Generator().manual_seed(3)) for run in (model, model.reconstruct, model)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], model(VIDEO))
    trained = copy.deepcopy(model).requires_grad_(True).train()
    trained(VIDEO).square().mean().backward()
    assert all(parameter.grad is not None for parameter in trained.decoder.parameters())
    assert not trained.reconstruct(VIDEO).requires_grad


def test_the_check_can_be_compiled_as_one_graph():
    compiled = torch.compile(lambda x: check_video(x, 3) * 2, backend="eager", fullgraph=True)
    assert torch.equal(compiled(VIDEO), VIDEO * 2)


def test_the_networks_themselves_check_nothing(model, monkeypatch):
    """Training and tiling call `run_encoder` and `run_decoder`."""
    monkeypatch.setattr("vaectl.models.vae.check_video", None)
    monkeypatch.setattr("vaectl.models.vae.check_latent", None)
    from vaectl.training.network import AutoEncoder

    noise = torch.zeros(1, 2, 2, 2, 3)
    video, _, _ = AutoEncoder(model, freeze_encoder=False, recompute=False)(VIDEO, noise)
    assert video.shape == VIDEO.shape


def test_models_and_posteriors_are_shown_in_one_line(model):
    count = sum(parameter.numel() for parameter in model.parameters())
    assert repr(model) == (
        f"WFVAEModel({count / 1e6:.1f}M parameters, compression 4x8x8, 2 latent channels, float32 on cpu)"
    )
    assert repr(copy.deepcopy(model).bfloat16()).endswith("bfloat16 on cpu)")
    assert repr(model.encoder).startswith("Encoder(\n")
    assert model.encode(VIDEO) != model.encode(VIDEO)  # no error: by identity
    assert repr(model.encode(VIDEO)) == "Posterior(mean and logvar (1, 2, 2, 2, 3), float32 on cpu)"
    assert all(family.__repr__ is vaectl.models.VideoVAE.__repr__ for family in FAMILIES.values())
