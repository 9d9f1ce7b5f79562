"""Causal caches come back bit for bit and leave no files behind; a full disk is reported in one line."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaectl.errors import VaectlError
from vaectl.io.spill_file import spill_folder
from vaectl.models.context import CausalCache
from vaectl.tiling.storage import DiskStateStore, DiskTensor, StateStore

STORES = [StateStore, DiskStateStore]
LAYERS = [nn.Identity() for _ in range(4)]


def cache(seed: int, dtype: torch.dtype = torch.float32, num_frames: int = 2) -> dict[nn.Module, Tensor]:
    """Make a channels-last tensor as in the networks, a dense one, a slice of a larger one, and one without frames."""
    g = torch.Generator().manual_seed(seed)
    dense = torch.randn((1, 5, num_frames, 6, 7), generator=g).to(dtype)
    last = dense.contiguous(memory_format=torch.channels_last_3d)
    return dict(zip(LAYERS, (last, dense + 1, (dense + 2)[..., 1:4], dense[:, :, :0]), strict=True))


def assert_same(given: CausalCache, wanted: CausalCache) -> None:
    assert list(given) == list(wanted)
    for layer, frames in wanted.items():
        assert given[layer].dtype == frames.dtype
        assert torch.equal(given[layer], frames)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", STORES)
def test_caches_come_back_bit_for_bit_in_any_order(make, dtype, folder):
    store: StateStore = make()
    for round_ in range(3):
        for key in "abc":
            store.put(key, cache(ord(key) + round_, dtype, 1 + (ord(key) + round_) % 3))
        for key in "cab":
            assert_same(store.get(key), cache(ord(key) + round_, dtype, 1 + (ord(key) + round_) % 3))
    assert store.get("a") == {}


@pytest.mark.parametrize("make", STORES)
def test_a_cache_is_given_once_and_unknown_keys_have_none(make, folder):
    store: StateStore = make()
    assert store.get(("encoder", 0)) == {}
    store.put(("encoder", 0), cache(1))
    assert_same(store.get(("encoder", 0)), cache(1))
    assert store.get(("encoder", 0)) == {}


def test_what_is_put_is_not_changed_by_later_work_on_the_tensors(folder):
    store, given = DiskStateStore(), cache(1)
    store.put("a", given)
    for frames in given.values():
        frames.zero_()
    assert_same(store.get("a"), cache(1))


def test_the_file_grows_with_the_largest_caches_and_not_with_the_number_of_windows(folder):
    store = DiskStateStore()
    for window in range(5):
        for key in "ab":
            store.get(key)
            store.put(key, cache(window))
    assert store._file._file.seek(0, 2) == 2 * sum(frames.nbytes for frames in cache(0).values())


def test_the_next_group_reuses_the_file(folder):
    """Its layers are others, and the caches of the group before are gone with its last window."""
    store = DiskStateStore()
    for _ in range(3):
        for key in "ab":
            store.put(key, {nn.Identity(): torch.ones(1, 2, 3, 4, 5)})
        for key in "ab":
            store.get(key)
            store.put(key, {})
    assert store._file._file.seek(0, 2) == 2 * 120 * 4


def test_a_disk_tensor_takes_values_as_a_tensor_does(folder):
    """Of another type, and fewer that are repeated."""
    for values in (torch.full((2, 3), 1.5), torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor(2.0)):
        on_disk, in_memory = DiskTensor((2, 3), torch.bfloat16), torch.zeros(2, 3, dtype=torch.bfloat16)
        on_disk[:], in_memory[:] = values, values
        assert torch.equal(on_disk[:], in_memory)


def test_large_files_do_not_go_where_they_would_lie_in_memory(monkeypatch):
    monkeypatch.delenv("TMPDIR", raising=False)
    assert spill_folder() == "/var/tmp"
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert spill_folder() == "/elsewhere"
    with pytest.raises(VaectlError, match=r"cannot create a temporary file .* set TMPDIR"):
        DiskStateStore()


def test_nothing_is_left_in_the_folder_even_while_the_store_lives(folder):
    store = DiskStateStore()
    store.put("a", cache(1))
    assert list(folder.iterdir()) == []
    assert_same(store.get("a"), cache(1))


FULL_DISK = """
import resource, torch
from torch import nn
from vaectl.errors import VaectlError
from vaectl.tiling.storage import DiskStateStore

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
store = DiskStateStore()
layer = nn.Identity()
store.put("fits", {layer: torch.ones(1, 1, 1, 512, 256)})
try:
    store.put("does not", {layer: torch.ones(1, 1, 1, 512, 512)})
except VaectlError as error:
    print(error)
assert store.get("fits")[layer].sum() == 512 * 256
"""


def test_a_full_disk_is_one_clear_line(tmp_path):
    """The second cache crosses the size limit: the write stops half-way without an error."""
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK], capture_output=True, text=True, env={"TMPDIR": str(tmp_path)}, check=False
    )
    assert run.stderr == ""
    assert run.stdout.count("\n") == 1
    assert run.stdout.startswith(f"{tmp_path}: writing a temporary file failed")
    assert "TMPDIR" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_no_folder_for_temporary_files_is_one_clear_line(monkeypatch):
    def refuse(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(VaectlError, match="TMPDIR"):
        DiskStateStore()


def test_writes_and_reads_that_the_system_cuts_short_go_on(folder):
    """Linux moves at most 2 GiB at a time, and less when a signal comes."""

    class Halting:
        """A file that takes and gives at most 100 bytes at a time."""

        def __init__(self, file):
            self.file, self.seek = file, file.seek

        def write(self, data):
            return self.file.write(data[:100])

        def readinto(self, data):
            return self.file.readinto(data[:100])

    store = DiskStateStore()
    store._file._file = Halting(store._file._file)
    store.put("a", cache(1))
    assert_same(store.get("a"), cache(1))


def test_a_single_position_may_have_any_stride(folder):
    """PyTorch still calls it contiguous: for example a 1x1 plane of a clip with four channels."""
    plane = torch.rand(3, 4)[:, :1].T[:, :1]
    assert plane.is_contiguous()
    assert plane.stride() != (1, 1)
    room = DiskTensor((1, 1), torch.float32)
    room[:] = plane
    assert torch.equal(room[:], plane)
