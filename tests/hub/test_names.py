"""What is a name on Hugging Face, what is a path, and what a slip is answered with."""

from pathlib import Path

import pytest

from tests.hub.tools import NAME
from vaectl.errors import UsageError
from vaectl.model_names import HubName, how_to_get, hub_name
from vaectl.models.checkpoint import locate
from vaectl.options.common import read_model


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
