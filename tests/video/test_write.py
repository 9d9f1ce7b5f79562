"""Written files: every extension and size, exact times, correct colours, and the loss of the codec."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vaectl.errors import UsageError, VaectlError
from vaectl.video import Clip, ColorTags, VideoReader, read_video
from vaectl.video.encoding import ENCODINGS
from vaectl.video.write import VideoWriter, write_video

VIDEO = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".gif")
IMAGE = tuple(extension for extension in ENCODINGS if extension not in VIDEO)
SIZES = [(64, 48), (63, 48), (47, 33), (1, 1), (1, 7), (9, 1)]


def moving_gradient(frames: int, width: int, height: int, times: list[Fraction] | None = None) -> Clip:
    y, x = np.mgrid[:height, :width]
    pictures = [[(x * 3 + 5 * t) % 200, (y * 4 + t) % 220, (x + y + 3 * t) % 250] for t in range(frames)]
    rate = Fraction(25) if times is None or len(times) < 2 else (len(times) - 1) / (times[-1] - times[0])
    times = times or [i / rate for i in range(frames)]
    return Clip(torch.from_numpy(np.array(pictures, np.uint8)), tuple(times), rate)


def write(path: Path, clip: Clip, **options: object) -> VideoWriter:
    height, width = clip.frames.shape[-2:]
    defaults = {"width": width, "height": height, "frame_rate": clip.frame_rate, "timestamps": clip.timestamps}
    with VideoWriter(path, **{**defaults, **options}) as writer:  # type: ignore[arg-type]  # options of many types
        for first in range(0, len(clip), 3):
            part = slice(first, first + 3)
            writer.write(Clip(clip.frames[part], clip.timestamps[part], clip.frame_rate))
    return writer


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    mse = (a.double() - b.double()).square().mean((1, 2, 3)).clamp(min=1 / a[0].numel())
    return float((10 * torch.log10(255**2 / mse)).mean())


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("extension", VIDEO)
def test_every_frame_comes_back_from_every_video_format(tmp_path: Path, extension: str, size: tuple[int, int]) -> None:
    clip = moving_gradient(7, *size)
    writer = write(tmp_path / f"a{extension}", clip, measure=True)
    back = read_video(tmp_path / f"a{extension}")
    assert back.timestamps == clip.timestamps
    assert back.frame_rate == clip.frame_rate
    assert back.frames.shape == clip.frames.shape
    assert psnr(back.frames, clip.frames) > (30 if extension == ".gif" else 38)
    exact = torch.equal(back.frames, clip.frames)
    assert writer.codec_psnr == (math.inf if exact else pytest.approx(psnr(back.frames, clip.frames), abs=0.01))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("extension", [e for e in ENCODINGS if True in ENCODINGS[e]])
def test_lossless_is_bit_exact(tmp_path: Path, extension: str, size: tuple[int, int]) -> None:
    noise = torch.randint(0, 256, (1 if extension in IMAGE else 5, 3, *size[::-1]), dtype=torch.uint8)
    clip = Clip(noise, moving_gradient(len(noise), *size).timestamps, Fraction(25))
    writer = write(tmp_path / f"a{extension}", clip, lossless=True, measure=True)
    assert torch.equal(read_video(tmp_path / f"a{extension}").frames, noise)
    assert writer.codec_psnr == math.inf


@pytest.mark.parametrize("extension", IMAGE)
def test_images_hold_one_frame(tmp_path: Path, extension: str) -> None:
    clip = moving_gradient(1, 31, 17)
    writer = write(tmp_path / f"a{extension}", clip, measure=True)
    back = read_video(tmp_path / f"a{extension}").frames
    exact = extension in (".png", ".bmp", ".tif", ".tiff")
    assert torch.equal(back, clip.frames) if exact else psnr(back, clip.frames) > 38
    assert writer.codec_psnr == (math.inf if exact else pytest.approx(psnr(back, clip.frames), abs=0.01))

    with pytest.raises(UsageError, match=r"b\.\w+: an image holds one frame, not 2"):
        write_video(tmp_path / f"b{extension}", moving_gradient(2, 31, 17))
    with pytest.raises(UsageError, match="one frame"):
        write(tmp_path / f"b{extension}", moving_gradient(2, 31, 17), timestamps=None)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{extension}"]


def test_real_clips_are_visually_lossless(tmp_path: Path, samples: Path) -> None:
    for name, decibels in (("bikes", 45.5), ("carphone_pristine", 40)):
        clip = read_video(samples / f"{name}.mp4", num_frames=20)
        assert (write(tmp_path / f"{name}.mp4", clip, measure=True).codec_psnr or 0) > decibels
        assert (write(tmp_path / f"{name}.webm", clip, measure=True).codec_psnr or 0) > decibels - 1


def test_one_exact_frame_does_not_make_the_mean_infinite(tmp_path: Path) -> None:
    clip = moving_gradient(4, 64, 48)
    clip.frames[:2] = 16
    found = write(tmp_path / "a.mp4", clip, measure=True).codec_psnr
    assert found is not None
    assert found < 150


IRREGULAR = {
    "odd ticks of 90 kHz": [Fraction(n, 90000) for n in (0, 3003, 6007, 6107, 15015, 400000)],
    "slide show": [Fraction(n) for n in (0, 60, 61, 7200)],
    "29.97 Hz with gaps": [Fraction(1001 * n, 30000) for n in (0, 1, 2, 5, 6, 9, 30)],
    "rounded to milliseconds": [Fraction(n, 1000) for n in (0, 33, 67, 100, 133, 167, 200)],
    "begins below 0": [Fraction(n, 12800) for n in (-1024, -512, 0, 511, 1024)],
}


@pytest.mark.parametrize("extension", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("times", IRREGULAR.values(), ids=IRREGULAR.keys())
def test_irregular_times_are_kept_exactly_from_zero_on(tmp_path: Path, extension: str, times: list[Fraction]) -> None:
    write(tmp_path / f"a{extension}", moving_gradient(len(times), 32, 32, times))
    with VideoReader(tmp_path / f"a{extension}") as reader:
        assert list(reader.timestamps()) == [time - times[0] for time in times]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(50), Fraction(10)])
@pytest.mark.parametrize("extension", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("announced", [True, False])
def test_constant_rates_are_kept_as_fractions(tmp_path: Path, extension: str, rate: Fraction, announced: bool) -> None:
    clip = moving_gradient(20, 32, 32, [5 + i / rate for i in range(20)])
    write(tmp_path / f"a{extension}", clip, **({} if announced else {"timestamps": None}))
    with VideoReader(tmp_path / f"a{extension}") as reader:
        times = reader.timestamps()
        assert reader.info.frame_rate == rate
        if announced or extension in (".mp4", ".mov"):
            assert list(times) == [i / rate for i in range(20)]
        else:
            assert all(abs(time - i / rate) <= Fraction(1, 2000) for i, time in enumerate(times))
    with av.open(str(tmp_path / f"a{extension}")) as container:
        assert container.duration / 1e6 == pytest.approx(float(20 / rate), abs=0.0011)


def test_a_rate_beyond_any_clock_is_kept_to_the_microsecond(tmp_path: Path) -> None:
    rate = Fraction(1234567891, 41152263)
    clip = moving_gradient(5, 32, 32, [i / rate for i in range(5)])
    for timestamps in (None, clip.timestamps):
        write(tmp_path / "a.mp4", clip, timestamps=timestamps, overwrite=True)
        times = read_video(tmp_path / "a.mp4").timestamps
        assert all(abs(time - i / rate) <= Fraction(1, 10**6) for i, time in enumerate(times))


def test_a_gif_shows_each_frame_for_its_time(tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1, 10), Fraction(1, 2), Fraction(60, 100)]
    write(tmp_path / "a.gif", moving_gradient(4, 32, 32, times))
    assert list(read_video(tmp_path / "a.gif").timestamps) == times
    with av.open(str(tmp_path / "a.gif")) as container:
        assert container.duration / 1e6 == pytest.approx(0.8)


def test_times_that_a_format_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    clip = moving_gradient(4, 32, 32, [Fraction(i, 5000) for i in range(4)])
    with pytest.raises(VaectlError, match=r"a.mkv: frames 0 and 1 are too close in time"):
        write(tmp_path / "a.mkv", clip)
    assert not list(tmp_path.iterdir())
    write(tmp_path / "a.mp4", clip)
    assert read_video(tmp_path / "a.mp4").timestamps == clip.timestamps


MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def ycbcr(rgb_CHW: np.ndarray, matrix: int, chroma: int) -> list[np.ndarray]:
    """The formulas of ITU-T H.273 for limited range. Chroma is the mean over square blocks."""
    kr, kb = MATRICES[matrix]
    red, green, blue = rgb_CHW / 255.0
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    planes = [16 + 219 * luma, 128 + 112 * (blue - luma) / (1 - kb), 128 + 112 * (red - luma) / (1 - kr)]
    height, width = luma.shape
    blocks = (height // chroma, chroma, width // chroma, chroma)
    return [planes[0], *(plane.reshape(blocks).mean((1, 3)) for plane in planes[1:])]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(("extension", "width"), [(".mp4", 64), (".mp4", 63), (".webm", 64)])
def test_samples_follow_the_tagged_matrix(tmp_path: Path, matrix: int, extension: str, width: int) -> None:
    patches = torch.randint(0, 256, (1, 3, 3, width), dtype=torch.uint8)
    patches = patches.repeat_interleave(16, 2)[:, :, :, torch.arange(width) // 16 * 16]
    color = ColorTags(primaries=9, transfer=14, matrix=matrix)
    write(tmp_path / f"a{extension}", Clip(patches, (Fraction(0),), Fraction(25)), color=color)
    with av.open(str(tmp_path / f"a{extension}")) as container:
        frame = next(container.decode(video=0))
    tags = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
    if extension == ".webm":  # VP9 has one code for both systems of BT.601
        assert tags[2] in ((5, 6) if matrix in (5, 6) else (matrix,))
    else:
        assert tags == (9, 14, matrix, 1)
    subsampled = frame.format.name == "yuv420p"
    assert subsampled == (width == 64)
    for plane, expected in zip(frame.planes, ycbcr(patches[0].numpy(), matrix, 2 if subsampled else 1), strict=True):
        samples = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width]
        if extension == ".webm" and plane.width < width:  # co-sited with every second pixel, with a longer filter
            samples, expected = samples[4::8, 4::8], expected[4::8, 4::8]
        assert np.abs(samples - expected).mean() < 1
    inside = (slice(None), slice(None), slice(8, None, 16), slice(8, None, 16))  # away from where chroma blurs
    error = (read_video(tmp_path / f"a{extension}").frames.int() - patches.int())[inside].abs()
    assert error.max() <= 4


def test_unknown_colours_are_tagged_as_players_assume_them(tmp_path: Path) -> None:
    for size, expected in (((64, 48), (6, 6, 6)), ((1280, 2), (1, 1, 1))):
        write(tmp_path / "a.mp4", moving_gradient(1, *size), overwrite=True)
        color = VideoReader(tmp_path / "a.mp4").info.color
        assert (color.primaries, color.transfer, color.matrix, color.full_range) == (*expected, False)


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".mov"])
def test_lossless_files_are_tagged_as_rgb(tmp_path: Path, extension: str) -> None:
    write(tmp_path / f"a{extension}", moving_gradient(2, 64, 48), lossless=True, color=ColorTags(1, 13, 1, False))
    color = VideoReader(tmp_path / f"a{extension}").info.color
    assert (color.primaries, color.transfer, color.matrix) == (1, 13, 0)


def test_chroma_is_not_shifted(tmp_path: Path) -> None:
    """An edge between two colours at the edge of a chroma block blurs equally to both sides."""
    left, right = (torch.tensor(color, dtype=torch.uint8)[:, None, None] for color in ((180, 110, 80), (80, 130, 180)))
    picture = torch.cat([left.expand(3, 32, 32), right.expand(3, 32, 32)], dim=2)[None]
    write(tmp_path / "a.mp4", Clip(picture, (Fraction(0),), Fraction(25)))
    row = read_video(tmp_path / "a.mp4").frames[0, :, 16].int()
    assert (row[0] + row[0].flip(0) - 260).abs().max() <= 4
    assert (row[2] + row[2].flip(0) - 260).abs().max() <= 4


def test_pixel_aspect_and_metadata_are_written(tmp_path: Path) -> None:
    clip = moving_gradient(2, 64, 48)
    for extension in (".mp4", ".mkv", ".mov", ".webm"):
        target = tmp_path / f"a{extension}"
        words: list[str] = []
        write(target, clip, sample_aspect_ratio=Fraction(4, 3), metadata={"title": "Überfahrt"}, warn=words.append)
        if extension == ".webm":
            assert "square pixels" in words[0]
        else:
            assert VideoReader(target).info.sample_aspect_ratio == Fraction(4, 3)
        with av.open(str(target)) as container:
            assert {k.lower(): v for k, v in container.metadata.items()}["title"] == "Überfahrt"


def test_measuring_holds_frames_only_for_the_delay_of_the_encoder(tmp_path: Path) -> None:
    clip = moving_gradient(300, 16, 16)
    held = 0
    with VideoWriter(tmp_path / "a.mp4", width=16, height=16, frame_rate=Fraction(25), measure=True) as writer:
        for i in range(300):
            writer.write(Clip(clip.frames[i : i + 1], clip.timestamps[i : i + 1], clip.frame_rate))
            assert writer._psnr_meter
            held = max(held, len(writer._psnr_meter._given))
    assert held < 80


def test_wrong_frames_are_the_callers_error(tmp_path: Path) -> None:
    clip = moving_gradient(3, 32, 32)
    with pytest.raises(ValueError, match="frames, not"):
        write(tmp_path / "a.mp4", clip, height=33)
    with pytest.raises(ValueError, match="frames, not"):
        write(tmp_path / "a.mp4", Clip(clip.frames.float(), clip.timestamps, clip.frame_rate))
    with pytest.raises(ValueError, match="does not come after"):
        write(
            tmp_path / "a.mp4",
            Clip(clip.frames, (Fraction(0), Fraction(1), Fraction(1)), clip.frame_rate),
            timestamps=None,
        )
    with pytest.raises(ValueError, match="not as announced"):
        write(tmp_path / "a.mp4", clip, timestamps=(*clip.timestamps[:2], Fraction(9)))
    assert not list(tmp_path.iterdir())
