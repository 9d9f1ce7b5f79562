"""A hub on this machine, with a pipeline in it."""

import pytest
from huggingface_hub import constants, file_download

from tests.hub.server import running_hub
from tests.hub.tools import NAME, WEIGHTS, below, config_of, new_process, set_offline
from tests.models.reference import load_reference, synthetic_model
from vaectl.models import save_model


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
