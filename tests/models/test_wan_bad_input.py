"""Configs of Wan as published, with unknown keys, and what is no VAE of Wan: one line each."""

import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.wan import KINDS, SMALL, WEIGHTS, assert_same_numbers, config, one_line, original_names
from tests.models.wan import oracles as oracles  # a fixture
from vaectl.cli.app import main
from vaectl.errors import UsageError
from vaectl.inventory import describe
from vaectl.models import load_model, save_model
from vaectl.models.build import read_config
from vaectl.options.train import TrainOptions
from vaectl.progress import Silent
from vaectl.training.setup import model_of

pytestmark = pytest.mark.usefixtures("one_thread")

WAN_22 = json.loads(
    '{"_class_name": "AutoencoderKLWan", "_diffusers_version": "0.35.0.dev0", "attn_scales": [], "base_dim": 160,'
    ' "clip_output": false, "decoder_base_dim": 256, "dim_mult": [1, 2, 4, 4], "dropout": 0.0, "in_channels": 12,'
    ' "is_residual": true, "num_res_blocks": 2, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16,'
    ' "scale_factor_temporal": 4, "temperal_downsample": [false, true, true], "z_dim": 48}'
) | {"latents_mean": [0.25] * 48, "latents_std": [0.5] * 48}


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


def test_a_misspelt_key_of_a_new_model_is_a_warning(tmp_path):
    class Heard(Silent):
        warnings: ClassVar[list[str]] = []

        def warn(self, message: str) -> None:
            self.warnings.append(message)

    config(tmp_path, _class_name="AutoencoderKLWan", **SMALL, temporal_downsample=[True, True])
    model_of(TrainOptions(video_path=["v"], device="cpu", num_frames=5, model_config=tmp_path), None, Heard())
    key = "'temporal_downsample' (did you mean 'temperal_downsample'?)"
    assert Heard.warnings == [f"{tmp_path}/config.json: unknown keys have no effect: {key}"]


@pytest.mark.parametrize("value", [json.loads("[" * 300 + "]" * 300), float("nan")])
def test_a_value_that_cannot_be_written_again_is_refused(tmp_path, value):
    config(tmp_path, _class_name="AutoencoderKLWan", x=value)
    with pytest.raises(UsageError, match=r"config\.json: x: ") as error:
        read_config(tmp_path / "config.json")
    assert len(str(error.value)) < len(str(tmp_path)) + 200


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("latents_std", [std] * 16) for std in (0.0, -1.0, 1e-320)),
        *(("base_dim", value) for value in ("8", 8.0, True)),
        ("patch_size", True),
        ("dim_mult", ["1", 2, 2]),
        ("temperal_downsample", ["false", "true"]),
        ("is_residual", "no"),
    ],
)
def test_a_value_of_another_type_or_range_is_refused(tmp_path, key, value):
    config(tmp_path, _class_name="AutoencoderKLWan", **SMALL | {key: value})
    with pytest.raises(UsageError, match=rf"config\.json: {key}"):
        read_config(tmp_path / "config.json")


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


def test_damaged_weights_next_to_a_config_do_not_fit_it(tmp_path, oracles):
    oracles["2.1"].save_config(tmp_path)
    wide = torch.zeros(16, 3, 3, 3, 3)  # more channels than the first level
    save_file(oracles["2.1"].state_dict() | {"encoder.conv_in.weight": wide}, tmp_path / WEIGHTS)
    assert "does not fit the config.json next to it: it has base_dim 16 (not 8)" in one_line(tmp_path)


def test_weights_of_wan_do_not_fit_another_family(tmp_path, oracles):
    oracles["2.1"].save_pretrained(tmp_path)
    config(tmp_path, _class_name="WFVAEModel", base_channels=8, norm_type="layernorm")
    assert "it is an AutoencoderKLWan, and the config is of a WFVAEModel; get the config.json" in one_line(tmp_path)
    original = tmp_path / "Wan2.1_VAE.pth"
    torch.save(original_names(oracles["2.1"].state_dict()), original)
    assert "it is an AutoencoderKLWan, and the config is of a WFVAEModel; get the config.json" in one_line(original)


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
        *(
            (
                {"_class_name": f"AutoencoderKL{name}"},
                f"unknown _class_name 'AutoencoderKL{name}', another video VAE{OURS}",
            )
            for name in ("HunyuanVideo", "LTXVideo", "CogVideoX", "Mochi")
        ),
    ],
)
@pytest.mark.parametrize("weights", [WEIGHTS, "model-00001-of-00002.safetensors"])
def test_another_model_is_named_with_what_to_give(tmp_path, values, said, weights):
    part = config(tmp_path / "part", **values)
    save_file({"blocks.0.weight": torch.zeros(1)}, part / weights)
    assert f"{part}/config.json: {said}" in one_line(part)
    if "vae/" in said:
        config(tmp_path / "vae", _class_name="AutoencoderKLWan")
        assert one_line(part).endswith(f"; give {tmp_path / 'vae'}")


def test_a_model_with_transparency_is_refused(tmp_path):
    config(tmp_path, _class_name="AutoencoderKLQwenImage", input_channels=4)
    save_file({"a": torch.zeros(1)}, tmp_path / WEIGHTS)
    assert one_line(tmp_path).endswith("config.json: the network takes 4 channels of video, and vaectl has 3: RGB")


def test_a_pipeline_without_a_video_vae(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    assert one_line(tmp_path) == f"{tmp_path}: holds a pipeline without its vae/; download that folder too"
    config(tmp_path / "vae", _class_name="AutoencoderKL")
    assert "vae/config.json: unknown _class_name 'AutoencoderKL', an image VAE" in one_line(tmp_path)


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {each: tensor for each, tensor in state.items() if each != name}


LOST: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    "missing": lambda state, name: without(name)(state),
    "None": lambda state, name: state | {name: None},
    "scalar": lambda state, name: state | {name: torch.tensor(1.0)},
    "flat": lambda state, name: state | {name: state[name].flatten()},
}
FILES: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Any]], str]] = {
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
    "both_names_vae.pth": (
        lambda state: state | {"decoder.conv_in.weight": state["decoder.conv1.weight"] + 1},
        "is not a whole AutoencoderKLWan: 1 unexpected: decoder.conv1.weight",
    ),
    "no_value_vae.pth": (
        lambda state: state | {"decoder.head.2.bias": None, "epoch": 3},
        "checkpoint of a video VAE: these are no tensors: decoder.conv_out.bias, epoch",
    ),
    **{
        f"{what}_vae.pth": (
            lambda state, change=change: change(state, "decoder.conv1.weight"),
            "is not a whole AutoencoderKLWan: missing or of another shape: decoder.conv_in.weight; download it again",
        )
        for what, change in LOST.items()
    },
    "no_width_vae.pth": (lambda state: state | {"encoder.conv1.weight": torch.zeros(0, 3, 3, 3, 3)}, "base_dim: "),
    "no_blocks_vae.pth": (
        lambda state: {name: tensor for name, tensor in state.items() if "residual.6" not in name},
        "no_blocks_vae.pth: its folder holds no config.json, and its names are not those of Wan or Qwen-Image",
    ),
    "deep_vae.pth": (
        lambda state: state | {f"decoder.upsamples.{'9' * 5000}.resample.1.weight": torch.zeros(1)},
        "1 unexpected",
    ),
    "text_encoder.safetensors": (
        lambda state: {"shared.weight": torch.zeros(1)},
        "text_encoder.safetensors: its folder holds no config.json, and its names are",
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
