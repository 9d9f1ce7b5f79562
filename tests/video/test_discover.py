"""Finding videos in a tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaectl.errors import UsageError
from vaectl.video import find_videos


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_recursive_sorted_by_extension_without_hidden(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a.MKV", "deep/er/c.webm", "deep/d.gif", "image.PNG", "notes.txt", "mp4")
    touch(tmp_path, ".hidden.mp4", ".cache/e.mp4", "._b.mp4")
    names = [str(path.relative_to(tmp_path)) for path in find_videos(tmp_path)]
    assert names == ["a.MKV", "b.mp4", "deep/d.gif", "deep/er/c.webm", "image.PNG"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    touch(tree, "a.mp4", "sub/b.mp4")
    touch(elsewhere, "c.mp4")
    (tree / "linked").symlink_to(elsewhere)
    (tree / "sub" / "up").symlink_to(tree)
    (elsewhere / "loop").symlink_to(elsewhere)
    (tree / "d.mp4").symlink_to(elsewhere / "c.mp4")
    names = [str(path.relative_to(tree)) for path in find_videos(tree)]
    assert names == ["a.mp4", "d.mp4", "linked/c.mp4", "sub/b.mp4"]


def test_a_hidden_root_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / ".videos", "a.mp4")
    assert find_videos(tmp_path / ".videos") == [tmp_path / ".videos" / "a.mp4"]


def test_a_file_stands_for_itself(tmp_path: Path) -> None:
    touch(tmp_path, "clip.unusual")
    assert find_videos(tmp_path / "clip.unusual") == [tmp_path / "clip.unusual"]


def test_nothing_found_is_a_usage_error(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(UsageError, match=r"no videos or images in this folder; supported are \.mp4"):
        find_videos(tmp_path)
    with pytest.raises(UsageError, match="no such file or folder"):
        find_videos(tmp_path / "missing")


def test_a_folder_that_cannot_be_listed_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", refuse)  # tests may run as root, who may read everything
    with pytest.raises(UsageError, match="cannot be listed"):
        find_videos(tmp_path)
