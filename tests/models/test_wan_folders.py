"""Folders with Wan or Qwen-Image as people have them: links, caches, shards, and other files next to the VAE."""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models.wan import WEIGHTS, assert_same_numbers, config, one_line, original_names
from tests.models.wan import oracles as oracles  # a fixture
from vaectl.cli.app import main
from vaectl.errors import UsageError
from vaectl.inventory import describe
from vaectl.models import load_model
from vaectl.models.checkpoint import config_at, locate_config

pytestmark = pytest.mark.usefixtures("one_thread")

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 507591892\n"


@pytest.fixture
def folder(tmp_path, oracles) -> Path:
    """A directory of diffusers."""
    oracles["2.1"].save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


@pytest.mark.parametrize("kind", ["2.1", "Qwen"])
def test_an_original_file_has_the_class_and_the_statistics_of_the_config_next_to_it(tmp_path, oracles, kind):
    file = tmp_path / "a_vae.safetensors"
    save_file(original_names(oracles[kind].state_dict()), file)
    oracles[kind].save_config(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    config(tmp_path, **values | {"latents_mean": [0.5] * 16, "latents_std": [2.0] * 16})
    assert_same_numbers(load_model(file, device="cpu"), oracles[kind])
    for path in (file, tmp_path):
        facts = describe(path)
        assert (facts.family, facts.shift, facts.scale) == (
            {"2.1": "Wan", "Qwen": "QwenImage"}[kind],
            (0.5,) * 16,
            (0.5,) * 16,
        )
    config(tmp_path, _class_name="WanModel", dim=1536)  # of the transformer in the same repository
    assert describe(file).shift[0] == -0.7571


def test_an_original_file_next_to_the_config_of_another_network_is_refused(tmp_path, oracles):
    file = tmp_path / "Wan2.1_VAE.pth"
    torch.save(original_names(oracles["2.1"].state_dict()), file)
    oracles["2.2"].save_config(tmp_path)
    said = "does not fit the config.json next to it: it has is_residual False (not True), patch_size 1 (not 2)"
    assert said in one_line(file)
    assert said in one_line(tmp_path)


@pytest.mark.parametrize("target", ["../nowhere", None], ids=["broken", "loop"])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_broken_link_is_named(folder, name, target):
    (folder / name).unlink()
    (folder / name).symlink_to(target or name)
    assert f"{folder / name}: is a broken link to {target or name}; mend the link, or" in one_line(folder)
    assert ": is a broken link to " in one_line(folder / WEIGHTS)
    if name == "config.json":
        with pytest.raises(UsageError, match="is a broken link to"):
            locate_config(folder)


def test_a_broken_link_to_a_model_is_named(tmp_path):
    (tmp_path / "best").symlink_to("checkpoint-7")
    assert f"{tmp_path}/best: is a broken link to checkpoint-7; mend" in one_line(tmp_path / "best")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "Wan2.1_VAE.pth", "diffusion_pytorch_model.bin"])
def test_a_git_lfs_pointer_is_named(folder, name):
    if name != "config.json":
        (folder / WEIGHTS).unlink()
    (folder / name).write_text(POINTER)
    said = f"{folder / name}: is a Git LFS pointer, not the file; run git lfs pull in its repository"
    assert one_line(folder) == said
    if name == "Wan2.1_VAE.pth":
        (folder / "config.json").unlink()
        assert one_line(folder / name) == said


def test_a_folder_of_the_cache_of_hugging_face_is_answered_with_the_snapshot(tmp_path, folder):
    cache = tmp_path / "models--Wan-AI--Wan2.1"
    for commit in ("0a", "1b", "2c"):
        shutil.copytree(folder, cache / "snapshots" / commit / "vae")
        (cache / "snapshots" / commit / "model_index.json").write_text("{}")
    for name in ("refs", "blobs"):
        (cache / name).mkdir()
    (cache / "refs" / "main").write_text("1b")
    for part in (cache, cache / "snapshots", cache / "blobs", cache / "refs"):
        assert one_line(part).endswith(f"; it is in the cache of Hugging Face: give {cache}/snapshots/1b")
    assert describe(cache / "snapshots" / "1b").family == "Wan"
    (cache / "refs" / "main").unlink()
    assert one_line(cache).endswith(f"give {cache}/snapshots/0a")


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_load_by_their_index(tmp_path, oracles, variant):
    deepcopy(oracles["2.1"]).half().save_pretrained(tmp_path, variant=variant, max_shard_size="60KB")
    index = tmp_path / (f"{WEIGHTS}.index.{variant}.json" if variant else f"{WEIGHTS}.index.json")
    for path in (tmp_path, index):
        assert (describe(path).path, describe(path).dtype) == (str(index), "float16")
        assert load_model(path, device="cpu").config.base_dim == 8
    shard, other = sorted(tmp_path.glob("*-of-*"))[:2]
    assert one_line(shard) == f"{shard}: is one of several shards; give their index, {index}"
    whole = other.read_bytes()
    shutil.copy(shard, other)
    assert f"{index}: several of its shards hold " in one_line(index)
    other.write_bytes(whole)
    index.unlink()
    for path in (tmp_path, shard):
        assert one_line(path) == f"{shard}: is one of several shards; download their index too, {index.name}"


def test_weights_are_recognized_by_their_content(tmp_path, oracles):
    state = original_names(oracles["2.1"].state_dict())
    for name in ("a.pth", "b.SAFETENSORS", "c.sft", "d.bin"):
        save_file(state, tmp_path / name)
        assert_same_numbers(load_model(tmp_path / name, device="cpu"), oracles["2.1"])
    torch.save(state, tmp_path / "e.PTH")
    assert_same_numbers(load_model(tmp_path / "e.PTH", device="cpu"), oracles["2.1"])
    for zipped in (True, False):
        torch.save(state, tmp_path / "f.safetensors", _use_new_zipfile_serialization=zipped)
        assert one_line(tmp_path / "f.safetensors").endswith("is a pickle, not a safetensors file; rename it to f.pth")
    (tmp_path / "vae").mkdir()
    (tmp_path / "b.SAFETENSORS").rename(tmp_path / "vae" / "Wan_VAE.SAFETENSORS")
    assert describe(tmp_path / "vae").family == "Wan"


def test_two_entries_are_never_one_tensor(tmp_path, oracles):
    state = oracles["2.1"].state_dict()
    both = {f"_orig_mod.{name}": tensor for name, tensor in state.items()} | {"decoder.conv_in.bias": torch.zeros(16)}
    save_file(both, tmp_path / WEIGHTS)
    oracles["2.1"].save_config(tmp_path)
    assert "does not fit the config.json next to it" in one_line(tmp_path)


@pytest.mark.parametrize("part", ["scheduler", "tokenizer"])
def test_another_part_of_a_pipeline_is_answered_with_the_vae(folder, part):
    config_file = config(folder.parent / part) / "config.json"
    config_file.rename(config_file.with_name(f"{part}_config.json"))
    assert one_line(folder.parent / part).endswith(f"so it is not a model directory; give {folder}")


def test_weights_that_diverged_have_a_remedy(folder, oracles):
    state = oracles["2.1"].state_dict()
    save_file(state | {"decoder.conv_in.bias": state["decoder.conv_in.bias"] * float("nan")}, folder / WEIGHTS)
    with pytest.raises(Exception, match=r"in 1 tensor: decoder\.conv_in\.bias; use an earlier checkpoint, or download"):
        load_model(folder, device="cpu")


def test_the_config_of_weights_without_one(tmp_path, oracles, folder):
    repository = config(tmp_path / "repository", _class_name="WanModel")
    file = repository / "Wan2.2_VAE.pth"
    torch.save(original_names(oracles["2.2"].state_dict()), file)
    assert locate_config(file) == locate_config(repository) == file
    assert config_at(file).network == load_model(file, device="cpu").config.network
    assert config_at(locate_config(folder)) == load_model(folder, device="cpu").config
    file.unlink()
    with pytest.raises(UsageError) as error:
        locate_config(repository)
    assert str(error.value) == one_line(repository)


@pytest.mark.parametrize(("name", "said"), [(" ", "error: ' ': no such"), ("x" * 1200, "…: cannot be opened (File na")])
def test_an_odd_path_is_shown_briefly(capsys, name, said):
    assert main(["models", name]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error) < 500
