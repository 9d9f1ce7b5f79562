"""Photographs in motion: where the camera goes, what it sees, and how such samples stand among the others."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.jobs import Listener
from torch import Tensor

from vaectl.data import Sampling, Source, open_dataset
from vaectl.data.ken_burns import FASTEST, MOST_TURN, MOST_ZOOM, QUICKEST, View, drawn_path, ken_burns
from vaectl.errors import UsageError
from vaectl.metrics.psnr import mean_squared_errors
from vaectl.video import read_video

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = st.integers(0, 2**64 - 1)


@given(
    st.integers(1, 4000), st.integers(1, 4000), st.integers(16, 512), st.integers(1, 4), SEEDS, st.integers(0, 10**6)
)
def test_the_view_lies_within_the_picture_at_any_time(width, height, resolution, part, seed, time):
    view = drawn_path(width, height, resolution, resolution // part, seed).at(time)
    assert view.reach - 1e-6 <= view.x <= width - view.reach + 1e-6
    assert view.reach - 1e-6 <= view.y <= height - view.reach + 1e-6
    assert abs(view.turn) <= MOST_TURN
    assert view.side >= resolution // part / resolution * min(
        resolution, min(width, height) / (math.sqrt(2) * MOST_ZOOM)
    )


@given(SEEDS, st.integers(0, 1000))
def test_the_camera_moves_smoothly(seed, start):
    path = drawn_path(1600, 1200, 256, 256, seed)
    views = [path.at(start + time) for time in range(4)]
    widest = math.exp(path.zoom.centre + path.zoom.extent)
    steps = [(b.x - a.x, b.y - a.y, math.log(b.side / a.side), b.turn - a.turn) for a, b in pairwise(views)]
    for values, most in zip(zip(*steps, strict=True), (widest, widest, 0.5, 0.5), strict=True):
        assert all(abs(value) <= FASTEST * most * (1 + 1e-9) for value in values)
        # From frame to frame the speed changes by no more than a sine of the shortest period allows.
        changes = [abs(b - a) for a, b in pairwise(values)]
        assert all(change <= FASTEST * most * 2 * math.pi / QUICKEST * (1 + 1e-9) for change in changes)


def test_paths_differ_and_some_are_fast():
    paths = [drawn_path(1600, 1200, 256, 256, seed) for seed in range(300)]
    speeds = [math.dist((a.x, a.y), (b.x, b.y)) / a.side for a, b in ((path.at(0), path.at(1)) for path in paths)]
    assert sum(speed > 1 / 128 for speed in speeds) > 30
    assert sum(speed < 1 / 1024 for speed in speeds) > 30
    sides = [path.at(0).side for path in paths]
    assert min(sides) < 400
    assert max(sides) > 1000
    assert {math.copysign(1, path.at(0).turn) for path in paths} == {1.0, -1.0}


def seen_exactly(picture: Tensor, view: View, resolution: int) -> Tensor:
    """(3, resolution, resolution): the mean of the picture over each pixel of the frame, by 16 x 16 nearest points."""
    fine = 16 * resolution
    at = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine - 0.5
    v, u = torch.meshgrid(at, at, indexing="ij")
    x = view.x + view.side * (u * math.cos(view.turn) - v * math.sin(view.turn))
    y = view.y + view.side * (u * math.sin(view.turn) + v * math.cos(view.turn))
    points = picture[
        :, y.floor().long().clamp(0, picture.shape[1] - 1), x.floor().long().clamp(0, picture.shape[2] - 1)
    ]
    return torch.nn.functional.avg_pool2d(points.float(), 16).round().byte()


def photograph(samples: Path) -> Tensor:
    """(3, 720, 1280): fine grass and leaves."""
    return read_video(samples / "bigbuckbunny.mp4", start=60, num_frames=1).frames[0]


@pytest.mark.parametrize("seed", range(4))
def test_frames_show_what_the_camera_sees(samples, seed):
    picture = photograph(samples)
    path, times = drawn_path(1280, 720, 96, 96, seed), [0, 7, 40]
    frames = ken_burns(picture, times, 96, 96, seed)
    for frame, view in zip(frames, map(path.at, times), strict=True):
        there, beside = (
            mean_squared_errors(seen_exactly(picture, replace(view, x=x), 96)[None], frame[None])[0]
            for x in (view.x, view.x + view.side / 96 / 4)
        )
        assert there < 12  # squared levels: 37 dB; the filters differ
        assert beside > 2 * there  # a quarter of a pixel is noticed


def test_a_fine_pattern_is_averaged_and_does_not_flicker():
    checks = (torch.arange(1000)[:, None] + torch.arange(1500)).remainder(2).mul(255).byte().expand(3, -1, -1)
    for seed in range(5):
        path = drawn_path(1500, 1000, 32, 32, seed)
        if path.at(0).side > 4 * 32:
            frames = ken_burns(checks, range(9), 32, 32, seed).float()
            assert (frames - 127.5).abs().max() < 8


def test_a_crop_shows_its_part_of_a_frame_in_the_same_size(samples):
    """Half the frame has half its view, and moves as many pixels."""
    whole, part = drawn_path(1280, 720, 96, 96, 5), drawn_path(1280, 720, 96, 48, 5)
    assert part.at(3).side == pytest.approx(whole.at(3).side / 2)
    assert part.x.speed == pytest.approx(whole.x.speed)
    frames = ken_burns(photograph(samples), [0, 9], 96, 48, 5)
    seen = seen_exactly(photograph(samples), part.at(9), 48)
    assert mean_squared_errors(seen[None], frames[1:])[0] < 12


def test_a_picture_smaller_than_the_frames_is_enlarged():
    frames = ken_burns(torch.full((3, 5, 9), 77, dtype=torch.uint8), range(5), 48, 48, 3)
    assert frames.shape == (5, 3, 48, 48)
    assert (frames == 77).all()


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for name, size in (("a.png", (120, 90)), ("b.jpg", (80, 150))):
        ramp = torch.linspace(0, 255, size[0]).byte().expand(size[1], -1)
        Image.fromarray(torch.stack([ramp, 255 - ramp, ramp], dim=-1).numpy()).save(folder / name)
    return folder


def test_images_are_clips_if_they_are_animated(album):
    sampling = Sampling(9, 48, sample_rate=3, dynamic_sample=True, animate_images=True, seed=5)
    dataset = open_dataset([Source(album)], sampling, strict=True, progress=Listener())
    assert len(dataset) == 2
    first, second = dataset.clip(0), dataset.clip(2)
    assert first.frames.shape == (9, 3, 48, 48)
    assert torch.equal(first.frames, dataset.clip(0).frames)
    assert not torch.equal(first.frames, second.frames)
    moving = [(a.int() - b.int()).abs().float().mean() for a, b in pairwise(dataset.clip(1).frames)]
    assert max(moving) > 0


def test_a_faster_sample_rate_shows_later_views(album):
    slow, fast = (
        open_dataset(
            [Source(album)], Sampling(5, 48, sample_rate=rate, animate_images=True), strict=True, progress=Listener()
        ).clip(0)
        for rate in (1, 4)
    )
    assert torch.equal(slow.frames[0], fast.frames[0])
    difference = (slow.frames[4].int() - fast.frames[1].int()).abs()
    assert difference.max() <= 3  # the picture is scaled for the narrowest view of each sample


def test_without_animation_images_are_left_out_and_the_remedy_is_named(album, samples):
    listener = Listener()
    (album / "clip.mp4").symlink_to(samples / "carphone_pristine.mp4")
    dataset = open_dataset([Source(album)], Sampling(9, 48), strict=False, progress=listener)
    assert len(dataset) == 1
    assert any("`animate_images` makes clips of images" in warning for warning in listener.warnings)
    (album / "clip.mp4").unlink()
    with pytest.raises(UsageError, match="`animate_images` makes clips of images"):
        open_dataset([Source(album)], Sampling(9, 48), strict=False, progress=Listener())
