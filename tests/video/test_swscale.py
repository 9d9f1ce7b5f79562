"""`rgb_conversion="swscale"`: every pixel is that of PyAV's `frame.to_ndarray(format="rgb24")`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tests.video.media import animation, encode, numbered_images, numbered_picture, rgb_frame, set_display_matrix
from tests.video.test_shown import barred, with_clean_aperture

from vaectl.errors import UsageError, VaectlError
from vaectl.video import VideoReader, read_video
from vaectl.video.color import SwscaleConverter


def by_pyav(path: Path) -> torch.Tensor:
    """Return all frames of a video, (T, 3, H, W), as a short script with PyAV reads them."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def swscale(path: Path) -> torch.Tensor:
    return read_video(path, rgb_conversion="swscale").frames


def tag(matrix: int = 2, color_range: int = 0) -> dict[str, Any]:
    def configure(stream: Any) -> None:
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, color_range

    return {"configure": configure}


FFV1 = {"codec": "ffv1"}
VIDEOS: dict[str, dict[str, Any]] = {
    "yuv420p": {},
    "yuv420p of 1280 columns": {"size": (1280, 48)},
    "yuv420p in BT.709": tag(1, 1),
    "yuv420p in BT.2020": tag(9, 1),
    "yuv420p in full range": tag(6, 2),
    "yuv422p": {"pix_fmt": "yuv422p"},
    "yuv444p": {"pix_fmt": "yuv444p"},
    "yuv420p10le": {"pix_fmt": "yuv420p10le"},
    "yuv420p of odd size": {**FFV1, "size": (63, 47)},
    "yuv422p10le of odd size": {**FFV1, "pix_fmt": "yuv422p10le", "size": (61, 45)},
    "yuv411p": {**FFV1, "pix_fmt": "yuv411p"},
    "yuva420p": {**FFV1, "pix_fmt": "yuva420p"},
    "gray": {**FFV1, "pix_fmt": "gray"},
    "gray of limited range": {**FFV1, "pix_fmt": "gray", **tag(2, 1)},
    "gray16le": {**FFV1, "pix_fmt": "gray16le"},
    "bgr0": {**FFV1, "pix_fmt": "bgr0"},
    "bgra": {**FFV1, "pix_fmt": "bgra"},
    "gbrp10le": {**FFV1, "pix_fmt": "gbrp10le"},
    "rgb24": {"codec": "rawvideo", "pix_fmt": "rgb24", "extension": "mov"},
    "bgr24 from bottom to top": {"codec": "rawvideo", "pix_fmt": "bgr24", "extension": "avi"},
    "MPEG-2": {"codec": "mpeg2video"},
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_videos(tmp_path: Path, kind: str) -> None:
    how = {"extension": "mkv"} | VIDEOS[kind]
    path = encode(tmp_path / f"clip.{how.pop('extension')}", 3, **how)
    assert torch.equal(swscale(path), by_pyav(path))


@pytest.mark.parametrize("name", ["bigbuckbunny", "bikes", "carphone_pristine", "carphone_distorted"])
def test_real_clips_from_anywhere(samples: Path, name: str) -> None:
    path = samples / f"{name}.mp4"
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        expected = [frame.to_ndarray(format="rgb24") for number, frame in zip(range(24), frames, strict=False)]
    start = read_video(path, 0, 4, rgb_conversion="swscale")
    assert np.array_equal(start.frames.permute(0, 2, 3, 1), expected[:4])
    assert start.frames.is_contiguous()
    reader = VideoReader(path, rgb_conversion="swscale")
    later = torch.cat([clip.frames for clip in reader.clips(12, 4, 3, batch_size=3)])
    assert np.array_equal(later.permute(0, 2, 3, 1), expected[12:24:3])


def test_it_is_not_the_accurate_conversion(tmp_path: Path) -> None:
    subsampled = encode(tmp_path / "subsampled.mp4", 2)
    assert not torch.equal(swscale(subsampled), read_video(subsampled).frames)
    rgb = encode(tmp_path / "rgb.mkv", 2, codec="ffv1", pix_fmt="bgr0")
    assert torch.equal(swscale(rgb), read_video(rgb).frames)


def test_tags_formats_and_sizes_may_change_within_a_video() -> None:
    convert = SwscaleConverter()
    for pix_fmt in ("yuv420p", "yuv444p10le", "rgb24"):
        for matrix, color_range in ((1, 1), (9, 1), (2, 0), (6, 2)):
            frame = rgb_frame(numbered_picture(3)).reformat(format=pix_fmt)
            frame.colorspace, frame.color_range = matrix, color_range
            assert np.array_equal(np.stack(convert(frame, 64, 48), 2), frame.to_ndarray(format="rgb24"))
            smaller = frame.to_ndarray(format="rgb24", width=32, height=24)
            assert np.array_equal(np.stack(convert(frame, 32, 24), 2), smaller)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "nv12", "yuva420p"])
def test_noise_of_any_size(pix_fmt: str) -> None:
    noise, convert = np.random.default_rng(0), SwscaleConverter()
    for width, height in [(8, 2), (16, 6), (24, 8), (34, 20), (48, 7), (63, 48), (80, 34), (130, 66), (144, 2)]:
        for matrix, color_range in ((1, 1), (2, 0), (6, 2), (9, 1)):
            frame = av.VideoFrame(width, height, pix_fmt)
            for plane in frame.planes:
                plane.update(noise.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
            frame.colorspace, frame.color_range = matrix, color_range
            expected = frame.to_ndarray(format="rgb24")
            assert np.array_equal(np.stack(convert(frame, width, height), 2), expected), (width, height)


def test_what_the_container_says_comes_after_the_conversion(tmp_path: Path) -> None:
    turned = set_display_matrix(encode(tmp_path / "turned.mp4", 2), 0, 1, -1, 0)
    assert read_video(turned).frames.shape == (2, 3, 64, 48)
    assert torch.equal(swscale(turned), by_pyav(turned).rot90(1, (3, 2)))

    cropped = encode(tmp_path / "cropped.mov", size=(72, 60), **tag(1, 1), pictures=map(barred, range(2)))
    with_clean_aperture(cropped)
    assert torch.equal(swscale(cropped), by_pyav(cropped)[:, :, 8:56, 6:70])


def test_images(tmp_path: Path) -> None:
    picture = Image.fromarray(numbered_picture(5))
    transparent = picture.copy()
    transparent.putalpha(100)
    kinds = {"a.jpg": picture, "a.webp": picture, "a.png": picture, "palette.png": picture.quantize(16)}
    for name, image in (kinds | {"alpha.png": transparent, "a.tif": picture}).items():
        image.save(tmp_path / name)
        assert torch.equal(swscale(tmp_path / name), by_pyav(tmp_path / name)), name


@pytest.mark.parametrize(("mode", "compression"), [("YCbCr", None), ("CMYK", None), ("RGB", "jpeg")])
def test_tiff_that_libtiff_converts(tmp_path: Path, mode: str, compression: str | None) -> None:
    Image.fromarray(numbered_picture(5)).convert(mode).save(tmp_path / "a.tif", compression=compression)
    assert torch.equal(swscale(tmp_path / "a.tif"), read_video(tmp_path / "a.tif").frames)
    assert not torch.equal(swscale(tmp_path / "a.tif"), by_pyav(tmp_path / "a.tif"))


def test_numbered_images(tmp_path: Path) -> None:
    pattern = numbered_images(tmp_path / "f%02d.jpg", range(1, 4))
    images = [by_pyav(tmp_path / f"f{number:02}.jpg") for number in range(1, 4)]
    assert torch.equal(swscale(pattern), torch.cat(images))
    assert not torch.equal(swscale(pattern), read_video(pattern).frames)


@pytest.mark.parametrize("extension", ["gif", "png", "webp"])
def test_animations(tmp_path: Path, extension: str) -> None:
    path = animation(tmp_path / f"a.{extension}", 3)
    if extension == "webp":  # FFmpeg cannot read it
        assert torch.equal(swscale(path), read_video(path).frames)
    else:
        assert torch.equal(swscale(path), by_pyav(path))


def test_what_swscale_cannot_convert_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = encode(tmp_path / "odd.mp4", 2, **tag(8))  # YCgCo
    with pytest.raises(VaectlError, match=r"odd\.mp4: its colour matrix \(H\.273: 8\) is not supported"):
        swscale(path)


def test_a_conversion_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`rgb_conversion` must be accurate or swscale, not 'fast'"):
        read_video(tmp_path / "none.mp4", rgb_conversion="fast")  # type: ignore[arg-type]
