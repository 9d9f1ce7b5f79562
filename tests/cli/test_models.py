"""`vaectl models`: what it says about each container, at what cost, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models.narrow import CONFIGS, WAN_2_2, save_narrow
from tests.models.reference import load_reference, synthetic_model
from vaectl.cli.app import main
from vaectl.inventory import PUBLISHED, describe
from vaectl.models import build_model, load_model, save_model
from vaectl.models.build import read_config
from vaectl.models.config import CausalVAEConfig, FamilyConfig, WFVAEConfig
from vaectl.models.families.wan_config import AutoencoderKLQwenImageConfig, AutoencoderKLWanConfig

PUBLISHED_WFVAE = {"norm_type": "layernorm", "t_interpolation": "trilinear", "decoder_energy_flow_hidden_size": 128}
RES2X = {
    "encoder_conv_in": "Conv2d",
    "encoder_attention": "AttnBlock3DFix",
    "encoder_resnet_blocks": ("ResnetBlock2D", "ResnetBlock2D", "ResnetBlock3D", "ResnetBlock3D"),
    "encoder_spatial_downsample": ("Downsample", "Downsample", "Downsample", ""),
    "encoder_temporal_downsample": ("", "TimeDownsampleRes2x", "TimeDownsampleRes2x", ""),
    "decoder_attention": "AttnBlock3DFix",
    "decoder_spatial_upsample": ("", "SpatialUpsample2x", "SpatialUpsample2x", "SpatialUpsample2x"),
    "decoder_temporal_upsample": ("", "", "TimeUpsampleRes2x", "TimeUpsampleRes2x"),
}
BOTH_3D = {
    f"{level}_{part}": f"{prefix}{name}"
    for level in ("l1", "l2")
    for part, prefix, name in (
        ("dowmsample_block", "Spatial2xTime2x3D", "Downsample"),
        ("upsample_block", "Spatial2xTime2x3D", "Upsample"),
        ("downsample_wavelet", "", "HaarWaveletTransform3D"),
        ("upsample_wavelet", "Inverse", "HaarWaveletTransform3D"),
    )
}
RECIPES = Path(sys.modules["vaectl"].__file__).parent / "training" / "recipes"


def published_config(name: str) -> FamilyConfig:
    """The configuration that the authors of a published checkpoint give."""
    if name == "Wan 2.1":
        return AutoencoderKLWanConfig()
    if name == "Wan 2.2 TI2V-5B":
        return AutoencoderKLWanConfig(**WAN_2_2)
    if name == "Qwen-Image":
        return AutoencoderKLQwenImageConfig()
    if name == "WF-VAE-L-16Chn":
        return read_config(RECIPES / "wfvae-l.json").model_copy(update={"latent_dim": 16})
    if name == "Open-Sora Plan v1.5":
        flow = {"encoder_energy_flow_hidden_size": 128}
        return WFVAEConfig(**PUBLISHED_WFVAE, **BOTH_3D, **flow, base_channels=160, latent_dim=32)
    if name == "Open-Sora Plan v1.3":
        return WFVAEConfig(**PUBLISHED_WFVAE, base_channels=128, latent_dim=8, connect_res_layer_num=2)
    if name == "Open-Sora Plan v1.2":
        return read_config(RECIPES / "od-vae.json")
    return CausalVAEConfig(**RES2X)


@pytest.mark.parametrize("known", PUBLISHED, ids=lambda known: known.name)
def test_what_is_said_about_a_published_checkpoint_follows_from_its_configuration(known):
    config = published_config(known.name)
    with torch.device("meta"):
        model = build_model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == known.parameters
    assert known.family == config.family
    assert known.compression == f"{config.time_compression}x{config.space_compression}x{config.space_compression}"
    assert (known.latent_channels, known.streams) == (config.latent_channels, model.streams)


@pytest.fixture
def model():
    return synthetic_model(load_reference("wfvae_4x8x8").config)


def test_the_builtin_model_is_listed_with_the_published_ones(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    builtin = next(line for line in out.splitlines() if "built-in model" in line)
    assert builtin.split()[2:] == ["WFVAE", "5.5M", "21.8", "MB", "4x8x8", "16"]
    assert all(known.name in out and known.hub in out for known in PUBLISHED)
    assert max(map(len, out.splitlines())) <= 80
    assert main(["models", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["builtin"]["parameters"] == sum(p.numel() for p in load_model().parameters())
    assert [known["hub"] for known in shown["published"]] == [known.hub for known in PUBLISHED]
    assert all(known["download"].startswith(f"hf download {known['hub']} ") for known in shown["published"])
    for known in PUBLISHED:
        one_line = " ".join(out.replace("\\\n", " ").split())
        assert " ".join(known.download) in one_line


@pytest.mark.parametrize(
    ("name", "family", "compression", "shift", "scale"),
    [
        ("Wan 2.1", "AutoencoderKLWan (Wan 2.1)", "4x8x8, 16 latent channels", "-0.9497 to 1.551", "0.3059 to 0.8887"),
        ("Wan 2.2", "AutoencoderKLWan (Wan 2.2)", "4x16x16, 48 latent channels", "0 to 4.7", "0.02083 to 1"),
        ("Qwen-Image", "AutoencoderKLQwenImage", "4x8x8, 16 latent channels", "-0.9497 to 1.551", "0.3059 to 0.8887"),
    ],
)
def test_a_checkpoint_of_diffusers(capsys, tmp_path, name, family, compression, shift, scale):
    theirs = save_narrow(name, tmp_path)
    assert main(["models", str(tmp_path)]) == 0
    shown = {line[:13].strip(): line[13:] for line in capsys.readouterr().out.splitlines()}
    assert (shown["family"].strip(), shown["compression"].strip()) == (family, compression)
    assert shown["shift"] == f"{shift}, one per channel (--json lists them)"
    assert shown["scale"] == f"{scale}, one per channel (--json lists them)"
    assert shown["long clips"].startswith("streamed")
    facts = describe(tmp_path)
    assert f"AutoencoderKL{facts.family}" == facts.class_name == CONFIGS[name][0]
    assert facts.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    assert facts.shift == tuple(theirs.config.latents_mean)
    assert facts.scale == pytest.approx([1 / std for std in theirs.config.latents_std])
    assert read_config(tmp_path / "config.json").is_called(CONFIGS[name][0])


@pytest.mark.parametrize("name", ["Wan", "wan", "AutoencoderKLWan", "AutoencoderKL_Wan"])
def test_a_family_has_a_short_and_a_long_name(name):
    assert AutoencoderKLWanConfig().is_called(name)
    assert not AutoencoderKLQwenImageConfig().is_called(name)
    assert not WFVAEConfig().is_called(name)


def test_a_checkpoint_of_vaectl_tells_its_step_and_whether_it_is_an_average(capsys, tmp_path, model):
    save_model(model.half(), tmp_path / "best", metadata={"weights": "ema", "step": 1200})
    facts = describe(tmp_path / "best")
    assert (facts.weights, facts.step, facts.dtype, facts.family) == ("ema", 1200, "float16, float32", "WFVAE")
    assert (facts.compression, facts.latent_channels, facts.streams) == ("4x8x8", model.config.latent_dim, True)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.bytes == (tmp_path / "best" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert main(["models", str(tmp_path / "best")]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (shown["step"].strip(), shown["averaged"].strip()) == ("1200", "yes (EMA)")
    assert main(["models", str(tmp_path / "best"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scale"] == list(facts.scale)


@pytest.mark.parametrize(("ema", "weights"), [(True, "ema"), (False, "raw")])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_training_checkpoint_of_the_original_code(tmp_path, model, ema, weights, zipped):
    save_model(model, tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    averaged = {f"module.{name}": tensor for name, tensor in model.bfloat16().state_dict().items()}
    stored = {
        "current_step": 70,
        "state_dict": {"gen_model": model.state_dict()},
        "ema_state_dict": averaged if ema else {},
    }
    torch.save(stored, tmp_path / "checkpoint-70.ckpt", _use_new_zipfile_serialization=zipped)
    facts = describe(tmp_path)
    assert (facts.weights, facts.step, facts.dtype) == (weights, 70, "bfloat16, float32")
    assert facts.path.endswith("checkpoint-70.ckpt")


def test_shards_are_counted_together(tmp_path, model):
    save_model(model, tmp_path)
    whole = describe(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    names = sorted(state)
    for i in range(2):
        save_file({name: state[name] for name in names[i::2]}, tmp_path / f"part-{i}.safetensors")
    placed = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    facts = describe(tmp_path)
    assert (facts.parameters, facts.dtype, facts.path) == (whole.parameters, whole.dtype, str(index))
    assert facts.bytes == sum(part.stat().st_size for part in tmp_path.glob("part-*"))


def test_a_model_that_looks_at_the_whole_clip_is_told(capsys, tmp_path):
    save_model(synthetic_model(load_reference("causalvae_v1_2").config), tmp_path)
    assert main(["models", str(tmp_path)]) == 0
    assert "need --enable-tiling, because GroupNorm or AttnBlock3D uses all frames" in capsys.readouterr().out


@pytest.mark.parametrize("container", ["safetensors", "bin"])
def test_a_large_checkpoint_takes_no_memory(tmp_path, container):
    with torch.device("meta"):
        large = build_model(read_config(RECIPES / "wfvae-s.json"))
    state = {name: torch.empty_like(tensor, device="cpu") for name, tensor in large.state_dict().items()}
    (tmp_path / "config.json").write_text((RECIPES / "wfvae-s.json").read_text())
    file = tmp_path / f"diffusion_pytorch_model.{container}"
    save_file(state, file) if container == "safetensors" else torch.save(state, file)
    assert file.stat().st_size > 580e6
    code = (
        "import resource, sys; from pathlib import Path; from vaectl.inventory import describe\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; describe(Path(sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) * 1024 < 50e6


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text('{"_class_name": "Other"}'), "unknown _class_name"),
        (lambda folder: (folder / "diffusion_pytorch_model.safetensors").unlink(), "holds no weights"),
        (
            lambda folder: (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"no"),
            "cannot be read as weights",
        ),
        (
            lambda folder: save_file({"a": torch.ones(1)}, folder / "diffusion_pytorch_model.safetensors"),
            "does not fit the config.json next to it",
        ),
        (lambda folder: torch.save([1], folder / "a.ckpt"), "holds neither a state dict nor a training checkpoint"),
        (
            lambda folder: torch.save({"a": 1}, folder / "a.ckpt"),
            "holds neither a state dict nor a training checkpoint",
        ),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(capsys, tmp_path, model, damage, said):
    save_model(model, tmp_path)
    damage(tmp_path)
    assert main(["models", str(tmp_path)]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert str(tmp_path) in err
    assert said in err
    assert err.count("\n") == 1


def test_a_truncated_file_is_refused(capsys, tmp_path, model):
    save_model(model, tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert main(["models", str(tmp_path)]) == 1
    assert "cannot be read as weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "PATH: the path is empty"),
        (["/no/such"], "/no/such: no such file"),
        (["a", "b"], "unexpected extra argument(s) (b)"),
        (["--path", "a"], "No such option: --path"),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments, said):
    assert main(["models", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
