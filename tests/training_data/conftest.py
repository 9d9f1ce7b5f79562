"""A small tree of videos of every kind, and a cache of its own for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.video.media import encode


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "videos"
    (root / "sub" / "súb süb").mkdir(parents=True)
    (root / "a:b").mkdir()
    encode(root / "a.mp4", 40, options={"g": "8", "bf": "2"})
    encode(root / "sub" / "portrait.mov", 30, size=(48, 80))
    encode(root / "sub" / "old.avi", 24, codec="mpeg4")
    encode(root / "sub" / "súb süb" / "日本.webm", 30, codec="libvpx-vp9", options={"cpu-used": "8", "g": "10"})
    encode(root / "a:b" / "x.mkv", 35, codec="ffv1", pix_fmt="bgr0", options={"g": "5"})
    return root


@pytest.fixture
def videos(made: Path, tmp_path: Path) -> Path:
    """A tree of five readable videos that a test may spoil: nested, in five containers, in two shapes."""
    return shutil.copytree(made, tmp_path / "videos")
