"""RGB follows the tags. Compared with the equations of BT.601, BT.709 and BT.2020 in float64."""

from __future__ import annotations

import ctypes
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av._core
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.video.media import encode

from vaectl.errors import VaectlError
from vaectl.video import color, read_video
from vaectl.video.color import RgbConverter, is_full_range, matrix_of

# H.273 matrix code -> weights of red and blue in luma.
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}


def frame_of(pix_fmt: str, planes: list[NDArray[Any]], **tags: int) -> av.VideoFrame:
    height, width = planes[0].shape[:2]
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, samples in zip(frame.planes, planes, strict=True):
        rows = samples.reshape(plane.height, -1)
        padded = np.zeros((plane.height, plane.line_size // rows.itemsize), rows.dtype)
        padded[:, : rows.shape[1]] = rows
        plane.update(padded.tobytes())
    for name, value in tags.items():
        setattr(frame, name, value)
    return frame


def convert(frame: av.VideoFrame, *, still: bool = False, codec: str = "h264") -> NDArray[np.uint8]:
    return np.stack(RgbConverter(still=still, codec=codec)(frame, frame.width, frame.height))


def rgb_by_the_book(ycbcr: NDArray[Any], matrix: int, full: bool, bits: int) -> NDArray[np.float64]:
    scale, largest = 1 << (bits - 8), (1 << bits) - 1
    y, cb, cr = ycbcr.astype(float)
    if full:
        y, cb, cr = y / largest, (cb - 128 * scale) / largest, (cr - 128 * scale) / largest
    else:
        y, cb, cr = (y / scale - 16) / 219, (cb / scale - 128) / 224, (cr / scale - 128) / 224
    red_weight, blue_weight = WEIGHTS[matrix]
    red, blue = y + 2 * (1 - red_weight) * cr, y + 2 * (1 - blue_weight) * cb
    green = (y - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return np.clip(255 * np.stack([red, green, blue]), 0, 255)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_matrix_range_and_depth(matrix: int, full: bool, bits: int) -> None:
    # All values, also those that no camera makes, where swscale overflows.
    samples = (
        np.random.default_rng(bits).integers(0, 1 << bits, (3, 128, 256)).astype(np.uint8 if bits == 8 else np.uint16)
    )
    pix_fmt = "yuv444p" if bits == 8 else f"yuv444p{bits}le"
    frame = frame_of(pix_fmt, list(samples), colorspace=matrix, color_range=2 if full else 1)
    error = np.abs(convert(frame) - rgb_by_the_book(samples, matrix, full, bits))
    assert error.max() <= 1.5
    # Values of cameras are rounded to the nearest level.
    usual = np.clip(samples, 16 << (bits - 8), 235 << (bits - 8))
    frame = frame_of(pix_fmt, list(usual), colorspace=matrix, color_range=2 if full else 1)
    error = np.abs(convert(frame) - rgb_by_the_book(usual, matrix, full, bits))
    assert error.max() <= (0.52 if bits == 8 or not full else 1)


def test_limited_blue_beyond_white_does_not_turn_black() -> None:
    samples = np.stack([np.full((16, 16), value, np.uint8) for value in (235, 250, 128)])
    frame = frame_of("yuv444p", list(samples), colorspace=1, color_range=1)
    assert convert(frame)[2].min() == 255


def test_chroma_of_half_resolution_is_interpolated_where_it_lies(tmp_path: Path) -> None:
    # H.264 samples chroma at the even columns; a ramp shows a shift by half a pixel.
    width, height = 256, 64
    ramp = np.tile(np.round(40 + 0.7 * 2 * np.arange(width // 2)).astype(np.uint8), (height // 2, 1))
    gray = np.full((height, width), 128, np.uint8)
    frame = frame_of("yuv420p", [gray, ramp, gray[: height // 2, : width // 2]])
    path = encode(tmp_path / "ramp.mp4", size=(width, height), options={"qp": "0"}, pictures=[frame])
    blue = read_video(path).frames[0, 2, 32].double().numpy()
    cb = (blue - (128 - 16) * 255 / 219) * 224 / 255 / 1.772 + 128
    place = (cb - 40) / 0.7
    assert abs((place - np.arange(width))[40:80].mean()) < 0.2


@pytest.mark.parametrize("pix_fmt", ["rgb24", "bgr24", "bgr0", "0rgb", "rgba", "bgra", "argb"])
def test_rgb_is_untouched(pix_fmt: str) -> None:
    order = pix_fmt.removesuffix("24").replace("0", "x")
    samples = np.random.default_rng(0).integers(0, 256, (48, 64, len(order))).astype(np.uint8)
    if "a" in order:
        samples[..., order.index("a")] = 255
    expected = np.stack([samples[..., order.index(channel)] for channel in "rgb"])
    for color_range in (0, 1, 2):
        assert np.array_equal(convert(frame_of(pix_fmt, [samples], color_range=color_range)), expected)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_rgb_and_gray_are_rounded_to_8_bits(bits: int) -> None:
    largest = (1 << bits) - 1
    samples = np.random.default_rng(0).integers(0, largest + 1, (3, 48, 64)).astype(np.uint16)
    green, blue, red = samples
    exact = samples[[2, 0, 1]].astype(float) * 255 / largest
    assert np.abs(convert(frame_of(f"gbrp{bits}le", [green, blue, red])) - exact).max() < 0.9
    gray = convert(frame_of(f"gray{bits}le", [green], color_range=2))
    assert np.abs(gray - green * (255 / largest)).max() < 0.9


def test_gray_of_limited_range() -> None:
    levels = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    stretched = np.clip((levels - 16.0) * 255 / 219, 0, 255)
    assert np.abs(convert(frame_of("gray", [levels], color_range=1)) - stretched).max() <= 0.5
    assert np.array_equal(convert(frame_of("gray", [levels], color_range=2))[0], levels)
    # Without a tag: as in the specification of the codec, else as stored.
    assert np.abs(convert(frame_of("gray", [levels]), codec="h264") - stretched).max() <= 0.5
    assert np.array_equal(convert(frame_of("gray", [levels]), codec="ffv1")[0], levels)
    half_seen = np.stack([levels, np.full_like(levels, 128)], -1)
    assert np.abs(convert(frame_of("ya8", [half_seen], color_range=1)) - stretched * 128 / 255).max() <= 1


def test_alpha_is_composited_over_black(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (48, 64, 4)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(samples, format="rgba")
    expected = samples[..., :3] * (samples[..., 3:] / 255)
    assert np.abs(convert(frame) - expected.transpose(2, 0, 1)).max() <= 0.5
    path = encode(tmp_path / "alpha.mkv", codec="ffv1", pix_fmt="bgra", pictures=[frame])
    assert np.abs(read_video(path).frames[0].numpy() - expected.transpose(2, 0, 1)).max() <= 0.5
    ycbcr = np.stack([np.full((48, 64), value, np.uint8) for value in (200, 128, 128, 51)])
    frame = frame_of("yuva444p", list(ycbcr), colorspace=1, color_range=1)
    assert np.abs(convert(frame) - (200 - 16) * 255 / 219 * 0.2).max() <= 0.8


def test_a_missing_matrix_is_guessed_as_players_do() -> None:
    def guessed(width: int, height: int, *, still: bool = False, **tags: int) -> int:
        frame = av.VideoFrame(width, height, "yuv420p")
        for name, value in tags.items():
            setattr(frame, name, value)
        return matrix_of(frame, still=still)

    assert guessed(720, 576) == 5
    assert guessed(1280, 544) == 1
    assert guessed(720, 720) == 1
    assert guessed(1920, 1080, still=True) == 5
    assert guessed(720, 576, color_primaries=9) == 9
    assert guessed(720, 576, colorspace=1) == 1


def test_a_guessed_matrix_is_the_one_that_is_used() -> None:
    planes = [np.full((48, 64), value, np.uint8) for value in (82, 120, 202)]
    frame = frame_of("yuv444p", planes, color_primaries=9, color_range=1)
    assert convert(frame)[:, 0, 0].tolist() == pytest.approx([201, 30, 60], abs=1)  # by BT.601: 195, 20, 61


def test_a_missing_range_is_limited_for_video_and_full_for_images() -> None:
    frame = av.VideoFrame(64, 48, "yuv420p")
    assert not is_full_range(frame, still=False, codec="h264")
    assert is_full_range(frame, still=True, codec="mjpeg")
    assert is_full_range(av.VideoFrame(64, 48, "yuvj420p"), still=False, codec="mjpeg")
    assert is_full_range(av.VideoFrame(64, 48, "gbrp"), still=False, codec="h264")


def test_a_matrix_that_is_not_known_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    def tag(stream: Any) -> None:
        stream.codec_context.colorspace = 8  # YCgCo

    path = encode(tmp_path / "odd.mp4", 2, configure=tag)
    with pytest.raises(VaectlError, match=r"odd\.mp4: its colour matrix \(H\.273: 8\)"):
        read_video(path)


def test_a_pixel_format_that_cannot_be_converted_is_an_error() -> None:
    with pytest.raises(VaectlError, match="pixel format rgba128le is not supported"):
        convert(av.VideoFrame(64, 48, "rgba128le"))


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (1, True), (5, False), (9, False), (9, True)])
@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264", "yuv444p"), ("libx265", "yuv444p10le")])
def test_tags_are_honoured_through_a_file(tmp_path: Path, codec: str, pix_fmt: str, matrix: int, full: bool) -> None:
    bits = 10 if "10" in pix_fmt else 8
    scale = 1 << (bits - 8)
    values = np.stack(
        [np.full((48, 64), value * scale, np.uint16 if bits > 8 else np.uint8) for value in (90, 160, 70)]
    )

    def tag(stream: Any) -> None:
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full else 1

    frame = frame_of(pix_fmt, list(values), colorspace=matrix, color_range=2 if full else 1)
    options = {"qp": "0"} if codec == "libx264" else {"x265-params": "lossless=1:log-level=none:pools=1:bframes=0"}
    path = encode(tmp_path / "clip.mp4", codec=codec, pix_fmt=pix_fmt, options=options, configure=tag, pictures=[frame])
    clip = read_video(path)
    expected = rgb_by_the_book(values[:, :1, :1], matrix, full, bits)
    assert np.abs(clip.frames[0].numpy() - expected).max() <= 1
    assert clip.frame_rate == Fraction(25)


def test_a_cpu_that_gathers_slowly_changes_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    planes = [draw.integers(0, 237, size).astype(np.uint8) for size in [(70, 150), (35, 75), (35, 75)]]
    ffmpeg = ctypes.CDLL(av._core.__file__)
    flags = ffmpeg.av_get_cpu_flags()
    try:
        ffmpeg.av_force_cpu_flags(flags & ~color._SLOW_GATHER)
        monkeypatch.setattr(color, "_avoid_gather", lambda: None)
        expected = convert(frame_of("yuv420p", planes, colorspace=1))
        ffmpeg.av_force_cpu_flags(flags | color._SLOW_GATHER)
        np.testing.assert_array_equal(convert(frame_of("yuv420p", planes, colorspace=1)), expected)
    finally:
        ffmpeg.av_force_cpu_flags(flags)
