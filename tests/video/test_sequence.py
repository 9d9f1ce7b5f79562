"""Numbered images are one video: all of them in order, each as exact as a still image, or an error."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.video.media import encode, number_of, numbered_images, numbered_picture

from vaectl import memory
from vaectl.errors import UsageError, VaectlError
from vaectl.video import VideoReader, find_videos, read_video
from vaectl.video.animation import is_still
from vaectl.video.sequence import file_named, files_of, pattern_of, stamp_of


@pytest.mark.parametrize("name", ["%05d.png", "%d.png", "shot-%03d.tiff", "50%_%02d.bmp", "%04d.render.webp"])
def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path, name: str) -> None:
    numbers = range(8, 13)
    numbered_images(tmp_path / name, numbers)
    (tmp_path / "notes.txt").touch()
    with VideoReader(tmp_path / name) as reader:
        info, clip = reader.info, reader.read()
        assert (info.width, info.height, info.frame_rate, info.num_frames_from_header) == (64, 48, 25, 5)
        assert (info.is_image, info.path) == (False, tmp_path / name)
        assert [frame.tolist() for frame in reader.read(1, 2, 2).frames] == [clip.frames[i].tolist() for i in (1, 3)]
    assert clip.timestamps == tuple(Fraction(i, 25) for i in range(5))
    for number, frame in zip(numbers, clip.frames, strict=True):
        assert np.array_equal(frame.permute(1, 2, 0), numbered_picture(number))
    assert find_videos(tmp_path / name) == [tmp_path / name]
    assert not is_still(tmp_path / name)


def test_each_frame_is_read_as_a_still(tmp_path: Path) -> None:
    """16 bits, palettes, transparency and orientation may differ from frame to frame."""
    turned = Image.Exif()
    turned[0x112] = 3
    picture = numbered_picture(5)
    half = Image.fromarray(picture)
    half.putalpha(128)
    for number, (image, how) in enumerate(
        [
            (Image.fromarray(picture), {"exif": turned}),
            (Image.fromarray(picture[..., 0].astype(np.uint16) * 257 + 100), {}),
            (Image.fromarray(picture).quantize(32), {}),
            (half, {}),
        ]
    ):
        image.save(tmp_path / f"{number}.png", **how)
    clip = read_video(tmp_path / "%d.png")
    for number, frame in enumerate(clip.frames):
        assert frame.tolist() == read_video(tmp_path / f"{number}.png").frames[0].tolist()
    assert np.array_equal(clip.frames[0].permute(1, 2, 0), picture[::-1, ::-1])


def test_a_missing_frame_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = numbered_images(tmp_path / "%03d.png", range(3, 12))
    (tmp_path / "007.png").unlink()
    (tmp_path / "008.png").unlink()
    for use in (read_video, find_videos):
        with pytest.raises(UsageError, match=r"007\.png: is missing, and 011\.png comes after it"):
            use(path)


def test_a_number_with_other_digits_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    path = numbered_images(tmp_path / "%03d.png", range(998, 1002))
    assert len(read_video(path)) == 4
    with pytest.raises(UsageError, match=r"998\.png: its number has not the digits of %05d\.png; write %03d"):
        read_video(tmp_path / "%05d.png")
    numbered_images(tmp_path / "%06d.png", range(1002, 1004))
    with pytest.raises(UsageError, match=r"001002\.png: its number has not the digits of %03d\.png; write %06d"):
        read_video(path)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (Image.new("RGB", (64, 50)), r"4\.png: is png of 64x50 pixels, but the first frame 1\.png is png of 64x48"),
        ("jpeg", r"4\.png: is mjpeg of 64x48 pixels, but the first frame 1\.png is png of 64x48"),
        ("animation", r"4\.png: is not a still image"),
        ("half", r"4\.png: the image is cut short"),
    ],
)
def test_a_frame_that_is_not_like_the_others_is_an_error(tmp_path: Path, odd: object, message: str) -> None:
    path, file = numbered_images(tmp_path / "%d.png", range(1, 6)), tmp_path / "4.png"
    picture = Image.fromarray(numbered_picture(4))
    if isinstance(odd, Image.Image):
        odd.save(file)
    elif odd == "animation":
        picture.save(file, save_all=True, append_images=[Image.new("RGB", picture.size)])
    elif odd == "jpeg":
        picture.save(file, format="JPEG")
    else:
        file.write_bytes(file.read_bytes()[:-200])
    assert len(read_video(path, 0, 3)) == 3
    with pytest.raises(VaectlError, match=message):
        read_video(path)


def test_only_images_are_frames(tmp_path: Path) -> None:
    encode(tmp_path / "1.mp4", 3)
    with pytest.raises(VaectlError, match=r"1\.mp4: is not a still image"):
        read_video(tmp_path / "%d.mp4")


def test_a_file_with_such_a_name_is_a_file(tmp_path: Path) -> None:
    numbered_images(tmp_path / "%d.png", range(1, 4))
    single = tmp_path / "%d.png"
    Image.fromarray(numbered_picture(200)).save(single)
    assert [number_of(frame) for frame in read_video(single).frames] == [200]
    assert (is_still(single), files_of(single), file_named(single)) == (True, [single], single)
    with pytest.raises(UsageError, match="no such file"):
        read_video(tmp_path / "%d_%d.png")
    for digits in (100, 999999999999):  # no file name is as long
        with pytest.raises(UsageError, match="no such file"):
            read_video(tmp_path / f"%0{digits}d.png")
    with pytest.raises(UsageError, match="no such file"):
        find_videos(tmp_path / "missing" / "%d.png")


def test_results_are_named_after_the_frames_or_their_folder(tmp_path: Path) -> None:
    for path, name in (
        ("in/%05d.png", "in/in.png"),
        ("in/shot_%04d.png", "in/shot.png"),
        ("in/%d-beauty.tiff", "in/beauty.tiff"),
        ("in/clip.mp4", "in/clip.mp4"),
    ):
        assert file_named(tmp_path / path) == tmp_path / name


def test_the_files_and_the_stamp_of_a_sequence(tmp_path: Path) -> None:
    path = numbered_images(tmp_path / "%d.png", range(1, 4))
    assert files_of(path) == [tmp_path / f"{i}.png" for i in (1, 2, 3)]
    before = stamp_of(path)
    assert before[0] == sum(file.stat().st_size for file in files_of(path))
    os.utime(tmp_path / "2.png", (2e9, 2e9))
    assert stamp_of(path) == (before[0], 2 * 10**18)


def test_a_folder_of_frames_is_recognised(tmp_path: Path) -> None:
    padded = numbered_images(tmp_path / "a" / "f%03d.png", range(5, 20))
    plain = numbered_images(tmp_path / "b" / "%d.jpg", range(1, 13))
    for path in (padded, plain):
        assert pattern_of(find_videos(path.parent)) == path
    (tmp_path / "a" / "f010.png").rename(tmp_path / "a" / "g010.png")
    assert pattern_of(find_videos(tmp_path / "a")) is None
    assert pattern_of(find_videos(numbered_images(tmp_path / "few" / "%d.png", range(3)).parent)) is None
    assert pattern_of(find_videos(tmp_path)) is None


def test_frames_are_a_stream(tmp_path: Path) -> None:
    """Frames with metadata are freed only by a garbage collection."""
    exif = Image.Exif()
    exif[0x112] = 3
    Image.new("RGB", (1000, 700)).save(tmp_path / "1.png", exif=exif)
    for number in range(2, 31):
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "1.png")
    used = [memory.resident() for _ in VideoReader(tmp_path / "%d.png").clips(batch_size=1)]
    assert used[29] - used[5] < 12 * 2**20  # a frame has 2 MiB
