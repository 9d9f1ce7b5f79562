"""Checkpoints of Wan and Qwen-Image load in the layouts that people have, with the numbers of diffusers."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.models.oracle import diffusers_class
from tests.models.wan import KINDS, PUBLISHED_22, WEIGHTS, assert_same_numbers, config, one_line, original_names
from tests.models.wan import oracles as oracles  # a fixture
from vaectl.cli.app import main
from vaectl.errors import UsageError
from vaectl.inventory import describe
from vaectl.models import load_model, save_model
from vaectl.models.build import validated
from vaectl.models.checkpoint import locate_config
from vaectl.models.families.wan_config import AutoencoderKLWanConfig
from vaectl.models.families.wan_original import config_fields, diffusers_names
from vaectl.options.train import TrainOptions
from vaectl.progress import Silent
from vaectl.training.setup import model_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return str(request.param)


@pytest.fixture
def oracle(oracles, kind) -> Any:
    return oracles[kind]


@contextmanager
def log_of_diffusers() -> Iterator[list[str]]:
    """Collect what diffusers warns about."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("diffusers").addHandler(handler)
    yield lines
    logging.getLogger("diffusers").removeHandler(handler)


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
    assert (facts.path, facts.family, facts.weights, facts.step) == (str(file), "Wan", None, None)
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
    assert [" has no config.json of its own; " in note for note in notes] == ([False] if original else [True, False])


def test_the_vae_of_a_repository_is_found(tmp_path, oracles, capsys):
    repository = config(tmp_path / "Wan2.1-T2V", _class_name="WanModel", model_type="t2v", dim=1536)
    save_file({"blocks.0.modulation": torch.zeros(1)}, repository / WEIGHTS)
    torch.save({"token_embedding.weight": torch.zeros(1)}, repository / "models_t5_umt5-xxl-enc-bf16.pth")
    torch.save(original_names(oracles["2.1"].state_dict()), repository / "Wan2.1_VAE.pth")
    (repository / "config_of_something.json").write_text("[")
    assert_same_numbers(load_model(repository, device="cpu"), oracles["2.1"])
    assert_same_numbers(load_model(repository / "Wan2.1_VAE.pth", device="cpu"), oracles["2.1"])
    (repository / "config.json").write_text("[")  # may be the config of this file
    assert "config.json: cannot be read as JSON" in one_line(repository / "Wan2.1_VAE.pth")
    (repository / "config.json").unlink()

    pipeline = tmp_path / "Wan2.1-T2V-Diffusers"
    oracles["Qwen"].save_pretrained(pipeline / "vae")
    assert "holds no config.json, so it is not a model directory; did you mean" in one_line(pipeline)
    (pipeline / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    assert_same_numbers(load_model(pipeline, device="cpu"), oracles["Qwen"])
    assert main(["models", str(pipeline)]) == 0
    assert f"{pipeline}/vae/{WEIGHTS}" in capsys.readouterr().out
    assert locate_config(pipeline) == pipeline / "vae" / "config.json"
    save_model(load_model(repository / "Wan2.1_VAE.pth", device="cpu"), pipeline)  # what is saved is what loads
    assert describe(pipeline).path == f"{pipeline}/{WEIGHTS}"


def test_weights_of_diffusers_load_without_a_config_and_as_a_variant(tmp_path, oracles):
    deepcopy(oracles["2.1"]).half().save_pretrained(tmp_path, variant="fp16")
    variant = tmp_path / "diffusion_pytorch_model.fp16.safetensors"
    notes: list[str] = []
    model = load_model(tmp_path, device="cpu", note=notes.append)
    assert (notes, model.dtype, describe(tmp_path).dtype) == ([], torch.float32, "float16")
    (tmp_path / "config.json").unlink()
    again = load_model(tmp_path, device="cpu", note=notes.append)
    assert notes == [f"{variant}: has no config.json of its own; its names and shapes are those of an AutoencoderKLWan"]
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
