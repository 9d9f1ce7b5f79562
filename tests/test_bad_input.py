"""Bad input costs one line on stderr that names the file and a remedy, the right exit code, and nobody's data."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.jobs import files
from tests.video.media import encode
from vaectl.cli.app import main
from vaectl.model_names import WEIGHTS
from vaectl.models.checkpoint import BUILTIN

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "clip.mp4", 4, size=(32, 32))
    return tmp_path


@pytest.fixture
def refused(here, capfd) -> Callable[..., str]:
    """Run the command, which must fail with `code` and one line, and leave everything as it was; gives the line."""

    def check(code: int, *arguments: str) -> str:
        before = files(here)
        assert main(["reconstruct", *arguments]) == code
        out, err = capfd.readouterr()
        assert files(here) == before
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert "this is a bug" not in err
        return err

    return check


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def truncated(path: Path) -> None:
    """The index comes first, so that the file opens and its end is missing."""
    encode(path, 60, size=(64, 64), container_options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text.mp4": (lambda path: path.write_text("not a video\n" * 100), "is not a video that can be read"),
    "empty.mp4": (Path.touch, "is empty (0 bytes); get the file again"),
    "noise.mp4": (lambda path: path.write_bytes(os.urandom(5000)), "is not a video that can be read"),
    "text.png": (lambda path: path.write_text("not an image"), ""),
    "playlist.mp4": (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nclip.mp4\n"), "is not a video"),
    "sound.mp4": (sound_only, "holds only sound; a file with a video stream is needed"),
    "truncated.mp4": (truncated, "cut short"),
    "pipe.mp4": (os.mkfifo, "is not an ordinary file"),
    "loop.mp4": (lambda path: path.symlink_to(path.name), ""),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_whole_video(refused, here, name):
    make, said = BAD_FILES[name]
    make(here / name)
    if name == "pipe.mp4":  # a pipe has no content to compare
        assert main(["reconstruct", "--video-path", name, "--rec-path", "out.mp4"]) == 2
        return
    code = 2 if name == "loop.mp4" else 1
    line = refused(code, "--video-path", name, "--rec-path", "out.mp4", "--overwrite")
    assert name in line
    assert said in line


def test_the_whole_frames_of_a_truncated_file_can_be_had(here, capfd):
    truncated(here / "cut.mp4")
    assert main(["reconstruct", "--video-path", "cut.mp4", "--rec-path", "out.mp4", "--num-frames", "5"]) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--video-path nope.mp4 --rec-path out.mp4", "nope.mp4: no such file or folder; check the path"),
        ("--video-path empty --rec-path out", "empty: no videos or images in this folder"),
        ("--video-path clip.mp4/x.mp4 --rec-path out.mp4", "clip.mp4/x.mp4: no such file"),
        ("--video-path clip.mp4 --rec-path clip.mp4 --overwrite", "clip.mp4: is an input of this run"),
        ("--video-path clip.mp4 --rec-path there.mp4", "there.mp4: exists already; pass --overwrite"),
        ("--video-path clip.mp4 --rec-path out.xyz", "out.xyz: no encoder for .xyz; use .mp4, .mkv or .png"),
        ("--video-path clip.mp4 --rec-path out.avi", "out.avi: no encoder for .avi; use .mp4, .mkv or .png"),
        ("--video-path clip.mp4 --rec-path out.gif --lossless", "out.gif: .gif cannot be lossless"),
        ("--video-path clip.mp4 --rec-path out.png", "out.png: an image holds one frame, not 4"),
        ("--video-path clip.mp4 --rec-path there.mp4/out.mp4", "there.mp4/out.mp4: cannot write there"),
        ("--video-path clip.mp4 --rec-path out.mp4 --num-frames 0", "--num-frames: must be at least 1, not 0"),
        ("--video-path clip.mp4 --rec-path out.mp4 --height 5", "--height: must be at least 16, not 5"),
        ("--video-path clip.mp4 --rec-path out.mp4 --short-size 64 --width 64", "--short-size excludes"),
        ("--video-path clip.mp4 --rec-path out.mp4 --start 4", "clip.mp4 has 4 frames"),
        ("--video-path clip.mp4 --rec-path out.mp4 --config bad.toml", "bad.toml: unknown option num_frame;"),
        ("--video-path clip.mp4 --rec-path out.mp4 --model nope", "nope: no such file or directory"),
        ("--video-path clip.mp4 --rec-path out.mp4 --model empty", "empty: holds no config.json"),
        ("--video-path= --rec-path out.mp4", "--video-path: the path is empty"),
        ("--video-path clip.mp4 --rec-path=", "--rec-path: the path is empty"),
    ],
)
def test_a_request_that_cannot_work(refused, here, arguments, said):
    (here / "empty").mkdir()
    (here / "there.mp4").write_text("precious")
    (here / "bad.toml").write_text("num_frame = 3\n")
    assert said in refused(2, *arguments.split())


def test_a_gpu_that_is_not_there(refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refused(2, "--video-path", "clip.mp4", "--rec-path", "out.mp4", "--device", "cuda")
    assert "device cuda: PyTorch sees no CUDA GPU here; use --device cpu" in line


@pytest.mark.parametrize(
    "name", ["[red]clip[bold].mp4", "[x].mp4", "a b.mp4", "ü 日本.mp4", "-clip.mp4", "$HOME;#%s.mp4"]
)
def test_names_are_told_as_they_are(refused, here, name):
    (here / name).write_text("text")
    assert f"error: {name} is not a video" in refused(1, "--video-path", name, "--rec-path", "out.mp4")
    assert f"error: {name}: exists already" in refused(2, "--video-path", "clip.mp4", "--rec-path", name)


def test_a_name_that_is_no_text_is_told_too(refused):
    name = os.fsdecode(b"clip\xff.mp4")
    assert ".mp4: no such file" in refused(2, "--video-path", name, "--rec-path", "out.mp4")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_result_whose_name_is_no_text_is_shown(here, capfd, form):
    name = os.fsdecode(b"out\xff.mp4")
    assert main(["reconstruct", "--video-path", "clip.mp4", "--rec-path", name, *form]) == 0
    assert r"out\udcff.mp4" in capfd.readouterr().out
    assert (here / name).exists()


# Models


@pytest.fixture
def model(here) -> Path:
    """A copy of the built-in model, to be spoilt."""
    folder = here / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((BUILTIN / "config.json").read_bytes())
    (folder / f"{WEIGHTS}.safetensors").symlink_to(BUILTIN / f"{WEIGHTS}.safetensors")
    return folder


def change_weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Another tensor in place of the first with values."""
    file = folder / f"{WEIGHTS}.safetensors"
    state = load_file(file)
    name = sorted(state)[0]
    state[name] = change(state[name])
    file.unlink()
    save_file(state, file)


def change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


class Malice:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def malicious(folder: Path) -> None:
    (folder / f"{WEIGHTS}.safetensors").unlink()
    with (folder / f"{WEIGHTS}.bin").open("wb") as file:
        pickle.dump({"state_dict": Malice()}, file)


def malicious_zip(folder: Path) -> None:
    (folder / f"{WEIGHTS}.safetensors").unlink()
    torch.save({"weight": torch.zeros(1), "more": Malice()}, folder / f"{WEIGHTS}.bin")


def cut_weights(folder: Path) -> None:
    file = folder / f"{WEIGHTS}.safetensors"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])


BAD_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another shape": (lambda folder: change_weights(folder, lambda t: torch.zeros(*t.shape, 2)), "of another shape"),
    "NaN": (lambda folder: change_weights(folder, lambda t: t * float("nan")), "NaN or infinite values in 1 tensor"),
    "another width": (lambda folder: change_config(folder, base_channels=32), "does not fit the config.json"),
    "malicious pickle": (malicious, "refused"),
    "malicious checkpoint": (malicious_zip, "refused"),
    "half the weights": (cut_weights, "cannot be read as weights"),
    "unknown class": (lambda folder: change_config(folder, _class_name="HunyuanVAE"), "HunyuanVAE"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    "no weights": (lambda folder: (folder / f"{WEIGHTS}.safetensors").unlink(), "holds no weights"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fault", BAD_MODELS)
def test_a_model_that_cannot_be_used(refused, model, capfd, fault):
    spoil, said = BAD_MODELS[fault]
    spoil(model)
    arguments = ["--video-path", "clip.mp4", "--rec-path", "out.mp4", "--model", "model"]
    code = main(["reconstruct", *arguments])
    assert code in (1, 2)
    capfd.readouterr()
    line = refused(code, *arguments)
    assert said in line
    assert "model" in line


# What the machine does not allow


def test_the_disk_fails_while_reading(refused, monkeypatch):
    def fail(*_, **__):
        raise OSError(5, "Input/output error", "clip.mp4")

    monkeypatch.setattr("vaectl.reconstruction.plan.find_videos", fail)
    line = refused(2, "--video-path", "clip.mp4", "--rec-path", "out.mp4")
    assert "clip.mp4: Input/output error; check the path and its permissions" in line
