"""What is known of a file is kept until the file changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tests.video.media import encode, number_of

from vaectl.video import VideoReader, file_cache, index, read_video
from vaectl.video.file_cache import FileCache


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_cache, "_SETTLED_NS", -(10**12))


@pytest.mark.usefixtures("settled")
def test_a_video_is_indexed_once_and_afresh_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []
    build = index.build_index
    monkeypatch.setattr(index, "build_index", lambda info: built.append(info.path) or build(info))
    path = encode(tmp_path / "clip.mp4", 8)
    first = VideoReader(path)
    assert [len(first.timestamps()), len(VideoReader(path).timestamps())] == [8, 8]
    assert built == [path]

    status = path.stat()
    other = encode(tmp_path / "other.mp4", 12, size=(32, 48)).read_bytes()
    path.write_bytes(other)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = read_video(path)
    assert changed.frames.shape == (12, 3, 48, 32)
    assert built == [path, path]


@pytest.mark.usefixtures("settled")
def test_values_are_kept_by_file_and_the_oldest_are_dropped(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_text(file.name)
    cache: FileCache[str] = FileCache(5, len)
    computed: list[str] = []

    def get(file: Path) -> str:
        return cache.get(file, lambda: computed.append(file.name) or 2 * file.read_text())

    assert [get(file) for file in (*files[:2], *files[:2])] == ["aa", "bb", "aa", "bb"]
    assert computed == ["a", "b"]
    get(files[0])
    get(files[2])  # drops b, which was used before a
    assert (get(files[0]), computed) == ("aa", ["a", "b", "c"])
    assert (get(files[1]), computed) == ("bb", ["a", "b", "c", "b"])
    files[1].write_text("too long")
    assert (get(files[1]), get(files[1]), computed[4:]) == ("too longtoo long", "too longtoo long", ["b", "b"])
    assert cache.get(tmp_path / "none", lambda: "x") == "x"


def test_a_file_that_changed_just_now_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("a")
    cache: FileCache[str] = FileCache(5)
    assert [cache.get(file, lambda value=value: value) for value in "xy"] == ["x", "y"]  # type: ignore[misc]


def test_frames_of_a_changed_file_are_not_those_of_the_paused_pass(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 12, options={"g": "100"})
    fresh = read_video(path).frames
    with VideoReader(path) as reader:
        assert torch.equal(reader.read(0, 3).frames, fresh[:3])
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)  # another file of the same content
        assert [number_of(frame) for frame in reader.read(5, 2).frames] == [5, 6]
