"""URLs where a path is expected."""

from inspect import unwrap

import pytest
import torch

import vaectl
from vaectl import load_model
from vaectl.cli.app import COMMANDS, main
from vaectl.errors import UsageError
from vaectl.options import options_of
from vaectl.options.common import read_model, read_output_path, read_path, read_paths
from vaectl.options.reconstruct import read_target
from vaectl.urls import how_to_fetch, scheme_of
from vaectl.video.probe import probe

FRAME = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)

HUB = 'download it first: hf download a/b --include "vae/*" --local-dir b'
PATHS = [
    (function.__name__.replace("_", "-"), field, option)
    for function, model, _ in COMMANDS
    for field, option in options_of(model()).items()
    if option.metavar in ("PATH", "FILE") and field != "resume_from_checkpoint"
]


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("https://x.org/a.mp4", "download it first: curl -LO https://x.org/a.mp4"),
        ("HTTP://x.org/a.mp4?b=1&c", "download it first: curl -LO 'HTTP://x.org/a.mp4?b=1&c'"),
        ("s3://bucket/a b.mp4", "download it first: aws s3 cp 's3://bucket/a b.mp4' ."),
        ("gs://bucket/a.mp4", "download it first: gcloud storage cp gs://bucket/a.mp4 ."),
        ("rtsp://camera/1", "download it first"),
        ("file:///a.mp4", "give the path of the file"),
        ("hf://a/b", "download it first: hf download a/b --local-dir b"),
        ("hf://a/b/vae", HUB),
        ("https://huggingface.co/a/b", "download it first: hf download a/b --local-dir b"),
        ("https://huggingface.co/a/b/tree/main/vae", HUB),
        ("https://hf.co/a/b/tree/main/", "download it first: hf download a/b --local-dir b"),
        (
            "https://huggingface.co/a/b/resolve/main/vae/x.safetensors?download=true",
            "download it first: hf download a/b vae/x.safetensors --local-dir b",
        ),
        ("https://huggingface.co/datasets/a/b", "download it first"),
        (
            "https://hf-mirror.com/a/b",
            "download it first: HF_ENDPOINT=https://hf-mirror.com hf download a/b --local-dir b",
        ),
    ],
)
def test_a_url_is_answered_with_the_command_that_downloads_it(url, remedy):
    assert scheme_of(url) == url.partition(":")[0].lower()
    assert how_to_fetch(url) == remedy


@pytest.mark.parametrize("path", ["a.mp4", "/a/b", "./http://x", "a:b", "c:/x", "~/a://b", "://x", ""])
def test_a_path_is_no_url(path):
    assert scheme_of(path) is None


@pytest.mark.parametrize(("command", "field", "option"), PATHS)
def test_every_option_that_takes_a_path_names_a_url(capsys, command, field, option):
    assert unwrap(option.read) in (read_path, read_paths, read_output_path, read_target, read_model)
    name = [] if option.positional else [f"--{field}"]
    assert main([command, *name, "https://x.org/y"]) == 2
    kind = "writes" if option.read in (read_output_path, read_target) else "reads"
    err = capsys.readouterr().err
    assert f"https://x.org/y is a URL, and vaectl {kind} local files; " in err
    assert err.count("\n") == 1


def test_a_url_of_a_checkpoint_or_a_model_is_named(capsys):
    assert main(["train", "--resume-from-checkpoint", "https://x.org/y"]) == 2
    assert "https://x.org/y: is a URL, and vaectl reads local files; download it" in capsys.readouterr().err
    with pytest.raises(UsageError, match="hf download a/b --local-dir b"):
        load_model("https://huggingface.co/a/b")


@pytest.mark.parametrize(
    "call",
    [
        vaectl.read_video,
        vaectl.VideoReader,
        probe,
        lambda url: vaectl.write_video("a.mkv", FRAME, 25, audio_from=url),
        lambda url: vaectl.evaluate(url, "a.mp4"),
    ],
)
def test_a_url_to_read_in_python_is_named(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"https://x\.org/y\.mp4:? is a URL, and vaectl reads local files; download it"
    ):
        call("https://x.org/y.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        lambda url: vaectl.write_video(url, FRAME, 25),
        lambda url: vaectl.VideoWriter(url, width=8, height=8, frame_rate=25),
        lambda url: vaectl.save_model(load_model(device="cpu"), url),
    ],
)
def test_a_url_to_write_in_python_is_named(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"https://x\.org/y\.mp4: is a URL, and vaectl writes local files; give a path"
    ):
        call("https://x.org/y.mp4")
    assert not list(tmp_path.iterdir())
