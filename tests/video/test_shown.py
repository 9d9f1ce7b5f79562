"""Frames are shown as players show them: alpha, cropping, chroma, choice of stream, and every TIFF."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile
import torch
from av.stream import Disposition
from PIL import Image
from tests.video.media import encode, number_of, numbered_picture

from vaectl.errors import VaectlError
from vaectl.video import VideoReader, read_video
from vaectl.video.clip import others_left_out
from vaectl.video.read import frames_at_once

# Alpha


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_alpha_of_vp8_and_vp9_is_shown_over_black(tmp_path: Path, codec: str) -> None:
    def half_transparent() -> Any:
        picture = np.zeros((48, 64, 4), np.uint8)
        picture[..., 0] = 255
        picture[:, 32:, 3] = 255
        for _ in range(6):
            yield av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="yuva420p")

    options = {"auto-alt-ref": "0", "b": "1M", "g": "3"}
    path = encode(tmp_path / "a.webm", 6, codec=codec, pix_fmt="yuva420p", options=options, pictures=half_transparent())
    clip = read_video(path)
    assert len(clip) == 6
    assert clip.frames[:, :, :, :24].max() <= 8
    assert clip.frames[:, 0, :, 40:].min() >= 240
    assert torch.equal(read_video(path, 4, 1).frames, clip.frames[4:5])


# Cropping


def barred(number: int) -> av.VideoFrame:
    """A numbered picture of 64x48 between red bars: 8 rows above, 4 below, 6 columns left, 2 right."""
    picture = np.zeros((60, 72, 3), np.uint8)
    picture[..., 0] = 255
    picture[8:56, 6:70] = numbered_picture(number)
    return av.VideoFrame.from_ndarray(picture, format="rgb24")


def with_clean_aperture(path: Path) -> None:
    """Insert a `clap` box into the only track of an MP4 with its index at the end."""
    data = path.read_bytes()
    # Width, height, and offset of the centre, as fractions.
    clap = struct.pack(">I4s8i", 40, b"clap", 64, 1, 48, 1, 4, 2, 4, 2)
    at = data.index(b"avcC") - 4
    boxes = [data.index(name) - 4 for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")]
    changed = bytearray(data[:at] + clap + data[at:])
    for box in boxes:
        (size,) = struct.unpack_from(">I", changed, box)
        struct.pack_into(">I", changed, box, size + len(clap))
    path.write_bytes(changed)


def with_pixel_crop(path: Path) -> None:
    """Replace the colour elements of a Matroska file by PixelCrop elements."""
    data = path.read_bytes()
    at = data.index(b"\x55\xb0")
    length = 3 + (data[at + 2] & 0x7F)
    crop = b"\x54\xbb\x81\x08\x54\xaa\x81\x04\x54\xcc\x81\x06\x54\xdd\x81\x02"
    void = b"\xec" + bytes([0x80 | length - len(crop) - 2]) + bytes(length - len(crop) - 2)
    path.write_bytes(data[:at] + crop + void + data[at + length :])


@pytest.mark.parametrize(
    ("extension", "mark"), [("mp4", with_clean_aperture), ("mov", with_clean_aperture), ("mkv", with_pixel_crop)]
)
def test_what_the_container_crops_is_not_shown(tmp_path: Path, extension: str, mark: Callable[[Path], None]) -> None:
    def tag(stream: Any) -> None:
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 1, 1, 1, 1

    path = encode(
        tmp_path / f"a.{extension}",
        6,
        size=(72, 60),
        pix_fmt="yuv444p",
        options={"qp": "0", "g": "3"},
        configure=tag,
        container_options={"write_crc32": "0"} if extension == "mkv" else {},
        pictures=map(barred, range(6)),
    )
    stored = read_video(path).frames
    assert stored.shape == (6, 3, 60, 72)
    mark(path)
    with VideoReader(path) as reader:
        assert (reader.info.width, reader.info.height) == (64, 48)
        clip = reader.read()
    assert [number_of(frame) for frame in clip.frames] == list(range(6))
    assert torch.equal(clip.frames, stored[:, :, 8:56, 6:70])


# Chroma


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "extension", "centred"),
    [
        ("prores_ks", "yuv422p10le", "mov", False),
        ("ffv1", "yuv422p", "mkv", False),
        ("ffv1", "yuv420p", "mkv", False),
        ("huffyuv", "yuv422p", "avi", False),
        ("rawvideo", "uyvy422", "mov", False),
        ("rawvideo", "yuv420p", "avi", False),
        ("libx264", "yuv422p", "mp4", False),
        ("libx264", "yuv420p", "mp4", False),
        ("libvpx-vp9", "yuv420p", "webm", False),
        ("mjpeg", "yuvj422p", "mov", True),
        ("mpeg1video", "yuv420p", "mpg", True),
    ],
)
def test_chroma_is_where_the_codec_has_it(
    tmp_path: Path, codec: str, pix_fmt: str, extension: str, centred: bool
) -> None:
    """A horizontal ramp of Cb: its values show the assumed location of the samples."""
    width, height = 96, 64
    planes = [np.full((height, width), 126), np.tile(2 * np.arange(width // 2) + 80, (height, 1))]
    ramp = av.VideoFrame(width, height, "yuv422p")
    for plane, values in zip(ramp.planes, (*planes, np.full((height, width // 2), 128)), strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : values.shape[1]] = values
        plane.update(padded.tobytes())
    full = pix_fmt.startswith("yuvj")
    if full:
        ramp.color_range = 2
        coded = ramp.reformat(format=pix_fmt, src_color_range=2, dst_color_range=2)
    else:
        coded = ramp.reformat(format=pix_fmt)
    path = encode(
        tmp_path / f"a.{extension}",
        1,
        codec=codec,
        pix_fmt=pix_fmt,
        size=(width, height),
        options={"libx264": {"qp": "0"}, "libvpx-vp9": {"lossless": "1"}}.get(codec),
        pictures=[coded],
    )
    blue = read_video(path).frames[0, 2, 20:44].double().mean(0).numpy()
    luma, scale = (126.0, 1.772) if full else (1.164383 * (126 - 16), 2.017232)
    position = ((blue - luma) / scale + 128 - 80) / 2  # in chroma samples
    offset = float((np.arange(width) / 2 - position)[20:44].mean())
    assert offset == pytest.approx(0.25 if centred else 0, abs=0.12)


# Streams


def two_streams(path: Path, default: int | None) -> Path:
    """A small stream of numbers from 0 and a large one of numbers from 100."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, size in enumerate(((64, 48), (128, 96))):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            if default is not None:
                stream.disposition = Disposition.default if number == default else Disposition(0)
            streams.append(stream)
        for time in range(4):
            for stream, first in zip(streams, (0, 100), strict=True):
                picture = numbered_picture(first + time, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = time
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("extension", "default", "first"), [("ts", None, 100), ("mkv", 0, 0), ("mkv", 1, 100)])
def test_of_several_streams_the_default_one_is_read_else_the_largest(
    tmp_path: Path, extension: str, default: int | None, first: int
) -> None:
    with VideoReader(two_streams(tmp_path / f"a.{extension}", default)) as reader:
        assert [number_of(frame) for frame in reader.read().frames] == [first + n for n in range(4)]
        assert reader.info.other_videos == 1
        size = "128x96" if first else "64x48"
        assert others_left_out(reader.info).startswith(f"holds 2 video streams; the one of {size}")


# TIFF

PICTURE = numbered_picture(5, 96, 64)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "lzma", "zstd"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_compressed_tiffs(tmp_path: Path, compression: str, mode: str) -> None:
    image = Image.fromarray(PICTURE).convert(mode)
    try:
        image.save(tmp_path / "a.tif", compression=compression)
    except OSError:
        assert compression == "zstd"
        pytest.skip("TIFF with Zstandard: this version of Pillow cannot write it; install a newer one")
    expected = np.asarray(Image.open(tmp_path / "a.tif").convert("RGB")).astype(int)
    assert np.abs(np.asarray(image.convert("RGB")) - expected).mean() < 8
    shown = read_video(tmp_path / "a.tif").frames[0].permute(1, 2, 0).numpy()
    assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["tiles", "planes", "BigTIFF", "gray tiles", "alpha"])
def test_kinds_of_tiffs(tmp_path: Path, kind: str, compression: str | None, bits: int) -> None:
    picture = PICTURE if bits == 8 else PICTURE.astype(np.uint16) * 257
    how: dict[str, Any] = {"photometric": "rgb", "compression": compression}
    expected = PICTURE.astype(float)
    if kind == "planes":
        picture, how["planarconfig"] = np.ascontiguousarray(picture.transpose(2, 0, 1)), "separate"
    elif kind == "BigTIFF":
        how["bigtiff"] = True
    elif kind == "gray tiles":
        picture, how = np.ascontiguousarray(picture[..., 0]), {"tile": (32, 32), "compression": compression}
        expected = np.repeat(expected[..., :1], 3, 2)
    elif kind == "alpha":
        half = np.full((64, 96, 1), 128 if bits == 8 else 128 * 257, picture.dtype)
        picture = np.concatenate([picture, half], 2)
        how |= {"extrasamples": ["unassalpha"], "tile": (32, 32)}
        expected = expected * 128 / 255
    else:
        how["tile"] = (32, 32)
    tifffile.imwrite(tmp_path / "a.tif", picture, **how)
    with VideoReader(tmp_path / "a.tif") as reader:
        assert (reader.info.is_image, reader.info.width, reader.info.height) == (True, 96, 64)
        shown = reader.read().frames[0].permute(1, 2, 0).numpy()
    assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiles_of_16_bits_are_turned(tmp_path: Path, orientation: int) -> None:
    for name, bits in (("8.tif", 1), ("16.tif", 257)):
        picture = PICTURE.astype(np.uint8 if bits == 1 else np.uint16) * bits
        tag = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(
            tmp_path / name, picture.astype(picture.dtype), photometric="rgb", tile=(32, 32), extratags=tag
        )
    assert torch.equal(read_video(tmp_path / "16.tif").frames, read_video(tmp_path / "8.tif").frames)


def test_tiffs_that_cannot_be_read_are_refused_by_what_they_are(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "float.tif", PICTURE[..., 0].astype(np.float32))
    tifffile.imwrite(tmp_path / "whole.tif", PICTURE, photometric="rgb", tile=(32, 32))
    (tmp_path / "cut.tif").write_bytes((tmp_path / "whole.tif").read_bytes()[:9000])
    for name, said in (("float", "floating-point numbers of 32 bits"), ("cut", "cannot be read")):
        with pytest.raises(VaectlError, match=rf"{name}\.tif: .*{said}"):
            read_video(tmp_path / f"{name}.tif")


def test_a_jpeg_that_ffmpeg_only_complains_about_is_refused(tmp_path: Path) -> None:
    Image.fromarray(numbered_picture(5, 200, 150)).save(tmp_path / "a.jpg", quality=95)
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = b"\x7f" * 400
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(VaectlError, match=r"a\.jpg: decoding fails"):
        read_video(tmp_path / "a.jpg")


# Size


def test_windows_shrink_with_the_size_of_the_file(tmp_path: Path) -> None:
    small = VideoReader(encode(tmp_path / "a.mp4", 1)).info
    assert frames_at_once(small, 8) == 8
    Image.new("P", (6000, 6000)).save(tmp_path / "huge.gif")
    assert frames_at_once(VideoReader(tmp_path / "huge.gif").info, 8) == 2


def test_what_cannot_be_allocated_is_an_error_with_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", 3)

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("Unable to allocate 27.0 KiB for an array with shape (3, 3, 48, 64) and data type uint8")

    with VideoReader(path) as reader:
        reader.timestamps()
        monkeypatch.setattr(np, "empty", fail)
        with pytest.raises(VaectlError, match=r"a\.mp4: out of memory: its frames have 64x48 pixels"):
            next(reader.clips())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("kind", ["premultiplied", "unspecified", "gray alpha", "gray premultiplied", "CMYK"])
def test_what_else_is_in_tiffs_of_16_bits(tmp_path: Path, kind: str, tile: Any, order: str) -> None:
    rgb, fourth = PICTURE.astype(float) / 255, np.full((64, 96, 1), 0.5)
    how: dict[str, Any] = {"photometric": "rgb", "tile": tile, "byteorder": order}
    samples, expected = np.concatenate([rgb, fourth], 2), rgb
    if kind == "premultiplied":
        samples = np.concatenate([rgb * 0.5, fourth], 2)
        how["extrasamples"], expected = ["assocalpha"], rgb * 0.5
    elif kind == "unspecified":
        how["extrasamples"] = ["unspecified"]
    elif kind.startswith("gray"):
        gray = rgb[..., :1] * (0.5 if kind == "gray premultiplied" else 1)
        samples, expected = np.concatenate([gray, fourth], 2), np.repeat(rgb[..., :1] * 0.5, 3, 2)
        alpha = "unassalpha" if kind == "gray alpha" else "assocalpha"
        how |= {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [alpha]}
    else:
        how["photometric"], expected = "separated", (1 - rgb) * 0.5
    tifffile.imwrite(tmp_path / "a.tif", (samples * 65535).round().astype(np.uint16), **how)
    shown = read_video(tmp_path / "a.tif").frames[0].permute(1, 2, 0).numpy()
    assert np.abs(shown - expected * 255).max() <= 1


def test_no_limit_is_set_to_the_pixels_of_a_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.tif", compression="tiff_deflate")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # a third of the size of the picture
    assert np.array_equal(read_video(tmp_path / "a.tif").frames[0].permute(1, 2, 0).numpy(), PICTURE)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_libraries_print_nothing_about_a_damaged_tiff(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(PICTURE).save(path, compression="tiff_deflate")
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(100) + content[200:])
    with pytest.raises(VaectlError, match=r"a\.tif: the TIFF cannot be read"):
        read_video(path)
    assert capfd.readouterr() == ("", "")


SHORT = """
import resource, sys
from pathlib import Path
import torch
from vaectl.errors import VaectlError
from vaectl.video import VideoReader

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
enough = 0
for room in range(20, 620, 30):
    resource.setrlimit(resource.RLIMIT_AS, (used + room * 2**20, resource.RLIM_INFINITY))
    try:
        print(sum(len(clip.frames) for clip in VideoReader(sys.argv[1], threads=1).clips(batch_size=1)))
        enough += 1
        if enough == 3:  # more room shows nothing
            break
    except VaectlError as error:
        print(error)
"""


@pytest.mark.parametrize(("extension", "side"), [("gif", 4000), ("webp", 2000)])
def test_wherever_in_reading_memory_is_short_that_is_said_and_not_damage(
    tmp_path: Path, extension: str, side: int
) -> None:
    path = tmp_path / f"a.{extension}"
    first, *others = [Image.new("L", (side, side)) for _ in range(3)]
    for number, picture in enumerate(others, 1):
        picture.paste(255, (0, 0, side // 4 * number, side // 4))
    first.save(path, save_all=True, append_images=others, duration=40)
    message = f"{path}: out of memory: its frames have {side}x{side} pixels; free some, or make it smaller first"
    done = subprocess.run([sys.executable, "-c", SHORT, path], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()) == {message, "3"}
