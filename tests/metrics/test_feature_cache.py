"""The features of originals are computed once for each content and network, and a bad cache costs only time."""

import os

import numpy as np
import pytest
import torch

from tests.jobs import Listener
from tests.metrics.reference import CPU, noise
from vaectl.io.user_cache import user_cache
from vaectl.metrics.feature_cache import check
from vaectl.metrics.fvd import FVD, Detector

REAL, GENERATED = noise(3, 2, 3, 8, 8), noise(3, 2, 3, 8, 8, seed=1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vaectl" / "features"


class Counting:
    """A network that counts its clips."""

    def __init__(self, scale=1.0):
        self.clips, self.scale = 0, scale

    def __call__(self, video):
        self.clips += 1
        return video.mean(dim=(3, 4)).flatten(1) * self.scale


def measured(network, listener=None, fingerprint="a", real=REAL, generated=(GENERATED,)):
    metric = FVD(Detector(network, fingerprint), CPU, listener or Listener())
    metric.add(real, generated)
    return metric.values()


def test_originals_are_computed_once_and_generated_clips_each_time(folder):
    first, second = Counting(), Counting()
    values = measured(first, generated=(GENERATED, GENERATED))
    assert first.clips == 3 + 2 * 3
    assert measured(second, generated=(GENERATED, GENERATED)) == values
    assert second.clips == 2 * 3
    assert len(list(folder.iterdir())) == 3
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1000


def test_other_frames_another_network_and_another_shape_are_computed():
    measured(Counting())
    other = Counting(2.0)
    measured(other, fingerprint="b")
    assert other.clips == 6
    changed = REAL.clone()
    changed[1, 1, 2, 7, 7] ^= 1
    network = Counting()
    measured(network, real=changed)
    assert network.clips == 1 + 3
    network = Counting()
    measured(network, real=REAL.view(3, 2, 3, 4, 16), generated=(GENERATED.view(3, 2, 3, 4, 16),))
    assert network.clips == 6


@pytest.mark.parametrize("spoil", [lambda content: content[:-1], lambda content: b"X" + content[1:], lambda _: b""])
def test_a_damaged_entry_is_computed_again_and_replaced(folder, spoil):
    values = measured(Counting())
    file = next(folder.iterdir())
    before = file.read_bytes()
    file.write_bytes(spoil(before))
    network = Counting()
    assert measured(network) == values
    assert network.clips == 1 + 3
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "values", [b"\0" * 5, b"\0" * 16, np.full(6, np.nan).astype("<f8").tobytes()], ids=["bytes", "length", "nan"]
)
def test_an_entry_that_holds_no_features_of_this_network_is_replaced(folder, values):
    expected = measured(Counting())
    file = next(folder.iterdir())
    before = file.read_bytes()
    file.write_bytes(check(values) + values)
    assert measured(Counting()) == expected
    assert file.read_bytes() == before


def test_a_pipe_in_place_of_an_entry_is_not_opened(folder):
    expected = measured(Counting())
    file = next(folder.iterdir())
    file.unlink()
    os.mkfifo(file)
    network = Counting()
    assert measured(network) == expected
    assert network.clips == 1 + 3


def test_a_cache_that_cannot_be_written_is_no_error(folder):
    folder.parent.parent.mkdir()
    folder.parent.write_text("a file where the folder would be")
    listener, network = Listener(), Counting()
    assert torch.tensor(measured(network, listener)).isfinite().all()
    assert network.clips == 6
    note = f"{folder}: cannot be written, so later runs compute the features of the originals again"
    assert listener.notes == [note] * 3  # the command line shows it once


def test_features_that_are_not_finite_are_not_kept(folder):
    with pytest.raises(Exception, match="NaN"):
        measured(Counting(torch.nan))
    assert not folder.exists()


def test_the_cache_is_in_the_users_cache_folder(tmp_path, monkeypatch):
    assert user_cache("a", "b") == tmp_path / "cache" / "vaectl" / "a" / "b"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "vaectl"
