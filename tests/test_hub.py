"""Models by their name on Hugging Face: only the files that are needed, the cache, and one line for every failure."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download

from tests.hub_server import running_hub
from tests.models.reference import load_reference, synthetic_model
from vaectl.cli.app import main
from vaectl.cli.derive import resolve
from vaectl.errors import UsageError, VaectlError
from vaectl.io import hub as fetching
from vaectl.io import hub_client
from vaectl.io.hub import commit_of, fetch
from vaectl.io.hub_client import MB, _bar
from vaectl.model_names import HubName, how_to_get, hub_name
from vaectl.models import load_model, save_model
from vaectl.models.build import read_config
from vaectl.models.checkpoint import locate, locate_config
from vaectl.options import ReconstructOptions
from vaectl.options.common import read_model
from vaectl.options.train import TrainOptions
from vaectl.progress import Silent
from vaectl.training.resume import recordable

NAME = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
FULL = f"{NAME}@main"
"""As records have it, because it stays a name where there is a folder Wan-AI."""
OTHER = "some/repository"
WEIGHTS = "diffusion_pytorch_model.safetensors"
BY_HAND = (
    f'download it: hf download {NAME} --include "vae/*" --local-dir Wan2.1-T2V-1.3B-Diffusers; then pass --model'
    " Wan2.1-T2V-1.3B-Diffusers/vae"
)


def config_of(class_name):
    return json.dumps({"_class_name": class_name}).encode()


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """The files of a model directory."""
    folder = tmp_path_factory.mktemp("model")
    save_model(synthetic_model(load_reference("wfvae_4x8x8").config), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(tmp_path, monkeypatch, vae):
    """A hub with a pipeline called NAME. The client knows it, and its cache is empty."""
    with running_hub() as server:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        for module in (constants, file_download):
            template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "*")
        set_offline(monkeypatch, False)
        new_process(monkeypatch)
        others = {f"vae/diffusion_pytorch_model{end}": b"0" for end in (".fp16.safetensors", ".bin", ".msgpack")}
        transformer = {"transformer/config.json": config_of("WanModel"), f"transformer/{WEIGHTS}": b"0"}
        files = {"model_index.json": b"{}", **transformer, **below("vae", vae), **others}
        server.repositories[NAME] = {"main": files}
        yield server


def below(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


def new_process(monkeypatch):
    """Forget what this process has fetched."""
    monkeypatch.setattr(fetching, "_fetched", {})


def set_offline(monkeypatch, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    if reset := getattr(huggingface_hub.utils, "reset_sessions", None):  # before version 1
        reset()


def fetched(name, note=lambda _: None):
    return fetch(hub_name(name), read_config, note, Silent())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a/b", HubName("a/b")),
        ("Wan-AI/Wan2.1-VAE_x", HubName("Wan-AI/Wan2.1-VAE_x")),
        ("a/b@v1", HubName("a/b", revision="v1")),
        ("a/b@refs/pr/3", HubName("a/b", revision="refs/pr/3")),
        ("a/b/c/d@v1.0", HubName("a/b", "c/d", "v1.0")),
        ("a/b/c d/e.pth", HubName("a/b", "c d/e.pth")),
        ("here/b@v1", HubName("here/b", revision="v1")),
        ("a/b.safetensors@v1", HubName("a/b.safetensors", revision="v1")),
        *(
            (path, None)
            for path in ("a", "/a/b", "./a/b", "../a/b", "~/a", "a/../b", "//a/b", "a/b@", "a/b@x@y", "here//b/")
        ),
        *((path, None) for path in ("a/b@../x", "a/b/../c", "a/b/.c", "a/.b", "here/b", "here/b/c", "a/b.safetensors")),
        *((path, None) for path in ("a/b@main/x.pth", "hf.co/a/b", "HuggingFace.co/a/b", "datasets/a/b", "spaces/a")),
        *((path, None) for path in ("here/is@main", "WF-VAE-L-16Chn/vae", "https://a/b", "ä/b", "a b/c", None)),
    ],
)
def test_what_is_a_name_on_the_hub_and_what_a_path(tmp_path, monkeypatch, text, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "is@main").mkdir(parents=True)
    assert hub_name(text) == name
    assert name is None or str(name) == text
    if name:
        assert hub_name(name.full) == name
    assert hub_name("here/b@main") == HubName("here/b")
    assert hub_name("a/b/") == hub_name("a//b") == HubName("a/b")
    assert hub_name("a/b//c/@v1") is None
    assert hub_name("a/b//c/") == HubName("a/b", "c")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("huggingface.co/a/b", "a/b"),
        ("hf.co/a/b/", "a/b"),
        ("www.HuggingFace.co/a/b@v1", "a/b@v1"),
        ("huggingface.co/a/b/tree/main/vae", "a/b/vae"),
        ("hf-mirror.com/a/b/blob/v1/c/x.pth", "a/b/c/x.pth@v1"),
        ("a/b@main/x.pth", "a/b/x.pth"),
        ("a/b@refs/pr/1/x.safetensors", "a/b/x.safetensors@refs/pr/1"),
        ("a/b@", "a/b"),
        ("a/b:vae", "a/b/vae"),
        (f"{NAME}@", NAME),
    ],
)
def test_a_slip_in_a_name_is_answered_with_the_name(tmp_path, monkeypatch, typed, meant):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        locate(typed)
    path = typed.rstrip("/")
    assert str(error.value) == f"{path}: no such file or directory; for the model on Hugging Face, give `model={meant}`"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://huggingface.co/a/b", "a/b"),
        ("http://hf.co/a/b/tree/v1/vae/", "a/b/vae@v1"),
        ("https://huggingface.co/a/b/resolve/main/x.pth?download=true", "a/b/x.pth"),
    ],
)
def test_the_address_of_a_page_is_answered_with_the_name(url, name):
    with pytest.raises(ValueError, match=f"for the model on Hugging Face, give `model={name}`$"):
        read_model(url)


@pytest.mark.parametrize("typed", ["datasets/a/b", "spaces/a/b", "huggingface.co/datasets/a/b"])
def test_a_data_set_is_no_model(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"data sets, spaces and buckets hold none$"):
        locate(typed)
    assert how_to_get(Path("C:/models/wan")) is how_to_get(Path("data/tree/a/b")) is None


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


INDEX = json.dumps({"weight_map": {"a": "a-1.safetensors", "b": "a-2.safetensors", "c": "a-1.safetensors"}}).encode()


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


def test_offline_a_cache_that_another_tool_has_filled_is_used(hub, monkeypatch, capsys):
    huggingface_hub.snapshot_download(NAME, allow_patterns=["vae/*", "model_index.json"])
    set_offline(monkeypatch, True)
    hub.requests.clear()
    capsys.readouterr()
    assert main(["models", NAME]) == 0
    assert capsys.readouterr().err == ""
    assert main(["models", f"{NAME}@v1"]) == 2
    assert capsys.readouterr().err == (
        f"error: {NAME}@v1: no such file or directory, and the cache of Hugging Face lacks it (HF_HUB_OFFLINE is set);"
        f" unset HF_HUB_OFFLINE, or {BY_HAND}\n".replace(" --local", " --revision v1 --local")
    )
    assert hub.requests == []


def test_a_cache_that_lacks_a_part_is_not_used(hub, monkeypatch, vae, capsys):
    hub.repositories[OTHER] = {"main": {"config.json": vae["config.json"], f"{WEIGHTS}.index.json": INDEX}}
    for part in ("a-1.safetensors", "a-2.safetensors"):
        hub.repositories[OTHER]["main"][part] = b"0" * int(part[2])
    fetched(OTHER)
    next((Path("cache") / "models--some--repository").glob("snapshots/*/a-2.safetensors")).unlink()
    new_process(monkeypatch)
    set_offline(monkeypatch, True)
    with pytest.raises(UsageError, match="the cache of Hugging Face lacks it"):
        fetched(OTHER)


def test_a_damaged_file_in_the_cache_is_downloaded_again(hub, monkeypatch, vae):
    for file in ("config.json", WEIGHTS):
        path = fetched(NAME) / file
        path.write_bytes(path.read_bytes()[: -len(vae[file]) // 2] if file == WEIGHTS else b"")
        new_process(monkeypatch)
        hub.requests.clear()
        assert (fetched(NAME) / file).read_bytes() == vae[file]
        assert hub.downloads == [f"vae/{file}"]


def test_a_damaged_cache_is_named(hub, monkeypatch):
    config = fetched(NAME) / "config.json"
    config.write_bytes(b"")
    new_process(monkeypatch)
    set_offline(monkeypatch, True)
    with pytest.raises(UsageError) as error:
        fetched(NAME)
    assert str(error.value).startswith(f"{NAME}: {config}: cannot be read as JSON")
    assert error.value.remedy == "delete this file, and load the model again"
    ref = config.parents[3] / "refs" / "main"
    ref.write_bytes(b"\xff")
    for offline in (True, False):
        set_offline(monkeypatch, offline)
        with pytest.raises(UsageError) as error:
            fetched(NAME)
        assert str(error.value).startswith(f"{NAME}: {ref}: cannot be read ('utf-8' codec can't decode byte")
        assert error.value.remedy == "delete it, or set HF_HOME to another folder"


HTML = b"<html>log in</html>"


@pytest.mark.parametrize(
    "content",
    [
        *(b"", HTML, b"null", b"[]", b'"x"', b"{}", b"5", b"[" * 200_000, b"\xff\xfe{", b'{"id": "a/b"}'),
        *(b'{"id": "a/b", "siblings": %s}' % part for part in (b"5", b"[{}]", b"[null]", b'[{"rfilename": 5}]')),
        b'{"id": "a/b", "siblings": [{"rfilename": "vae/config.json", "size": "x"}]}',
        *({"Location": "/api/models/a/b"}, {"Content-Encoding": "gzip"}),
    ],
)
def test_an_answer_that_is_no_list_of_files_is_one_line(hub, content):
    hub.listing = (HTML, content) if isinstance(content, dict) else (content, {})
    with pytest.raises(VaectlError) as error:
        fetched("a/b")
    host = hub.endpoint.removeprefix("http://")
    problem = f"a/b: no such file or directory, and {host} answered with something that is no list of files"
    assert error.value.problem == problem
    assert (error.value.exit_code, error.value.remedy[:30]) == (1, "check the path or the network,")


def test_an_answer_that_is_no_list_of_files_or_none_leaves_the_cache(hub, monkeypatch):
    path, notes = fetched(NAME), []
    monkeypatch.setattr(hub_client, "LIMIT", 0.3)
    for limit in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, limit, 0.3)
    for listing, pause in ((b"null", 0), (b" " * 100, 0.05)):
        new_process(monkeypatch)
        hub.listing, hub.pause = (listing, {}), pause
        assert fetched(NAME, notes.append) == path
    assert [note.partition(hub.endpoint[7:])[2].partition(";")[0] for note in notes] == [
        " answered with something that is no list of files",
        " cannot be reached (timed out)",
    ]


def test_no_message_has_the_password_of_the_endpoint_or_a_token(hub, monkeypatch):
    host = hub.endpoint.removeprefix("http://")
    monkeypatch.setattr(constants, "ENDPOINT", f"http://user:secret@{host}")
    hub.gated.add(NAME)
    said = []
    for name, status in ((NAME, None), ("a/b", None), ("a/b", 503), ("a/b", 403)):
        hub.status = status
        with pytest.raises(VaectlError) as error:
            fetched(name)
        said.append(str(error.value))
    for token in ("secret\x01", "secret\u00e9", "secret secret"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(UsageError, match=r"^a/b: HF_TOKEN has characters that no token has; log in") as error:
            fetched("a/b")
        said.append(str(error.value))
    assert "secret" not in "".join(said)
    assert f"accept them at http://{host}/{NAME}" in said[0]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(
            ("HF_ENDPOINT", value)
            for value in ("http://[bad", "http://a:99999", "garbage", "ftp://x", "", "http://a..b")
        ),
        ("HF_HUB_ETAG_TIMEOUT", "abc"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "1.5"),
    ],
)
def test_an_environment_variable_that_the_client_cannot_use_is_named(monkeypatch, variable, value):
    new_process(monkeypatch)
    for module in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError) as error:
        fetched(NAME)
    assert error.value.problem.startswith(f"{NAME}: ")
    assert f"{variable} " in error.value.problem
    assert "unset it" in error.value.remedy


@pytest.mark.parametrize(
    ("name", "change", "code", "said"),
    [
        ("no/such", None, 2, "no such file or directory, and {host} has no such repository; check the name; if it is"),
        (
            NAME,
            "gated",
            2,
            "{host} gives it only to users who have accepted its terms; accept them at http://{host}",
        ),
        (
            NAME,
            403,
            2,
            "{host} refuses access (status 403); check your access, and log in (hf auth login) or set HF_TOKEN",
        ),
        (
            NAME,
            503,
            1,
            "no such file or directory, and {host} answered with status 503; check the path or the network, or"
            f" {BY_HAND}",
        ),
        ("a/b--c", None, 2, "no such file or directory, and no name of a repository; check the path or the name"),
    ],
)
def test_every_failure_of_the_hub_is_one_line(hub, capsys, name, change, code, said):
    if change == "gated":
        hub.gated.add(NAME)
    else:
        hub.status = change
    assert main(["models", name]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {name}: {said.format(host=hub.endpoint.removeprefix('http://'))}")
    assert err.count("\n") == 1


def test_a_cache_that_cannot_be_written_is_named(hub, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["models", NAME]) == 1
    err = capsys.readouterr().err
    assert f"{tmp_path}/file" in err
    assert err.endswith(", with HF_HOME\n")
    assert err.count("\n") == 1


def test_without_the_package_the_line_that_downloads_is_the_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    new_process(monkeypatch)
    for module in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.setitem(sys.modules, module, None)
    for command in (
        ["models"],
        ["train", "--video-path", ".", "--model"],
        ["train", "--video-path", ".", "--model-config"],
    ):
        assert main([*command, NAME]) == 2
        assert capsys.readouterr().err == (
            f"error: {NAME}: no such file or directory; to load it from Hugging Face, run pip install"
            f" huggingface_hub; or elsewhere, {BY_HAND}\n"
        )
    for name, line in (
        (
            "chestnutlzj/WF-VAE-L-16Chn",
            "hf download chestnutlzj/WF-VAE-L-16Chn --local-dir WF-VAE-L-16Chn; then pass --model WF-VAE-L-16Chn\n",
        ),
        (
            "LanguageBind/Open-Sora-Plan-v1.5.0",
            'hf download LanguageBind/Open-Sora-Plan-v1.5.0 --include "*vae*"'
            " --local-dir Open-Sora-Plan-v1.5.0; then pass its folder with config.json as --model\n",
        ),
        (
            "Wan-AI/Wan2.1-T2V-1.3B",
            'hf download Wan-AI/Wan2.1-T2V-1.3B --include "*VAE.pth" --local-dir Wan2.1-T2V-1.3B; then pass --model'
            " Wan2.1-T2V-1.3B\n",
        ),
        (
            "a/b/c/x.pth",
            'hf download a/b "c/x.pth" --local-dir b; then pass --model b/c/x.pth\n',
        ),
    ):
        assert main(["models", name]) == 2
        assert capsys.readouterr().err.endswith(line)


def test_ctrl_c_leaves_no_half_model_and_the_next_run_continues(hub, vae, tmp_path, monkeypatch):
    """In a process of its own, where the client reads the environment."""
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
    run = [sys.executable, "-m", "vaectl", "models", NAME]
    process = subprocess.Popen(run, env=os.environ | settings, stderr=subprocess.PIPE, text=True)
    hub.halfway = lambda: (process.send_signal(signal.SIGINT), process.wait(60))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"note: downloading {NAME}/vae/{WEIGHTS}: 9 MB\nerror: interrupted\n"
    hub.halfway = None
    snapshot = next((tmp_path / "home" / "hub").glob("models--*/snapshots/*/vae"))
    assert [file.name for file in snapshot.iterdir()] == ["config.json"]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    assert main(["models", NAME]) == 0
    assert (snapshot / WEIGHTS).read_bytes() == vae[WEIGHTS]


def test_a_download_is_shown_by_our_own_bar(capsys):
    calls = []
    bar_class = _bar(lambda: calls.append("begin"), calls.append)
    with bar_class(total=5 * MB, initial=MB, unit="B", unit_scale=True, desc="file", disable=False) as bar:
        for size in (MB // 2, MB // 2, 3 * MB):
            bar.update(size)
        bar.update_transfer(7)
        bar.set_transfer_postfix_str("fast", refresh=False)
        bar.set_postfix_str("fast", refresh=False)
    assert calls == ["begin", 1, 0, 1, 3]
    assert capsys.readouterr() == ("", "")


def test_a_failure_without_progress_leaves_the_client_as_it_was(hub):
    before = (huggingface_hub.utils.logging.get_verbosity(), huggingface_hub.utils.are_progress_bars_disabled())
    with pytest.raises(VaectlError):
        fetched("no/such")
    after = (huggingface_hub.utils.logging.get_verbosity(), huggingface_hub.utils.are_progress_bars_disabled())
    assert after == before
