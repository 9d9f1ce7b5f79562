"""Recipes: the published hyper-parameters and models, under their names."""

import subprocess
import sys

import pytest
import torch

from tests.models.reference import load_reference
from vaectl.errors import UsageError
from vaectl.models import build_model
from vaectl.options import parse
from vaectl.options.train import RECIPES, TrainOptions
from vaectl.training.recipes import FOLDER, list_recipes, model_config, read_recipe
from vaectl.training.resume import underlying

# Millions of parameters: published of WF-VAE (rounded down) and of OD-VAE.
PARAMETERS = {"wfvae-s": 146, "wfvae-m": 223, "wfvae-l": 316, "od-vae": 239, "tiny": 5}


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_options_of_train_and_says_what_it_is(name):
    options = parse(TrainOptions, {"video_path": ["clips"], **read_recipe(name)})
    assert options.model_config is None or options.model_config.is_file()
    assert len(list_recipes()[name]) > 30


@pytest.mark.parametrize("name", PARAMETERS)
def test_models_have_the_published_size(name):
    with torch.device("meta"):
        model = build_model(model_config(name))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count // 1_000_000 == PARAMETERS[name]
    assert (read_recipe(name)["num_frames"] - 1) % model.config.time_compression == 0


def test_models_are_laid_out_as_the_published_ones():
    """But for their width, and the number of latent channels."""
    free = {"base_channels", "latent_dim", "encoder_energy_flow_hidden_size", "decoder_energy_flow_hidden_size"}
    published = {key: value for key, value in load_reference("wfvae_4x8x8").config.items() if key not in free}
    for name in ("wfvae-s", "wfvae-m", "wfvae-l", "tiny"):
        assert published.items() <= model_config(name).to_json().items()
    assert model_config("od-vae").to_json() == {**load_reference("causalvae_v1_2").config, "hidden_size": 128}


def test_the_stages_are_the_published_schedule():
    stages = [read_recipe(f"stage{i}") for i in (1, 2, 3)]
    assert [stage["num_frames"] for stage in stages] == [25, 49, 49]
    assert [stage["sample_rate"] for stage in stages] == [1, 2, 2]
    assert [stage["max_steps"] for stage in stages] == [800_000, 200_000, 200_000]
    assert [stage["perceptual_weight"] for stage in stages] == [1.0, 1.0, 0.1]
    assert all(stage["batch_size"] == 8 and stage["resolution"] == 256 for stage in stages)
    assert not any("model_config" in stage for stage in stages)
    assert read_recipe("wfvae-l") == {**stages[0], "model_config": str(FOLDER / "wfvae-l.json")}
    assert model_config("stage2") is None


@pytest.mark.parametrize("name", ["wfvae-xl", "", "../recipes/tiny", "tiny.toml"])
def test_an_unknown_recipe_is_answered_with_the_known_ones(name):
    with pytest.raises(UsageError, match=r"no recipe is called .*; choose from finetune-decoder, od-vae, .*wfvae-s$"):
        read_recipe(name)


def test_recipes_are_read_without_torch():
    code = (
        "import sys; from vaectl.training import recipes;"
        "[recipes.read_recipe(name) for name in recipes.list_recipes()]; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_line_offers_every_recipe():
    assert set(RECIPES) == set(list_recipes())


def test_a_recipe_that_starts_a_new_model_is_also_taken_with_a_trained_one():
    assert underlying({"recipe": "tiny"})["init"] == "pca"
    start = {"init", "model_config"}
    assert start <= underlying({"recipe": "tiny"}).keys()
    assert not start & underlying({"recipe": "tiny", "model": "results/vae/best"}).keys()
    fitted = {"recipe": "tiny", "model": "results/vae/best", "ignore_mismatched_sizes": True}
    assert start & underlying(fitted).keys() == {"model_config"}
