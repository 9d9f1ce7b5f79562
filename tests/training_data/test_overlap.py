"""Validation clips that are also trained on: the same real files, whatever their paths."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.jobs import Listener
from tests.video.media import encode, numbered_images

from vaectl.data import Sampling, Source, open_dataset
from vaectl.data.metadata_cache import Facts, VideoTree, scan_videos
from vaectl.data.overlap import also_in


@pytest.fixture
def here(tmp_path) -> Path:
    """Three clips to train on, and a folder with the same files by links, and a copy with the same times."""
    deep = tmp_path / "train" / "deep"
    deep.mkdir(parents=True)
    for name in "abc":
        encode(deep / f"{name}.mp4", 3, size=(16, 16))
    validation = tmp_path / "validation"
    validation.mkdir()
    (validation / "1-link.mp4").symlink_to(deep / "a.mp4")
    (validation / "2-hard-link.mp4").hardlink_to(deep / "b.mp4")
    (validation / "3-folder").symlink_to(deep)
    shutil.copy2(deep / "c.mp4", validation / "4-copy.mp4")
    return tmp_path


def test_the_same_files_are_found_through_links_and_copies_are_not(here):
    clips = [here / "validation" / name for name in ("1-link.mp4", "2-hard-link.mp4", "3-folder/c.mp4", "4-copy.mp4")]
    listener = Listener()
    sources, sampling = [Source(here / "train")], Sampling(num_frames=2, resolution=16)
    data = open_dataset(sources, sampling, strict=False, progress=listener, validation=[*clips, here / "missing.mp4"])
    assert listener.warnings == [
        "3 of 5 validation clips (`eval_video_path`) are also trained on, which makes their results too good;"
        f" the first: {clips[0]}"
    ]
    assert (data.videos, data.seconds) == (3, pytest.approx(3 * 3 / 25))
    open_dataset(sources, sampling, strict=False, progress=(silent := Listener()), validation=clips[3:])
    assert silent.warnings == []


def test_numbered_images_are_compared_image_by_image(tmp_path):
    frames = numbered_images(tmp_path / "frames" / "%03d.png", range(1, 6))
    numbered_images(tmp_path / "others" / "%03d.png", range(1, 6))
    (tmp_path / "link").symlink_to(tmp_path / "frames")
    by_link, others, image = (tmp_path / name for name in ("link/%03d.png", "others/%03d.png", "frames/003.png"))
    as_video, as_stills = (scan_videos(path, Listener()) for path in (frames, frames.parent))
    assert also_in([as_video], [others, frames, by_link, image]) == [frames, by_link, image]
    assert also_in([as_stills], [others, by_link]) == [by_link]


def test_a_million_videos_cost_no_look_at_the_disk(here, monkeypatch):
    clip, looked = here / "validation" / "4-copy.mp4", []
    monkeypatch.setattr("vaectl.data.overlap._status", lambda path: looked.append(path) or clip.stat())
    tree = VideoTree(here, {f"{number}.mp4": Facts(number, number, 16, 16, 3, "24") for number in range(1000)}, {})
    assert also_in([tree], [clip]) == []
    assert looked == [clip]
