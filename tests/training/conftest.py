"""A few small clips to train on, one thread, and a cache of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.video.media import encode


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips in a tree; nobody changes them."""
    root = tmp_path_factory.mktemp("train") / "videos"
    (root / "sub").mkdir(parents=True)
    encode(root / "a.mp4", 20)
    encode(root / "b.mp4", 12)
    encode(root / "sub" / "c.mkv", 16)
    return root
