"""Checkpoints of Wan and Qwen-Image as people have them load, and what is none is refused in one line."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.oracle import diffusers_class
from vaectl.cli.app import main
from vaectl.errors import UsageError, VaectlError
from vaectl.inventory import describe
from vaectl.models import load_model, save_model
from vaectl.models.build import read_config, validated
from vaectl.models.families.wan_config import AutoencoderKLWanConfig
from vaectl.models.families.wan_original import config_fields, diffusers_names
from vaectl.options.train import TrainOptions
from vaectl.progress import Silent
from vaectl.training.setup import model_of

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = {"base_dim": 8, "dim_mult": [1, 2, 2], "num_res_blocks": 2, "temperal_downsample": [False, True]}
PUBLISHED_22 = {
    **{"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True},
    **{"in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16},
}
SMALL_22 = {**PUBLISHED_22, **SMALL, "decoder_base_dim": 12, "z_dim": 6, "scale_factor_spatial": 8, "num_res_blocks": 1}
KINDS = {
    "2.1": ("AutoencoderKLWan", {**SMALL, "scale_factor_temporal": 2, "scale_factor_spatial": 4}),
    "2.2": ("AutoencoderKLWan", {**SMALL_22, "scale_factor_temporal": 2}),
    "Qwen": ("AutoencoderKLQwenImage", SMALL),
}
WAN_22 = json.loads(
    '{"_class_name": "AutoencoderKLWan", "_diffusers_version": "0.35.0.dev0", "attn_scales": [], "base_dim": 160,'
    ' "clip_output": false, "decoder_base_dim": 256, "dim_mult": [1, 2, 4, 4], "dropout": 0.0, "in_channels": 12,'
    ' "is_residual": true, "num_res_blocks": 2, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16,'
    ' "scale_factor_temporal": 4, "temperal_downsample": [false, true, true], "z_dim": 48}'
) | {"latents_mean": [0.25] * 48, "latents_std": [0.5] * 48}


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def oracles() -> dict[str, Any]:
    torch.manual_seed(0)
    return {kind: diffusers_class(name)(**config).eval() for kind, (name, config) in KINDS.items()}


@pytest.fixture
def oracle(oracles, kind) -> Any:
    return oracles[kind]


def original_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict under the names of the original code of Wan, written down block by block."""
    blocks = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
    blocks |= {"conv_shortcut": "shortcut"}
    mid = {"resnets.0": "middle.0", "attentions.0": "middle.1", "resnets.1": "middle.2"}
    resnets = [name for name in state if re.match(r"decoder\.up_blocks\.0\.resnets\.\d+\.conv1\.weight", name)]

    def original(name: str) -> str:
        words = name.split(".")
        side, *rest = words
        if side in ("quant_conv", "post_quant_conv"):
            return ".".join([{"quant_conv": "conv1", "post_quant_conv": "conv2"}[side], *rest])
        if rest[0] in ("conv_in", "norm_out", "conv_out"):
            return ".".join(
                [side, {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}[rest[0]], *rest[1:]]
            )
        if rest[0] == "mid_block":
            return ".".join([side, mid[".".join(rest[1:3])], blocks.get(rest[3], rest[3]), *rest[4:]])
        level, part = int(rest[1]), rest[2]
        down = rest[0] == "down_blocks"
        samples = "downsamples" if down else "upsamples"
        if part in ("downsampler", "upsampler"):  # the last of its level
            last = len(resnets) - down
            return ".".join([side, samples, str(level), samples, str(last), *rest[3:]])
        if part == "resnets" and "decoder.up_blocks.0.upsampler.resample.1.weight" in state:
            return ".".join([side, samples, str(level), samples, rest[3], blocks[rest[4]], *rest[5:]])
        if part == "resnets":
            return ".".join([side, samples, str(level * (len(resnets) + 1) + int(rest[3])), blocks[rest[4]], *rest[5:]])
        if part == "upsamplers":
            return ".".join([side, samples, str(level * (len(resnets) + 1) + len(resnets)), *rest[4:]])
        return ".".join([side, samples, str(level), blocks.get(part, part), *rest[3:]])

    return {original(name): tensor.contiguous() for name, tensor in state.items()}


@torch.no_grad()
def assert_same_numbers(model: Any, oracle: Any) -> None:
    video = torch.rand(1, 3, 5, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    posterior, wanted = model.encode(video), oracle.encode(video).latent_dist
    torch.testing.assert_close(posterior.mean, wanted.mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(posterior.logvar, wanted.logvar, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        model.decode(wanted.mean).clamp(-1, 1), oracle.decode(wanted.mean).sample, rtol=0, atol=1e-4
    )


@contextmanager
def log_of_diffusers() -> Iterator[list[str]]:
    """Collect what diffusers warns about."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("diffusers").addHandler(handler)
    yield lines
    logging.getLogger("diffusers").removeHandler(handler)


def one_line(path: Path, code: type[VaectlError] = VaectlError) -> str:
    """Return the error for a path, which `load_model` and `describe` agree on."""
    with pytest.raises(code) as error:
        load_model(path, device="cpu")
    with pytest.raises(code) as other:
        describe(path)
    assert str(error.value) == str(other.value)
    assert str(error.value).isprintable()
    return str(error.value)


def config(folder: Path, **values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


# The layouts


@pytest.mark.parametrize("shards", [False, True])
def test_a_directory_of_diffusers_loads_with_the_numbers_of_diffusers(tmp_path, oracle, kind, shards):
    oracle.save_pretrained(tmp_path, max_shard_size="60KB" if shards else "10GB")
    assert (tmp_path / f"{WEIGHTS}.index.json").exists() == shards
    notes: list[str] = []
    model = load_model(tmp_path, device="cpu", note=notes.append)
    assert notes == []
    assert model.config.class_name == KINDS[kind][0]
    assert_same_numbers(model, oracle)


def test_what_save_writes_loads_in_diffusers_with_the_same_numbers(tmp_path, oracle, kind):
    oracle.save_pretrained(tmp_path / "a")
    model = load_model(tmp_path / "a", device="cpu")
    save_model(model, tmp_path / "b", metadata={"weights": "ema", "step": 3})
    with log_of_diffusers() as lines:
        again = type(oracle).from_pretrained(tmp_path / "b", low_cpu_mem_usage=False).eval()
    assert lines == []
    assert_same_numbers(model, again)
    own, theirs = (json.loads((tmp_path / each / "config.json").read_text()) for each in "ba")
    assert all(own[key] == value for key, value in theirs.items() if not key.startswith("_"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_original_file_loads_alone_and_saves_as_diffusers(tmp_path, oracle, kind, suffix):
    state = original_names(oracle.state_dict())
    assert "decoder.middle.0.residual.0.gamma" in state
    assert not state.keys() & oracle.state_dict().keys()
    file = tmp_path / f"Wan_VAE{suffix}"
    torch.save(state, file) if suffix == ".pth" else save_file(state, file)
    notes: list[str] = []
    model = load_model(file, device="cpu", note=notes.append)
    assert notes == []
    assert_same_numbers(model, oracle)
    save_model(model, tmp_path / "saved")
    again = diffusers_class("AutoencoderKLWan").from_pretrained(tmp_path / "saved", low_cpu_mem_usage=False).eval()
    assert_same_numbers(model, again)
    facts = describe(file)
    assert (facts.path, facts.family, facts.weights, facts.step) == (str(file), "AutoencoderKLWan", None, None)
    assert facts.parameters == sum(tensor.numel() for tensor in state.values())


@pytest.mark.parametrize("name", ["2.1", "2.2"])
def test_the_published_originals_have_the_published_configs(name):
    fields = PUBLISHED_22 if name == "2.2" else {}
    with torch.device("meta"):
        oracle = diffusers_class("AutoencoderKLWan")(**fields)
    renamed = diffusers_names(original_names(oracle.state_dict()))
    assert {n: t.shape for n, t in renamed.items()} == {n: t.shape for n, t in oracle.state_dict().items()}
    config = validated(config_fields(renamed), AutoencoderKLWanConfig, Path("file"))
    shift, scale = config.latent_statistics
    assert (shift[0], 1 / scale[0]) == pytest.approx((-0.2289, 0.4765) if fields else (-0.7571, 2.8184))
    assert config.network == AutoencoderKLWanConfig(**fields).network
    assert (config.scale_factor_temporal, config.scale_factor_spatial) == (4, 16 if fields else 8)
    assert {len(config.latents_mean), len(config.latents_std)} == {config.z_dim}


PREFIXED = {
    "vae.": "with vae. in their names",
    "first_stage_model.": "with first_stage_model. in their names",
    "module.model.": "with module.model. in their names",
}


@pytest.mark.parametrize(("prefix", "original"), [*((prefix, True) for prefix in PREFIXED), ("vae.", False)])
def test_a_prefix_is_removed_with_a_note(tmp_path, oracles, prefix, original):
    state = oracles["2.2"].state_dict()
    state = original_names(state) if original else state
    torch.save({"state_dict": {f"{prefix}{name}": tensor for name, tensor in state.items()}}, tmp_path / "vae.pt")
    notes: list[str] = []
    model = load_model(tmp_path / "vae.pt", device="cpu", note=notes.append)
    assert_same_numbers(model, oracles["2.2"])
    assert notes[-1].endswith(f"holds its weights under state_dict and {PREFIXED[prefix]}")
    assert [
        note.endswith("has no config.json; its names and shapes are those of an AutoencoderKLWan") for note in notes
    ] == ([False] if original else [True, False])


def test_the_vae_of_a_repository_is_found(tmp_path, oracles, capsys):
    repository = config(tmp_path / "Wan2.1-T2V", _class_name="WanModel", model_type="t2v", dim=1536)
    save_file({"blocks.0.modulation": torch.zeros(1)}, repository / WEIGHTS)
    torch.save({"token_embedding.weight": torch.zeros(1)}, repository / "models_t5_umt5-xxl-enc-bf16.pth")
    torch.save(original_names(oracles["2.1"].state_dict()), repository / "Wan2.1_VAE.pth")
    (repository / "config_of_something.json").write_text("[")
    assert_same_numbers(load_model(repository, device="cpu"), oracles["2.1"])
    assert_same_numbers(load_model(repository / "Wan2.1_VAE.pth", device="cpu"), oracles["2.1"])
    (repository / "config.json").write_text("[")  # is not of this file, so it does not matter
    assert_same_numbers(load_model(repository / "Wan2.1_VAE.pth", device="cpu"), oracles["2.1"])

    pipeline = tmp_path / "Wan2.1-T2V-Diffusers"
    oracles["Qwen"].save_pretrained(pipeline / "vae")
    assert "holds no config.json, so it is not a model directory; did you mean" in one_line(pipeline)
    (pipeline / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    assert_same_numbers(load_model(pipeline, device="cpu"), oracles["Qwen"])
    assert main(["models", str(pipeline)]) == 0
    assert f"{pipeline}/vae/{WEIGHTS}" in capsys.readouterr().out


def test_weights_of_diffusers_load_without_a_config_and_as_a_variant(tmp_path, oracles):
    oracles["2.1"].half().save_pretrained(tmp_path, variant="fp16")
    oracles["2.1"].float()
    variant = tmp_path / "diffusion_pytorch_model.fp16.safetensors"
    notes: list[str] = []
    model = load_model(tmp_path, device="cpu", note=notes.append)
    assert (notes, model.dtype, describe(tmp_path).dtype) == ([], torch.float32, "float16")
    (tmp_path / "config.json").unlink()
    again = load_model(tmp_path, device="cpu", note=notes.append)
    assert notes == [f"{variant}: has no config.json; its names and shapes are those of an AutoencoderKLWan"]
    assert again.config.network == model.config.network
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())
    shutil.copy(variant, tmp_path / "diffusion_pytorch_model.bf16.safetensors")
    assert "holds several variants of the weights" in one_line(tmp_path)


def test_training_starts_from_an_original_file(tmp_path, oracles):
    file = tmp_path / "Wan2.1_VAE.pth"
    torch.save(original_names(oracles["2.1"].state_dict()), file)
    oracles["Qwen"].save_config(tmp_path / "qwen")
    oracles["2.2"].save_config(tmp_path / "2.2")
    given = {
        "video_path": ["v"],
        "device": "cpu",
        "num_frames": 5,
        "resolution": 32,
        "perceptual_weight": 0.0,
        "model": file,
    }
    for more in ({}, {"model_config": tmp_path / "qwen"}, {"ignore_mismatched_sizes": True}):
        model = model_of(TrainOptions(**given, **more), None, Silent())
        assert_same_numbers(model.eval(), oracles["2.1"])
    with pytest.raises(UsageError, match=r"is not the config of .*Wan2\.1_VAE\.pth: is_residual, patch_size, in_cha"):
        model_of(TrainOptions(**given, model_config=tmp_path / "2.2"), None, Silent())


# Configs


def test_the_published_config_of_wan_2_2_is_kept_and_noted_once(tmp_path):
    config(tmp_path, **WAN_22)
    notes: list[str] = []
    read = read_config(tmp_path / "config.json", notes.append)
    assert notes == [f"{tmp_path}/config.json: unknown keys have no effect: 'clip_output'"]
    assert read.to_json() == {key: value for key, value in WAN_22.items() if key != "_diffusers_version"}
    assert read.latent_statistics == ((0.25,) * 48, (2.0,) * 48)


def test_unknown_keys_are_noted_in_one_line_with_the_key_that_was_meant(tmp_path, oracles, capsys):
    oracles["2.1"].save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    config(tmp_path, **values, is_residul=True, patch=2, to_json=1, **{f"x{i}": 0 for i in range(9)})
    line = (
        f"{tmp_path}/config.json: unknown keys have no effect: 'is_residul' (did you mean 'is_residual'?), 'patch',"
        " 'to_json', 'x0', 'x1', …"
    )
    notes: list[str] = []
    model = load_model(tmp_path, device="cpu", note=notes.append)
    assert notes == [line]
    assert_same_numbers(model, oracles["2.1"])
    save_model(model, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["x8"] == 0
    assert main(["models", str(tmp_path)]) == 0
    assert capsys.readouterr().err == f"note: {line}\n"


@pytest.mark.parametrize("value", [json.loads("[" * 300 + "]" * 300), float("nan")])
def test_a_value_that_cannot_be_written_again_is_refused(tmp_path, value):
    config(tmp_path, _class_name="AutoencoderKLWan", x=value)
    with pytest.raises(UsageError, match=r"config\.json: x: ") as error:
        read_config(tmp_path / "config.json")
    assert len(str(error.value)) < len(str(tmp_path)) + 200


@pytest.mark.parametrize(("given", "has"), [("2.1", "Qwen"), ("Qwen", "2.1")])
def test_wan_and_qwen_image_are_one_network(tmp_path, oracles, given, has):
    oracles[has].save_pretrained(tmp_path)
    oracles[given].save_config(tmp_path)
    model = load_model(tmp_path, device="cpu")
    assert model.config.class_name == KINDS[given][0]
    assert_same_numbers(model, oracles[has])


# What is refused


@pytest.mark.parametrize(
    ("given", "has", "said"),
    [
        ("2.1", "2.2", "is_residual True (not False), patch_size 2 (not 1), in_channels 12 (not 3), decoder_base_dim"),
        ("2.2", "2.1", "is_residual False (not True), patch_size 1 (not 2), in_channels 3 (not 12), decoder_base_dim"),
    ],
)
def test_weights_of_another_wan_are_named_by_what_differs(tmp_path, oracles, given, has, said):
    oracles[has].save_pretrained(tmp_path)
    oracles[given].save_config(tmp_path)
    line = one_line(tmp_path)
    assert f"{WEIGHTS}: does not fit the config.json next to it: it has {said}" in line
    assert line.endswith("; get the config.json of these weights")


def test_weights_of_wan_do_not_fit_another_family(tmp_path, oracles):
    oracles["2.1"].save_pretrained(tmp_path)
    config(tmp_path, _class_name="WFVAEModel", base_channels=8, norm_type="layernorm")
    assert "it is an AutoencoderKLWan, and the config is of a WFVAEModel; get the config.json" in one_line(tmp_path)
    original = tmp_path / "Wan2.1_VAE.pth"  # describes itself
    torch.save(original_names(oracles["2.1"].state_dict()), original)
    assert describe(original).family == "AutoencoderKLWan"


OURS = "; vaectl reads WFVAEModel, CausalVAEModel, AutoencoderKLWan and AutoencoderKLQwenImage"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"_class_name": "WanTransformer3DModel"},
            "unknown _class_name 'WanTransformer3DModel', a diffusion network, not a VAE; give the vae/ folder",
        ),
        (
            {"_class_name": "WanModel"},
            "unknown _class_name 'WanModel', a diffusion network, not a VAE; give the vae/ folder, or the file",
        ),
        (
            {"architectures": ["UMT5EncoderModel"], "model_type": "umt5"},
            "is the config of a UMT5EncoderModel, not of a VAE; give the vae/ folder",
        ),
        ({"model_type": "qwen2_5_vl"}, "is the config of a qwen2_5_vl, not of a VAE; give the vae/ folder"),
        ({"_class_name": "AutoencoderKL"}, f"unknown _class_name 'AutoencoderKL', an image VAE{OURS}"),
        ({"_class_name": "AutoencoderKLFlux2"}, f"unknown _class_name 'AutoencoderKLFlux2', an image VAE{OURS}"),
        ({"_class_name": "AutoencoderKLHunyuanVideo"}, f"unknown _class_name 'AutoencoderKLHunyuanVideo'{OURS}"),
        ({"_class_name": "AutoencoderKLLTXVideo"}, f"unknown _class_name 'AutoencoderKLLTXVideo'{OURS}"),
        ({"_class_name": "AutoencoderKLCogVideoX"}, f"unknown _class_name 'AutoencoderKLCogVideoX'{OURS}"),
        ({"_class_name": "AutoencoderKLMochi"}, f"unknown _class_name 'AutoencoderKLMochi'{OURS}"),
        (
            {"_class_name": "AutoencoderKLQwenImage", "input_channels": 4},
            "takes 4 channels of video, and vaectl has 3: RGB",
        ),
    ],
)
@pytest.mark.parametrize("weights", [WEIGHTS, "model-00001-of-00002.safetensors"])
def test_another_model_is_named_with_what_to_give(tmp_path, values, said, weights):
    part = config(tmp_path / "part", **values)
    save_file({"blocks.0.weight": torch.zeros(1)}, part / weights)
    if "RGB" not in said or weights == WEIGHTS:
        assert f"{part}/config.json: {said}" in one_line(part) or said in one_line(part)
    if "vae/" in said:
        config(tmp_path / "vae", _class_name="AutoencoderKLWan")
        assert one_line(part).endswith(f"; give {tmp_path / 'vae'}")


def test_a_pipeline_without_a_video_vae(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    assert one_line(tmp_path) == f"{tmp_path}: holds a pipeline without its vae/; download that folder too"
    config(tmp_path / "vae", _class_name="AutoencoderKL")
    assert "vae/config.json: unknown _class_name 'AutoencoderKL', an image VAE" in one_line(tmp_path)


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {each: tensor for each, tensor in state.items() if each != name}


FILES: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "vae_fp8.safetensors": (
        lambda state: {name: tensor.to(torch.float8_e4m3fn) for name, tensor in state.items()},
        "tensors are float8_e4m3fn: encoder.conv_in.weight",
    ),
    "vae_int8.pth": (lambda state: {name: tensor.char() for name, tensor in state.items()}, "tensors are int8"),
    "Wan2.1_VAE.pth": (
        without("encoder.head.2.bias"),
        "is not a whole AutoencoderKLWan: 1 missing: encoder.conv_out.bias",
    ),
    "qwen_image_layered_vae.safetensors": (
        lambda state: state | {"encoder.conv1.weight": torch.zeros(8, 4, 3, 3, 3)},
        "the network takes 4 channels of video, and vaectl has 3: RGB",
    ),
    "no_width_vae.pth": (lambda state: state | {"encoder.conv1.weight": torch.zeros(0, 3, 3, 3, 3)}, "base_dim: "),
    "no_blocks_vae.pth": (
        lambda state: {name: tensor for name, tensor in state.items() if "residual.6" not in name},
        "holds no config.json for no_blocks_vae.pth, and its names are not those of Wan or Qwen-Image",
    ),
    "deep_vae.pth": (
        lambda state: state | {f"decoder.upsamples.{'9' * 5000}.resample.1.weight": torch.zeros(1)},
        "1 unexpected",
    ),
    "text_encoder.safetensors": (
        lambda state: {"shared.weight": torch.zeros(1)},
        "holds no config.json for text_encoder",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_vae_of_wan(tmp_path, oracles, name):
    change, said = FILES[name]
    state = change(original_names(oracles["2.1"].state_dict()))
    (torch.save if name.endswith(".pth") else save_file)(state, tmp_path / name)
    assert said in one_line(tmp_path / name)
    if "vae" in name.lower():
        assert said in one_line(tmp_path)


def test_gguf_is_refused_by_name(tmp_path):
    file = tmp_path / "wan_vae-Q8_0.gguf"
    file.write_bytes(b"GGUF\3\0\0\0" + bytes(100))
    assert "wan_vae-Q8_0.gguf: is a GGUF file, and vaectl reads no quantised weights; get the" in one_line(file)
    assert one_line(tmp_path).startswith(
        f"{tmp_path}: holds only GGUF files (wan_vae-Q8_0.gguf); get the weights in fl"
    )


def test_a_file_that_is_no_weights(tmp_path, oracles):
    (tmp_path / "clip.mp4").write_bytes(b"video")
    assert one_line(tmp_path / "clip.mp4").endswith(
        "clip.mp4: is no model; give a model directory, or a file of weights"
    )
    oracles["2.1"].save_config(tmp_path)
    assert "config.json: is no model; give a model directory" in one_line(tmp_path / "config.json")


def test_several_vaes_in_a_folder(tmp_path, oracles):
    save_file(original_names(oracles["2.1"].state_dict()), tmp_path / "wan_2.1_vae.safetensors")
    assert describe(tmp_path).compression == "2x4x4"
    save_file({"a": torch.zeros(1)}, tmp_path / "vae-ft-mse.safetensors")
    assert "holds several VAEs (vae-ft-mse.safetensors, wan_2.1_vae.safetensors); give the path of one" in one_line(
        tmp_path
    )
