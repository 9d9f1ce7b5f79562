"""Sizes, cropping and resizing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from vaectl.video import read_video, resize, target_size
from vaectl.video.transform import scale_and_crop

SIDES = st.integers(1, 4000)


def test_target_size() -> None:
    assert target_size(1280, 720) == (1280, 720)
    assert target_size(1280, 720, to_width=256, to_height=256) == (256, 256)
    assert target_size(1280, 720, to_width=640) == (640, 360)
    assert target_size(1280, 720, to_height=256) == (455, 256)
    assert target_size(1280, 720, short_size=256) == (455, 256)
    assert target_size(720, 1280, short_size=256) == (256, 455)
    assert target_size(4000, 3, to_width=16) == (16, 1)
    with pytest.raises(ValueError, match="excludes"):
        target_size(1280, 720, to_width=256, short_size=256)


def test_target_size_in_even_numbers() -> None:
    assert target_size(640, 272, short_size=64) == (151, 64)
    assert target_size(640, 272, short_size=64, even=True) == (150, 64)
    assert target_size(272, 640, short_size=64, even=True) == (64, 150)
    assert target_size(1280, 720, to_height=256, even=True) == (456, 256)
    assert target_size(720, 1280, to_width=256, even=True) == (256, 456)
    assert target_size(4000, 3, to_width=16, even=True) == (16, 2)
    # A size that is given, or that fits, is used as it is.
    assert target_size(1280, 720, to_width=333, to_height=257, even=True) == (333, 257)
    assert target_size(1280, 720, short_size=33, even=True) == (58, 33)
    assert target_size(455, 256, short_size=256, even=True) == (455, 256)
    assert target_size(455, 257, even=True) == (455, 257)


@given(SIDES, SIDES, SIDES)
def test_an_even_side_is_the_nearest(width: int, height: int, side: int) -> None:
    new_width, new_height = target_size(width, height, to_width=side, even=True)
    assert new_width == side
    if side != width:
        assert new_height % 2 == 0
        assert new_height == 2 or abs(new_height - height * side / width) <= 1


def test_the_protocol_rounds_to_a_pixel() -> None:
    frames = torch.zeros(1, 3, 272, 640, dtype=torch.uint8)
    assert scale_and_crop(frames, 64, None).shape == (1, 3, 64, 151)


SMALL = st.integers(4, 80)


@given(SMALL, SMALL, st.none() | SMALL, st.none() | st.integers(1, 80), st.booleans(), st.data())
def test_the_fast_resize_gives_the_pixels_of_one_call_of_pytorch(
    width: int, height: int, resolution: int | None, crop_size: int | None, interleaved: bool, data: st.DataObject
) -> None:
    frames = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    if interleaved:
        frames = frames.contiguous(memory_format=torch.channels_last)
    to_width, to_height = target_size(width, height, short_size=resolution)
    crop_size = None if crop_size is None else min(crop_size, to_width, to_height)
    at = data.draw(st.tuples(st.floats(0, 1), st.floats(0, 1)))
    expected = F.interpolate(frames, (to_height, to_width), mode="bilinear", antialias=True)
    if crop_size is not None:
        top, left = round(at[0] * (to_height - crop_size)), round(at[1] * (to_width - crop_size))
        expected = expected[..., top : top + crop_size, left : left + crop_size]
    got = scale_and_crop(frames, resolution, crop_size, at, exact=False)
    assert torch.equal(got, expected)
    assert got.is_contiguous()


@given(SIDES, SIDES, SIDES)
def test_one_side_given_keeps_the_aspect_to_the_nearest_pixel(width: int, height: int, side: int) -> None:
    new_width, new_height = target_size(width, height, to_width=side)
    assert new_width == side
    assert new_height >= 1
    assert new_height == 1 or abs(new_height - height * side / width) <= 0.5
    assert target_size(height, width, to_height=side) == (new_height, new_width)
    assert min(target_size(width, height, short_size=side)) == side


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_resize_gives_the_size_asked_for_and_stays_in_range(width: int, height: int, to_w: int, to_h: int) -> None:
    frames = torch.randint(100, 110, (2, 3, height, width), dtype=torch.uint8)
    resized = resize(frames, to_w, to_h)
    assert resized.shape == (2, 3, to_h, to_w)
    assert resized.dtype == torch.uint8
    assert frames.min() <= resized.min() <= resized.max() <= frames.max()


def test_nothing_to_do_gives_the_same_frames() -> None:
    frames = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    assert resize(frames, 64, 48) is frames


def test_cropping_alone_takes_the_centre_untouched() -> None:
    frames = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    assert torch.equal(resize(frames, 48, 48), frames[..., 8:56])
    assert torch.equal(resize(frames, 64, 24), frames[..., 12:36, :])


def test_the_picture_is_antialiased_and_rounded_to_the_nearest_level() -> None:
    frames = torch.randint(0, 256, (2, 3, 96, 160), dtype=torch.uint8)
    expected = F.interpolate(frames[..., 32:128].double(), (32, 32), mode="bilinear", antialias=True)
    assert (resize(frames, 32, 32) - expected).abs().max() <= 0.5 + 1e-4
    # One-pixel stripes become gray, not a pattern.
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255
    inner = resize(stripes, 21, 21)[..., 2:-2].double()
    assert (inner - 127.5).abs().max() < 30


def test_a_real_picture_keeps_its_mean(samples: object) -> None:
    frames = read_video(f"{samples}/bigbuckbunny.mp4", 60, 2).frames
    small = resize(frames, 256, 144).double()
    assert np.allclose(small.mean((0, 2, 3)), frames.double().mean((0, 2, 3)), atol=0.2)
