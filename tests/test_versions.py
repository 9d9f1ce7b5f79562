"""Versions in `vaectl --versions` and in records."""

import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import av
import pytest
import torch

from vaectl import versions
from vaectl.cli.app import main


def test_everything_that_runs_is_printed(capsys):
    assert main(["--versions"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {name: lines[name].split()[0] for name in ("vaectl", "NumPy", "PyAV", "LPIPS", "scikit-image", "SciPy")} == {
        "vaectl": version("vaectl"),
        "NumPy": version("numpy"),
        "PyAV": av.__version__,
        "LPIPS": version("lpips"),
        "scikit-image": version("scikit-image"),
        "SciPy": version("scipy"),
    }
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    assert lines["PyTorch"].startswith(f"{torch.__version__}, {build} build")
    assert lines["torchvision"] == version("torchvision")
    assert lines["Python"].startswith(sys.version.split()[0])
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    assert lines["FFmpeg"].startswith(av.ffmpeg_version_info)
    assert f"libavcodec {codec}" in lines["FFmpeg"]
    assert "logical cores" in lines["CPU"]
    assert platform.release() in lines["OS"]
    assert re.fullmatch(r"[\d.]+ GiB, [\d.]+ (GiB|MiB) available", lines["Memory"])
    assert "GPU" in lines or "GPU 0" in lines or torch.cuda.is_available()


@pytest.mark.parametrize(("has_it", "word"), [(True, "with libvmaf"), (False, "without libvmaf")])
def test_libvmaf_is_named_where_ffmpeg_has_it(monkeypatch, has_it, word):
    monkeypatch.setattr("av.filter.filters_available", {"xpsnr", *(["libvmaf"] if has_it else [])})
    assert word in dict(versions.environment())["FFmpeg"]


def test_gpus_and_their_driver_are_named(monkeypatch):
    class Properties:
        name, total_memory = "NVIDIA H100", 80 * 2**30

    answer = subprocess.CompletedProcess([], 0, "575.57.08\n575.57.08\n", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    lines = dict(versions.environment())
    assert lines["GPU 0"] == lines["GPU 1"] == "NVIDIA H100, 80.0 GiB"
    assert lines["GPU driver"] == "575.57.08"


def test_a_library_that_cannot_be_imported_is_named_with_its_error(monkeypatch):
    def fail() -> str:
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(versions, "_torch", fail)
    monkeypatch.setattr(versions, "_pytorch", fail)
    assert dict(versions.environment())["PyTorch"] == (
        f"{version('torch')}, cannot be imported: OSError: libcudart.so.13: cannot open shared object file"
    )


def test_a_record_names_the_build_of_pytorch(monkeypatch):
    """The metadata of PyTorch wheels from PyPI say 2.15.0, and torch.__version__ says 2.15.0+cu132."""
    monkeypatch.setattr(torch, "__version__", "2.15.0+cu132")
    assert versions.versions("vaectl", "torch") == {"vaectl": version("vaectl"), "torch": "2.15.0+cu132"}


def test_versions_are_taken_from_one_place():
    """All records contain the same version: not 2.15.0 in one and 2.15.0+cu132 in another."""
    root = Path(versions.__file__).parent
    users = {str(file.relative_to(root)) for file in root.rglob("*.py") if "importlib.metadata" in file.read_text()}
    assert users == {"__init__.py", "versions.py"}


def test_the_build_of_pytorch_is_known_without_its_import(monkeypatch):
    assert f"PyTorch {torch.__version__}," in versions.summary()
    monkeypatch.setattr(versions, "find_spec", lambda _: None)
    assert f"PyTorch {version('torch')}," in versions.summary()
