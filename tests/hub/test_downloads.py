"""Of a model on Hugging Face only the needed files are downloaded, and records have its name and commit."""

import json
from pathlib import Path

import pytest

from tests.hub.tools import FULL, INDEX, NAME, OTHER, WEIGHTS, config_of, fetched, new_process, set_offline
from vaectl.cli.app import main
from vaectl.cli.derive import resolve
from vaectl.errors import UsageError
from vaectl.io.hub import commit_of
from vaectl.models import load_model
from vaectl.models.build import read_config
from vaectl.models.checkpoint import locate, locate_config
from vaectl.options import ReconstructOptions
from vaectl.options.train import TrainOptions
from vaectl.progress import Silent
from vaectl.training.resume import recordable


def test_of_a_pipeline_only_the_vae_is_downloaded_and_a_second_run_takes_it_from_the_cache(hub, capsys, monkeypatch):
    assert main(["models", NAME, "--json"]) == 0
    out, err = capsys.readouterr()
    commit = hub.commits(NAME)["main"]
    assert json.loads(out)["commit"] == commit
    assert f"/{commit}/vae/{WEIGHTS}" in json.loads(out)["path"]
    assert err == f"note: downloading {NAME}/vae/{WEIGHTS}: 9 MB\n"
    config, weights = f"{NAME}/vae/config.json", f"{NAME}/vae/{WEIGHTS}"
    assert hub.requests == [f"GET {NAME}", f"HEAD {config}", f"GET {config}", f"HEAD {weights}", f"GET {weights}"]

    new_process(monkeypatch)
    hub.requests.clear()
    assert main(["models", NAME]) == 0
    assert ["commit", commit] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert hub.requests == [f"GET {NAME}", f"HEAD {config}"]

    new_process(monkeypatch)
    hub.shutdown()
    hub.server_close()
    assert main(["models", NAME]) == 0
    host = hub.endpoint.removeprefix("http://")
    assert capsys.readouterr().err == (
        f"note: {NAME}: {host} cannot be reached (Connection refused); the copy in the cache is used, commit"
        f" {commit[:8]}\n"
    )
    assert main(["models", OTHER]) == 1
    assert capsys.readouterr().err == (
        f"error: {OTHER}: no such file or directory, and {host} cannot be reached (Connection refused); check the path"
        f' or the network, or download it: hf download {OTHER} --include "vae/*" --local-dir repository; then pass'
        " --model repository/vae\n"
    )


def test_a_model_loads_in_python_and_the_process_keeps_its_commit(hub, vae):
    model, commit = load_model(NAME), hub.commits(NAME)["main"]
    hub.repositories[NAME]["main"]["README.md"] = b"new"
    hub.requests.clear()
    assert locate(NAME) == (fetched(NAME), fetched(NAME) / WEIGHTS)
    assert (hub.requests, commit_of(NAME), commit_of(OTHER)) == ([], commit, None)
    assert model.config == read_config(fetched(NAME) / "config.json")


def test_a_revision_is_a_branch_a_tag_or_a_commit_and_a_commit_needs_no_network(hub, vae, monkeypatch, capsys):
    hub.repositories[NAME]["v1"] = hub.repositories[NAME]["main"] | {"README.md": b"v1"}
    commits = hub.commits(NAME)
    assert fetched(f"{NAME}@v1").parent.name == commits["v1"] != commits["main"]
    hub.requests.clear()
    new_process(monkeypatch)
    assert fetched(f"{NAME}@{commits['v1']}").parent.name == commits["v1"]
    assert hub.requests == []
    assert fetched(f"{NAME}@{commits['main']}").parent.name == commits["main"]
    assert hub.downloads == []  # the same files
    assert main(["models", f"{NAME}@v2"]) == 2
    assert "has no revision v2 of it; give a branch, a tag or a commit\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "inside", "downloads"),
    [
        ({"config.json": None, WEIGHTS: b"0", "model.safetensors": b"0"}, "", ["config.json", WEIGHTS]),
        ({"vae/config.json": None, "vae/a.ckpt": b"0", f"vae/{WEIGHTS}": b"0"}, "", ["vae/config.json", "vae/a.ckpt"]),
        (
            {"config.json": None, f"{WEIGHTS}.index.json": INDEX, "a-1.safetensors": b"1", "a-2.safetensors": b"2"},
            "",
            ["config.json", f"{WEIGHTS}.index.json", "a-1.safetensors", "a-2.safetensors"],
        ),
        (
            {"vae/config.json": None, "vae/diffusion_pytorch_model.bin": b"0", "vae/x.safetensors": b"0"},
            "",
            ["vae/config.json", "vae/diffusion_pytorch_model.bin"],
        ),
        ({"a/b/config.json": None, f"a/b/{WEIGHTS}": b"0"}, "/a/b", ["a/b/config.json", f"a/b/{WEIGHTS}"]),
        ({"a/vae/config.json": None, f"a/vae/{WEIGHTS}": b"0"}, "/a", ["a/vae/config.json", f"a/vae/{WEIGHTS}"]),
        (
            {"config.json": None, WEIGHTS: b"0", "x.fp16.safetensors": b"0"},
            "/x.fp16.safetensors",
            ["config.json", "x.fp16.safetensors"],
        ),
        ({"a/x.pth": b"0", "config.json": None}, "/a/x.pth", ["a/x.pth"]),
        (
            {"config.json": config_of("WanModel"), WEIGHTS: b"0", "t5.pth": b"0", "Wan2.1_VAE.pth": b"0"},
            "",
            ["Wan2.1_VAE.pth"],
        ),
        ({"config.json": config_of("WanModel"), "Wan2.2_VAE.pth": b"0"}, "/Wan2.2_VAE.pth", ["Wan2.2_VAE.pth"]),
    ],
)
def test_of_every_layout_only_what_is_needed_is_downloaded(hub, vae, layout, inside, downloads, monkeypatch):
    files = {name: vae["config.json"] if content is None else content for name, content in layout.items()}
    hub.repositories[OTHER] = {"main": {"README.md": b"", **files}}
    path = fetched(f"{OTHER}{inside}")
    assert hub.downloads == downloads
    whole = not inside.endswith(("pth", "safetensors")) and downloads[-1] != "Wan2.1_VAE.pth"
    assert path.name == (path.name if whole else downloads[-1].rpartition("/")[2])
    assert (path / "config.json").is_file() == whole
    new_process(monkeypatch)
    set_offline(monkeypatch, True)
    hub.requests.clear()
    assert (fetched(f"{OTHER}{inside}"), hub.requests) == (path, [])


@pytest.mark.parametrize(
    ("layout", "inside", "said"),
    [
        (
            {"transformer/config.json": b"{}", "text_encoder/config.json": b"{}", "big.safetensors": b"0"},
            "",
            f"{OTHER}: the repository has no model that vaectl reads (big.safetensors, text_encoder, transformer); name"
            f" one, as in `model={OTHER}/big.safetensors`",
        ),
        ({"README.md": b"0"}, "", f"{OTHER}: the repository has no model that vaectl reads; check the name"),
        (
            {"a/config.json": b"{}", "scheduler/x.json": b"{}"},
            "/scheduler",
            f"{OTHER}/scheduler: the repository has no model that vaectl reads in scheduler (a); name one, as in"
            f" `model={OTHER}/a`",
        ),
        (
            {"transformer/config.json": b"{}", "unet/config.json": b"{}"},
            "/nope",
            f"{OTHER}/nope: the repository has no model that vaectl reads in nope (transformer, unet); check the name",
        ),
        (
            {"a/config.json": b"{}", "vae/config.json": b"{}", "text_encoder/config.json": b"{}", "t5.pth": b"0"},
            "/nope",
            f"{OTHER}/nope: the repository has no model that vaectl reads in nope (vae, a, t5.pth, text_encoder); name"
            f" one, as in `model={OTHER}/vae`",
        ),
        (
            {"b.pth": b"0"},
            "/a.pth",
            f"{OTHER}/a.pth: the repository has no a.pth (b.pth); name one, as in `model={OTHER}/b.pth`",
        ),
        (
            {"vae/config.json": None, "vae/x.fp16.safetensors": b"0"},
            "@main",
            f"{OTHER}: its folder vae has no {WEIGHTS} or .bin, sharded or not (vae/x.fp16.safetensors); name one,"
            f" as in `model={OTHER}/vae/x.fp16.safetensors`",
        ),
        (
            {"config.json": None, "b.ckpt": b"0", "a.ckpt": b"0"},
            "",
            f"{OTHER}: its folder . has several checkpoints (a.ckpt, b.ckpt); name one, as in `model={OTHER}/a.ckpt`",
        ),
        (
            {"config.json": None, f"{WEIGHTS}.index.json": b'{"weight_map": {"a": "../../x.safetensors"}}'},
            "",
            f"{OTHER}: the repository lacks ../../x.safetensors, which its index lists; use another one",
        ),
    ],
)
def test_a_repository_without_a_model_is_answered_with_what_it_has(hub, vae, layout, inside, said):
    files = {name: vae["config.json"] if content is None else content for name, content in layout.items()}
    hub.repositories[OTHER] = {"main": files}
    with pytest.raises(UsageError) as error:
        fetched(f"{OTHER}{inside}")
    assert str(error.value) == said
    assert not any(file.endswith((".safetensors", ".pth", ".ckpt")) for file in hub.downloads)


def test_weights_are_not_downloaded_before_the_config_is_known_to_work(hub, capsys, monkeypatch):
    hub.repositories[OTHER] = {"main": {"vae/config.json": config_of("AutoencoderKL"), f"vae/{WEIGHTS}": b"0"}}
    assert main(["models", OTHER]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {OTHER}: {Path('cache').absolute()}")
    assert "vae/config.json: unknown _class_name 'AutoencoderKL', an image VAE" in err
    assert hub.downloads == ["vae/config.json"]
    for offline in (True, False):  # or the hub is out of order
        set_offline(monkeypatch, offline)
        hub.status = 503
        assert main(["models", OTHER]) == 2
        assert capsys.readouterr().err == err


def test_another_part_of_a_pipeline_is_answered_with_the_name_of_its_vae(hub):
    with pytest.raises(UsageError) as error:
        fetched(f"{NAME}/transformer@main")
    assert str(error.value).startswith(f"{NAME}/transformer: ")
    assert error.value.remedy == f"give `model={NAME}/vae`"
    hub.repositories[OTHER] = {"main": {"vae/config.json": config_of("AutoencoderKL")}}
    with pytest.raises(UsageError, match="an image VAE; vaectl reads"):
        fetched(f"{OTHER}/vae")


def test_the_commands_record_the_name_and_the_commit_and_run_again_from_their_records(hub, samples, capsys, one_thread):
    commit, clip = hub.commits(NAME)["main"], str(samples / "carphone_pristine.mp4")
    small = ["--num-frames", "5", "--device", "cpu"]
    rec = ["reconstruct", clip, "rec.mp4", *small, "--short-size", "64", "--model", NAME]
    assert main([*rec, "--json"]) == 0
    record = json.loads(Path("rec.mp4.vaectl.json").read_text())
    for found in (json.loads(capsys.readouterr().out), record):
        assert (found["model"], found["commit"]) == (FULL, commit)
    assert record["options"]["model"] == FULL
    Path("Wan-AI").mkdir()
    Path("run.json").write_text(json.dumps(record))
    assert main(["reconstruct", "--config", "run.json", "--overwrite"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"] == commit
    Path("Wan-AI").rmdir()

    small += ["--resolution", "64", "--crop-size", "64"]
    prepare = ["prepare-eval", "--real-video-dir", clip, "--generated-video-dir", "out", *small, "--ckpt", NAME]
    assert main(prepare) == 0
    assert main(prepare) == 0  # nothing differs
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert (manifest["model"]["path"], manifest["model"]["commit"]) == (FULL, commit)
    two = ["eval", "--real-video-dir", clip, "--generated-video-dir", "out", "--metric", "psnr", "--json"]
    one = ["eval", "--real-video-dir", clip, "--model", NAME, "--metric", "psnr", "--json", *small]
    results = []
    for arguments in (two, one):
        capsys.readouterr()
        assert main(arguments) == 0
        results.append(json.loads(capsys.readouterr().out))
        model = results[-1]["protocol"]["model"]
        assert (model["path"], model["commit"]) == (FULL, commit)
    assert results[0]["clips"][0]["values"] == results[1]["clips"][0]["values"]
    assert hub.downloads == ["vae/config.json", f"vae/{WEIGHTS}"]


def test_training_records_the_name_and_needs_only_the_config_of_a_new_model(hub, monkeypatch):
    options = resolve(TrainOptions, {"video_path": ["v"], "model_config": f"{NAME}@main", "model": NAME})
    assert (recordable(options)["model"], recordable(options)["model_config"]) == (FULL, FULL)
    assert read_config(locate_config(options.model_config, Silent())).latent_channels == 4
    assert hub.downloads == ["vae/config.json"]
    path = resolve(ReconstructOptions, {"video_path": ["v"], "rec_path": "x", "model": "./a/b"}).model
    assert path == Path.cwd() / "a" / "b"


def test_a_resumed_training_keeps_the_commit_that_it_started_from(hub, samples, monkeypatch, one_thread):
    commit, clip = hub.commits(NAME)["main"], str(samples / "carphone_pristine.mp4")
    off = ["--perceptual-weight", "0", "--disc-weight", "0", "--num-workers", "0", "--device", "cpu"]
    small = ["--num-frames", "5", "--resolution", "16"]
    assert main(["train", "--video-path", clip, "--model", NAME, "--max-steps", "1", *small, *off]) == 0
    new_process(monkeypatch)
    hub.requests.clear()
    Path("Wan-AI").mkdir()
    assert main(["train", "--resume-from-checkpoint", "latest", "--max-steps", "2"]) == 0
    for checkpoint in ("checkpoint-00000001", "latest"):
        facts = json.loads(Path("results/vae", checkpoint, "training.json").read_text())
        assert (facts["commit"], facts["options"]["model"]) == (commit, FULL)
    assert (facts["step"], hub.requests) == (2, [])
