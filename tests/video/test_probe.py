"""The facts about a file, or one clear line if it cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image, ImageCms, ImageOps, features
from tests.video.media import cut, encode, number_of, numbered_picture, set_display_matrix

from vaectl.errors import UsageError, VaectlError
from vaectl.video import VideoReader, read_video
from vaectl.video.container import fraction as exact
from vaectl.video.container import open_video
from vaectl.video.probe import probe
from vaectl.video.unsupported import is_missing_feature


def test_facts_of_a_real_clip(samples: Path) -> None:
    info = probe(samples / "bigbuckbunny.mp4")
    assert (info.width, info.height, info.frame_rate, info.num_frames_from_header) == (1280, 720, 25, 132)
    assert (info.codec, info.pixel_format, info.bit_depth) == ("h264", "yuv420p", 8)
    assert (info.sample_aspect_ratio, info.rotation, info.is_image, info.has_audio) == (1, 0, False, True)
    assert probe(str(samples / "carphone_pristine.mp4")).sample_aspect_ratio == Fraction(128, 117)


def test_opening_an_mp4_briefly_decodes_nothing(samples: Path) -> None:
    with open_video(samples / "carphone_pristine.mp4", 1) as (_, stream, _):
        assert stream.codec_context.format.name == "yuv420p"
    with open_video(samples / "carphone_pristine.mp4", 1, brief=True) as (container, stream, _):
        assert stream.codec_context.format is None  # only a decoder finds it
        assert (stream.codec_context.width, stream.codec_context.height) == (176, 144)
        assert stream.average_rate == Fraction(30000, 1001)
        stream.codec_context.decode(next(container.demux(stream)))
        assert stream.codec_context.format.name == "yuv420p"


def test_rates_and_ratios_are_exact_whatever_type_pyav_has_for_them(samples: Path) -> None:
    info = probe(samples / "carphone_pristine.mp4")
    assert type(info.frame_rate) is type(info.sample_aspect_ratio) is Fraction
    assert {type(time) for time in VideoReader(info.path).timestamps()} == {Fraction}
    assert str(info.frame_rate) == "30000/1001"
    assert str(probe(samples / "bigbuckbunny.mp4").frame_rate) == "25"


def test_reading_cannot_hang_because_ffmpeg_logs(samples: Path) -> None:
    """Older torchvision versions turn on FFmpeg's messages. To log, its threads take the GIL."""
    code = """
import sys, av.logging
from vaectl.video import VideoReader
av.logging.set_level(av.logging.DEBUG)
for _ in range(10):
    next(VideoReader(sys.argv[1]).clips(0, 3, 1, batch_size=1))
assert av.logging.get_level() == av.logging.DEBUG
"""
    command = [sys.executable, "-c", code, str(samples / "bigbuckbunny.mp4")]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=60)


class AVRational:
    """Like in PyAV 19: false if unset, with only numerator and denominator."""

    def __init__(self, numerator: int, denominator: int) -> None:
        self.numerator, self.denominator = numerator, denominator

    def __bool__(self) -> bool:
        return self.numerator != 0 and self.denominator != 0


def test_an_unset_rate_is_none() -> None:
    assert exact(AVRational(30000, 1001)) == exact(Fraction(30000, 1001)) == Fraction(30000, 1001)
    assert [exact(unset) for unset in (None, AVRational(0, 1), AVRational(1, 0), AVRational(0, 0))] == [None] * 4


def test_tags_and_hdr_are_reported(tmp_path: Path) -> None:
    def tag(stream: Any) -> None:
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 16, 9, 1

    # Without B-frames: for two frames libx265 sometimes returned packet times that the container refused.
    options = {"x265-params": "log-level=none:bframes=0"}
    path = encode(tmp_path / "hdr.mkv", 2, codec="libx265", pix_fmt="yuv420p10le", options=options, configure=tag)
    info = probe(path)
    assert info.bit_depth == 10
    assert (info.color.primaries, info.color.transfer, info.color.matrix, info.color.full_range) == (9, 16, 9, False)
    assert info.color.hdr == "PQ"


def test_a_quarter_turn_swaps_sides_and_pixel_shape(tmp_path: Path) -> None:
    def wide_pixels(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = encode(tmp_path / "clip.mp4", 2, configure=wide_pixels)
    assert probe(path).sample_aspect_ratio == Fraction(4, 3)
    info = probe(set_display_matrix(path, 0, 1, -1, 0))
    assert (info.width, info.height, info.rotation) == (48, 64, 90)
    assert info.sample_aspect_ratio == Fraction(3, 4)


def test_cover_art_is_not_the_video(tmp_path: Path) -> None:
    cover = encode(tmp_path / "cover.mkv", 1, codec="mjpeg", pix_fmt="yuvj420p", size=(32, 32))
    clip = encode(tmp_path / "clip.mp4", 5)
    both = join(tmp_path / "both.mp4", cover, clip)
    with VideoReader(both) as reader:
        assert reader.info.codec == "h264"
        assert [number_of(frame) for frame in reader.read().frames] == list(range(5))
    with pytest.raises(VaectlError, match=r"alone\.mp4 holds no picture"):
        probe(join(tmp_path / "alone.mp4", cover))


def join(target: Path, cover: Path, *clips: Path) -> Path:
    """Join the streams of these files in one file, the first as cover art."""
    with ExitStack() as stack:
        container = stack.enter_context(av.open(str(target), "w"))
        sources = [stack.enter_context(av.open(str(path))) for path in (cover, *clips)]
        streams = [container.add_stream_from_template(source.streams.video[0]) for source in sources]
        streams[0].disposition = Disposition.attached_pic
        for source, stream in zip(sources, streams, strict=True):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    container.mux(packet)
    return target


def test_files_that_are_no_video(tmp_path: Path) -> None:
    missing, empty, text, playlist = (tmp_path / f"{name}.mp4" for name in ("missing", "empty", "text", "playlist"))
    empty.touch()
    text.write_text("This is not a video.\n" * 100)
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    terminal = tmp_path / "notes.nfo"
    terminal.write_text("a text that FFmpeg would show as a film of a terminal\n" * 20)
    for path, kind, message in (
        (missing, UsageError, "no such file"),
        (tmp_path, UsageError, "is a folder"),
        (pipe, UsageError, "not an ordinary file"),
        (empty, VaectlError, "is empty"),
        (text, VaectlError, "not a video that can be read"),
        (playlist, VaectlError, "not a video that can be read"),
        (terminal, VaectlError, "not a video that can be read"),
        (sound, VaectlError, "holds only sound"),
        (cut(encode(tmp_path / "index_at_end.mp4", 5), 0.5), VaectlError, "its end is missing"),
    ):
        with pytest.raises(VaectlError) as caught:
            VideoReader(path)
        assert type(caught.value) is kind
        assert message in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_not_supported_is_not_called_broken(tmp_path: Path) -> None:
    picture = Image.fromarray(numbered_picture(5))
    translucent = picture.copy()
    translucent.putalpha(100)
    picture.save(tmp_path / "a.jp2")
    picture.save(tmp_path / "JP2.png", format="JPEG2000")
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a" + bytes(100))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\0\x20meta" + bytes(24))
    clip = encode(tmp_path / "clip.mp4", 2)
    (tmp_path / "other.mp4").write_bytes(clip.read_bytes().replace(b"avc1", b"xyz1"))
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "12" * 16, "encryption_kid": "34" * 16}
    encode(tmp_path / "locked.mp4", 2, container_options=key)
    messages = {
        "a.jp2": "JPEG 2000 files are not supported; the file may be fine: convert it to PNG",
        "JP2.png": "JPEG 2000 files are not supported",
        "a.jxl": "JPEG XL files are not supported",
        "a.heic": "HEIC files are not supported",
        "other.mp4": "its codec is not supported: FFmpeg has no decoder",
        "locked.mp4": "its video is encrypted",
    }
    if features.check("avif"):
        translucent.save(tmp_path / "alpha.avif")
        picture.save(tmp_path / "animated.avif", save_all=True, append_images=[translucent.convert("L").convert("RGB")])
        picture.save(tmp_path / "a.avif")
        messages |= dict.fromkeys(["alpha.avif", "animated.avif"], "AVIF files of several pictures are not supported")
        assert len(read_video(tmp_path / "a.avif")) == 1
    for name, message in messages.items():
        with pytest.raises(VaectlError) as caught:
            read_video(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {message}")


def test_a_missing_feature_of_ffmpeg_is_not_damage() -> None:
    said = "decoding fails: Not yet implemented in FFmpeg, patches welcome"
    assert is_missing_feature(said)
    assert is_missing_feature("Blending with pixel format rgba64be is not implemented. Update your FFmpeg version")
    assert not is_missing_feature("decoding fails: Invalid data found when processing input")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "clip.mp4", 2)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, who may read everything
    with pytest.raises(UsageError, match=r"clip\.mp4: no permission"):
        probe(path)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tiff", "a%03d.png", "we:ird [x] '*?.png"])
def test_images_are_clips_of_one_frame(tmp_path: Path, name: str) -> None:
    picture = numbered_picture(5, 61, 43)
    Image.fromarray(picture).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    with VideoReader(tmp_path / name) as reader:
        info, clip = reader.info, reader.read()
    assert (info.is_image, info.num_frames_from_header, info.frame_rate) == (True, 1, 1)
    assert clip.timestamps == (0,)
    assert np.array_equal(clip.frames[0].permute(1, 2, 0), picture)


MODES = {
    "png": ["1", "L", "P", "LA", "RGBA", "I;16"],
    "jpg": ["1", "L", "CMYK"],
    "webp": ["L", "P", "LA", "RGBA"],
    "gif": ["1", "L", "P", "LA", "RGBA"],
    "tiff": ["1", "L", "P", "LA", "RGBA", "I;16", "CMYK"],
}


@pytest.mark.parametrize(("extension", "mode"), [(e, mode) for e, modes in MODES.items() for mode in modes])
def test_image_modes(tmp_path: Path, extension: str, mode: str) -> None:
    path = tmp_path / f"image.{extension}"
    image = Image.fromarray(numbered_picture(5, 61, 43))
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (43, 61)).astype(np.uint16))
    elif "A" in mode:
        image = image.convert(mode)
        image.putalpha(Image.fromarray(np.tile(np.arange(61, dtype=np.uint8) * 4, (43, 1))))
    else:
        image = image.convert(mode)
    image.save(path, **({"lossless": True, "exact": True} if extension == "webp" else {}))
    stored = Image.open(path)
    if mode == "I;16":
        expected = np.repeat((np.asarray(stored) / 257)[..., None], 3, 2)
    else:
        opaque = Image.new("RGBA", stored.size, (0, 0, 0, 255))
        expected = np.asarray(Image.alpha_composite(opaque, stored.convert("RGBA")))[..., :3].astype(float)
    assert np.abs(read_video(path).frames[0].permute(1, 2, 0).numpy() - expected).max() <= 2


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, extension: str) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"image.{extension}"
    how = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}.get(extension, {})
    Image.fromarray(numbered_picture(5, 64, 40)).save(path, exif=exif, **how)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    shown = read_video(path).frames[0].permute(1, 2, 0).numpy()
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).max() <= 3


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_a_colour_profile_does_not_crash_the_process(tmp_path: Path, extension: str) -> None:
    """PyAV frees the name of the profile twice with the frame, and the process crashes without an exception."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (64, 48), (10, 200, 30)).save(tmp_path / f"a.{extension}", icc_profile=profile)
    code = "import gc, sys; from vaectl.video import read_video; read_video(sys.argv[1]); gc.collect()"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / f"a.{extension}"], timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
def test_images_cut_short_are_refused(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"image.{extension}"
    Image.fromarray(numbered_picture(5, 200, 150)).save(path)
    for fraction in (0.3, 0.7, 0.99):
        with pytest.raises(VaectlError, match=str(cut(path, fraction))):
            read_video(cut(path, fraction))


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 3).rename(os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9: %d.mp4"))
    assert len(read_video(path)) == 3


def test_an_image_is_taken_for_what_it_holds(tmp_path: Path) -> None:
    Image.fromarray(numbered_picture(5)).save(tmp_path / "a.png")
    path = (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert probe(path).codec == "png"


def test_junk_after_the_end_is_no_damage(tmp_path: Path) -> None:
    for extension, how in (
        ("mp4", {}),
        ("mkv", {}),
        ("avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("gif", {"codec": "gif", "pix_fmt": "rgb8"}),
    ):
        path = encode(tmp_path / f"clip.{extension}", 5, **how)
        path.write_bytes(path.read_bytes() + bytes(1000))
        assert len(VideoReader(path).timestamps()) == 5
