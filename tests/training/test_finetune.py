"""The recipe `finetune-decoder`, and training of every family: what is frozen stays bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.jobs import Listener
from tests.models.oracle import diffusers_class
from tests.training.runs import NANO, QWEN, WAN, WAN_2_2, lines, nano, run, weights
from vaectl.errors import UsageError
from vaectl.models import build_model, load_model
from vaectl.models.build import read_config
from vaectl.training.network import trained_parameters
from vaectl.training.outline import changing_statistics
from vaectl.training.trainer import Trainer

CAUSALVAE = {
    "_class_name": "CausalVAEModel",
    "hidden_size": 32,
    "hidden_size_mult": [1, 1],
    "num_res_blocks": 1,
    **{f"{side}_resnet_blocks": ["ResnetBlock3D"] * 2 for side in ("encoder", "decoder")},
    "encoder_spatial_downsample": ["SpatialDownsample2x", ""],
    "encoder_temporal_downsample": ["TimeDownsample2x", ""],
    "decoder_spatial_upsample": ["", "SpatialUpsample2x"],
    "decoder_temporal_upsample": ["", "TimeUpsample2x"],
}
FAMILIES = {"wfvae": NANO, "wan-2.1": WAN, "wan-2.2": WAN_2_2, "qwen-image": QWEN, "causalvae": CAUSALVAE}
CASES = [*zip(FAMILIES.values(), [False, True, False, True, False], strict=True)]
RECIPE = {
    "recipe": "finetune-decoder",
    "perceptual_weight": 0.1,
    "lpips_net": "alex",
    "resolution": 32,
    "num_frames": 5,
    "lr": 1e-3,
}
"""With the LPIPS whose weights are part of the package, and steps that change every weight."""


def pretrained(here, config, dtype=torch.float32):
    """A model directory with random weights."""
    torch.manual_seed(0)
    model = build_model(read_config(nano(here, config))).to(dtype)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 1, 0.1)
    (here / "pretrained").mkdir()
    nano(here, config).rename(here / "pretrained" / "config.json")
    save_file(model.state_dict(), here / "pretrained" / "diffusion_pytorch_model.safetensors")
    return here / "pretrained"


@pytest.mark.parametrize(("config", "ema"), CASES, ids=FAMILIES)
def test_the_recipe_trains_the_decoder_and_keeps_the_encoder_bit_for_bit(videos, tmp_path, config, ema):
    begun = pretrained(tmp_path, config)
    result = run(videos, tmp_path, model=str(begun), max_steps=2, ema=ema, **RECIPE)
    before, after = weights(begun), weights(result.checkpoint)
    model = load_model(result.checkpoint, device="cpu")
    trained_parameters(model, freeze_encoder=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= trained
    # Attention does not depend on the bias of k: its gradient is zero, or rounding.
    assert {name for name in trained - changed if not name.endswith(".k.conv.bias")} == set()
    assert {name.partition(".")[0] for name in trained} <= {"decoder", "post_quant_conv"}
    assert ("wavelet" in lines(result.run)[0]) == (config is NANO)
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    moments = [load_model(path, device="cpu").encode(video) for path in (begun, result.checkpoint)]
    assert torch.equal(moments[0].mean, moments[1].mean)


def test_weights_in_half_precision_are_written_in_float32_with_the_same_values(videos, tmp_path):
    begun = pretrained(tmp_path, WAN, torch.bfloat16)
    result = run(videos, tmp_path, model=str(begun), max_steps=1, **RECIPE)
    before, after = weights(begun), weights(result.checkpoint)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    encoder = [name for name in before if name.startswith(("encoder", "quant_conv"))]
    assert all(torch.equal(before[name].float(), after[name]) for name in encoder)


def test_a_frozen_encoder_has_no_dropout_also_after_a_validation(videos, tmp_path, monkeypatch):
    seen = []
    advance = Trainer.advance

    def watched(self, batches):
        seen.append({module.training for module in self.model.encoder.modules()})
        assert self.model.decoder.training
        return advance(self, batches)

    monkeypatch.setattr(Trainer, "advance", watched)
    begun = pretrained(tmp_path, {**WAN, "dropout": 0.5})
    run(videos, tmp_path, model=str(begun), max_steps=2, eval_steps=1, eval_video_path=videos / "a.mp4", **RECIPE)
    assert seen == [{False}, {False}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"recipe": "finetune-decoder"},
            r"encoder \(`freeze_encoder`, `recipe=.*`\) must be trained .*; give `model`$",
        ),
        ({"freeze_encoder": True}, r"encoder \(`freeze_encoder`, `recipe=.*`\) must be trained already; give `model`$"),
        ({"recipe": "tiny"}, "PCA init.* is not available for an AutoencoderKLWan; use `init=random`$"),
        ({"wavelet_loss": True}, "`wavelet_loss`: an AutoencoderKLWan has no wavelets; leave it out$"),
        ({"wavelet_loss": True, "recipe": "stage1"}, "`wavelet_loss`: an AutoencoderKLWan has no wavelets; leave it"),
        ({"model_name": "WFVAE"}, "`model_name=WFVAE`: the config is of an AutoencoderKLWan; leave out `model_name`$"),
        ({"model_config": "wide.json"}, r"wide.json: a shortcut of the encoder cannot average 16 channels to 128$"),
        ({"num_frames": 6}, "`num_frames` must be 1 . 2n for this model, not 6; use 7|5$"),
        ({"crop_size": 24}, "`crop_size` must be a multiple of 16 for this model, not 24; use 16|32$"),
    ],
)
def test_a_request_that_a_wan_cannot_meet_is_one_line(videos, tmp_path, monkeypatch, given, message):
    """Of a Wan 2.2 with patches of 4x4 pixels: 2x16x16."""
    config = {**WAN_2_2, "patch_size": 4, "in_channels": 48, "out_channels": 48}
    monkeypatch.chdir(tmp_path)
    Path("wide.json").write_text(json.dumps({**config, "dim_mult": [1, 2, 16]}))
    given = {"resolution": 64, "max_steps": 1, "model_config": str(nano(tmp_path, config)), **given}
    with pytest.raises(UsageError, match=message) as error:
        run(videos, tmp_path, **{**({} if "recipe" in given else {"wavelet_loss": False}), **given})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "results").exists()


def test_the_wavelet_loss_of_a_recipe_is_off_for_a_model_without_wavelets(videos, tmp_path):
    wan, wfvae = tmp_path / "wan", tmp_path / "wfvae"
    for here, config, term in ((wan, WAN, False), (wfvae, NANO, True)):
        here.mkdir()
        given = {"recipe": "stage2", "num_frames": 5, "resolution": 16, "batch_size": 1, "perceptual_weight": 0}
        result = run(videos, here, model_config=str(nano(here, config)), max_steps=1, **{**given, "disc_weight": 0})
        assert ("wavelet" in lines(result.run)[0]) is term
        assert json.loads((result.run / "options.json").read_text())["wavelet_loss"] is term
        resumed = run(videos, here, resume_from_checkpoint="latest", max_steps=2)
        assert ("wavelet" in lines(resumed.run)[1]) is term


def test_the_encoder_that_is_frozen_must_fit(videos, tmp_path):
    begun = pretrained(tmp_path, WAN)
    wide = tmp_path / "wide.json"
    wide.write_text(json.dumps({**WAN, "num_res_blocks": 2}))
    given = {"model": str(begun), "model_config": str(wide), "ignore_mismatched_sizes": True, "max_steps": 1}
    with pytest.raises(UsageError, match=r"`freeze_encoder`: \d+ tensors of the encoder do not fit: encoder\."):
        run(videos, tmp_path, **given, **RECIPE)
    deep = tmp_path / "deep.json"
    deep.write_text(json.dumps({**WAN, "decoder_base_dim": 16}))
    listener = Listener()
    result = run(videos, tmp_path, listener, **{**given, "model_config": str(deep)}, **RECIPE)
    assert "are initialized at random: decoder.conv_in" in listener.warnings[0]
    assert torch.equal(weights(result.checkpoint)["encoder.conv_in.weight"], weights(begun)["encoder.conv_in.weight"])


@pytest.mark.parametrize("config", [WAN, WAN_2_2], ids=["wan-2.1", "wan-2.2"])
def test_every_term_trains_and_the_checkpoint_gives_the_same_numbers_in_diffusers(videos, tmp_path, config):
    """From scratch, with and without gradient checkpointing, and with dropout."""
    given = {"perceptual_weight": 0.1, "lpips_net": "alex", "disc_weight": 0.5, "disc_start": 0, "loss_type": "l2"}
    given |= {"wavelet_loss": False, "resolution": 32, "batch_size": 1, "ema": True}
    given["model_config"] = str(nano(tmp_path, {**config, "dropout": 0.1}))
    plain, again = (
        run(videos, tmp_path, max_steps=3, exp_name=f"g{n}", gradient_checkpointing=n, **given) for n in (False, True)
    )
    assert lines(plain.run) == lines(again.run)
    assert {"rec", "perceptual", "kl", "generator", "adaptive_weight"} <= lines(plain.run)[2].keys()
    theirs = diffusers_class(config["_class_name"]).from_pretrained(plain.checkpoint).eval()
    ours = load_model(plain.checkpoint, device="cpu")
    video = torch.rand(1, 3, 5, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted = theirs.encode(video).latent_dist.parameters
        posterior = ours.encode(video)
        torch.testing.assert_close(torch.cat([posterior.mean, posterior.logvar], 1), wanted, rtol=0, atol=1e-4)
        decoded = theirs.decode(posterior.mean).sample
        torch.testing.assert_close(ours.decode(posterior.mean).clamp(-1, 1), decoded, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "more", "names"),
    [
        (WAN, {}, "latents_mean and latents_std"),
        (QWEN, {}, "latents_mean and latents_std"),
        (WAN, {"z_dim": 4}, ""),
        (WAN, {"latents_mean": [0.0] * 16, "latents_std": [1.0] * 16}, ""),
        (WAN, {"latents_mean": [0.0] * 16, "latents_std": [2.0] * 16}, "latents_mean and latents_std"),
        (NANO, {}, ""),
        (NANO, {"scale": [0.5] * 4}, "shift and scale"),
        (CAUSALVAE, {}, ""),
    ],
)
def test_statistics_of_the_config_that_training_changes(tmp_path, config, more, names):
    assert changing_statistics(read_config(nano(tmp_path, {**config, **more}))) == names


def test_a_run_that_trains_the_encoder_notes_once_that_the_statistics_change(videos, tmp_path):
    plain = {"model_config": str(nano(tmp_path, WAN)), "wavelet_loss": False}
    new, resumed, frozen = Listener(), Listener(), Listener()
    begun = run(videos, tmp_path, new, max_steps=1, **plain)
    run(videos, tmp_path, resumed, max_steps=2, resume_from_checkpoint="latest")
    run(videos, tmp_path, frozen, max_steps=1, exp_name="frozen", model=str(begun.run / "latest"), **RECIPE)
    notes = [[note for note in each.notes if "measure them again" in note] for each in (new, resumed, frozen)]
    assert [len(each) for each in notes] == [1, 0, 0]
    assert notes[0][0].startswith("latents_mean and latents_std stay those of the config")
