"""Animated PNG and WebP: every frame as browsers draw it, with its exact time. Stills stay stills."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from tests.video.media import cut, encode, number_of, numbered_picture

from vaectl.errors import VaectlError
from vaectl.video import VideoReader, read_video
from vaectl.video.animation import is_still
from vaectl.video.probe import probe

WIDTH, HEIGHT = 24, 20
COLOR_TYPES = {"L": (0, 1), "RGB": (2, 3), "P": (3, 1), "LA": (4, 2), "RGBA": (6, 4)}
"""Mode -> colour type and number of channels."""
RNG = np.random.default_rng


class Drawn(NamedTuple):
    """A frame of an animated PNG."""

    samples: NDArray[Any]
    """(H, W, channels), uint8 or uint16."""
    left: int = 0
    top: int = 0
    delay: tuple[int, int] = (1, 25)
    dispose: int = 0
    blend: int = 0


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def apng(
    path: Path,
    mode: str,
    frames: Sequence[Drawn],
    extra: Sequence[tuple[bytes, bytes]] = (),
    hidden: NDArray[Any] | None = None,
    declared: int | None = None,
) -> Path:
    """Write an animated PNG. `extra` are chunks before the data; `hidden` is a picture outside the animation."""

    def packed(samples: NDArray[Any]) -> bytes:
        rows = samples.astype(">u2") if samples.dtype == np.uint16 else samples
        return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))

    first = frames[0].samples
    bits = 8 * first.itemsize
    header = struct.pack(">IIBBBBB", first.shape[1], first.shape[0], bits, COLOR_TYPES[mode][0], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"acTL", struct.pack(">II", declared or len(frames), 0)), *extra]
    if hidden is not None:
        chunks.append((b"IDAT", packed(hidden)))
    number = count()
    for i, frame in enumerate(frames):
        height, width = frame.samples.shape[:2]
        place = (next(number), width, height, frame.left, frame.top, *frame.delay, frame.dispose, frame.blend)
        data = packed(frame.samples)
        chunks.append((b"fcTL", struct.pack(">5I2H2B", *place)))
        if i == 0 and hidden is None:
            chunks += [(b"IDAT", data[:9]), (b"IDAT", data[9:])]
        else:
            chunks += [(b"fdAT", struct.pack(">I", next(number)) + part) for part in (data[:9], data[9:])]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in [*chunks, (b"IEND", b"")]))
    return path


def random_frames(rng: np.random.Generator, mode: str, bits: int, transparent: bool) -> tuple[list[Drawn], list[Any]]:
    """Return frames anywhere on the canvas, and the chunks that they need."""
    white = 2**bits - 1
    frames = []
    for i in range(5):
        width, height = (WIDTH, HEIGHT) if i == 0 else (int(rng.integers(1, n + 1)) for n in (WIDTH, HEIGHT))
        left, top = int(rng.integers(0, WIDTH - width + 1)), int(rng.integers(0, HEIGHT - height + 1))
        samples = rng.integers(0, 16 if mode == "P" else white + 1, (height, width, COLOR_TYPES[mode][1]))
        if mode.endswith("A"):
            samples[..., -1] = rng.choice([0, white // 3, white // 2, white], (height, width))
        samples = samples.astype(np.uint8 if bits == 8 else np.uint16)
        delay = int(rng.integers(1, 9)), int(rng.choice([0, 30, 1000]))
        frames.append(Drawn(samples, left, top, delay, int(rng.integers(3)), int(rng.integers(2))))
    chunks = [(b"PLTE", rng.bytes(48))] if mode == "P" else []
    if transparent:
        key = frames[1].samples[0, 0].astype(">u2").tobytes()
        chunks.append((b"tRNS", rng.choice([0, 128, 255], 16).astype(np.uint8).tobytes() if mode == "P" else key))
    return frames, chunks


def as_browsers_draw(mode: str, frames: Sequence[Drawn], chunks: Sequence[tuple[bytes, bytes]]) -> NDArray[Any]:
    """Draw on a canvas with alpha, as the specification says (PNG, third edition, 13.2), and show it over black."""
    extra = dict(chunks)
    canvas, shown = np.zeros((HEIGHT, WIDTH, 4)), []
    for i, frame in enumerate(frames):
        source = straight_rgba(mode, frame.samples, extra)
        height, width = source.shape[:2]
        before = canvas.copy()
        box = canvas[frame.top : frame.top + height, frame.left : frame.left + width]
        if frame.blend:
            alpha, under = source[..., 3:], box[..., 3:] * (1 - source[..., 3:])
            total = alpha + under
            colors = (source[..., :3] * alpha + box[..., :3] * under) / np.where(total > 0, total, 1)
            box[:] = np.concatenate([colors, total], axis=2)
        else:
            box[:] = source
        shown.append(np.round(canvas[..., :3] * canvas[..., 3:] * 255))
        if frame.dispose == 1 or (frame.dispose == 2 and i == 0):
            box[:] = 0
        elif frame.dispose == 2:
            canvas = before
    return np.stack(shown)


def straight_rgba(mode: str, samples: NDArray[Any], extra: dict[bytes, bytes]) -> NDArray[Any]:
    if mode == "P":
        palette = np.frombuffer(extra[b"PLTE"], np.uint8).reshape(-1, 3)
        opacity = np.frombuffer(extra.get(b"tRNS", b"\xff" * 16), np.uint8)
        return np.concatenate([palette, opacity[:, None]], axis=1)[samples[..., 0]] / 255
    colors = samples[..., : 3 if mode.startswith("RGB") else 1]
    opacity = samples[..., -1:] if mode.endswith("A") else np.full_like(samples[..., :1], np.iinfo(samples.dtype).max)
    if b"tRNS" in extra:
        opacity = opacity * (samples != np.frombuffer(extra[b"tRNS"], ">u2")).any(axis=2, keepdims=True)
    values = [np.broadcast_to(colors, (*colors.shape[:2], 3)), opacity]
    return np.concatenate(values, axis=2) / np.iinfo(samples.dtype).max


@pytest.mark.parametrize(
    ("mode", "bits", "transparent"),
    [
        *((mode, bits, transparent) for mode in ("L", "RGB") for bits in (8, 16) for transparent in (False, True)),
        *(("P", 8, transparent) for transparent in (False, True)),
        *((mode, bits, False) for mode in ("LA", "RGBA") for bits in (8, 16)),
    ],
)
def test_frames_are_drawn_as_browsers_draw_them(tmp_path: Path, mode: str, bits: int, transparent: bool) -> None:
    """FFmpeg leaves out frames of such files, draws others wrongly, and refuses to blend 16-bit ones."""
    rng = RNG([*mode.encode(), bits, transparent])
    for case in range(8):
        frames, chunks = random_frames(rng, mode, bits, transparent)
        hidden = np.zeros_like(frames[0].samples) if case % 4 == 0 else None
        clip = read_video(apng(tmp_path / "a.png", mode, frames, chunks, hidden))
        delays = [Fraction(frame.delay[0], frame.delay[1] or 100) for frame in frames]
        assert list(clip.timestamps) == list(accumulate(delays[:-1], initial=0))
        difference = clip.frames.permute(0, 2, 3, 1).numpy() - as_browsers_draw(mode, frames, chunks)
        assert np.abs(difference).max() == 0


def pillow_frames(path: Path) -> NDArray[np.uint8]:
    """The frames over black, as Pillow draws them."""
    with Image.open(path) as image:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        frames = [Image.alpha_composite(black, frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]
        return np.stack([np.asarray(frame)[..., :3] for frame in frames])


def pictures(num_frames: int, mode: str = "RGB") -> list[Image.Image]:
    frames = [Image.fromarray(numbered_picture(i)).convert(mode) for i in range(num_frames)]
    if mode == "RGBA":
        for i, frame in enumerate(frames):
            frame.putalpha(Image.fromarray(RNG(i).choice(np.array([0, 90, 255], np.uint8), (48, 64))))
    return frames


def animate(path: Path, frames: Sequence[Image.Image], **how: Any) -> Path:
    frames[0].save(path, save_all=True, append_images=frames[1:], **how)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [True, False])
def test_an_animated_webp_is_what_pillow_shows(tmp_path: Path, mode: str, lossless: bool) -> None:
    delays = [40, 0, 17, 1000, 33, 34]
    path = animate(tmp_path / "a.webp", pictures(6, mode), duration=delays, lossless=lossless)
    with VideoReader(path) as reader:
        clip = reader.read()
        assert (reader.info.is_image, reader.info.num_frames_from_header) == (False, 6)
        assert np.array_equal(clip.frames.permute(0, 2, 3, 1), pillow_frames(path))
        assert np.array_equal(reader.read(1, 2, 3).frames, clip.frames[1:5:3])
    assert clip.timestamps == tuple(Fraction(ms, 1000) for ms in (0, 40, 140, 157, 1157, 1190))  # 0 is a tenth
    assert clip.frame_rate == Fraction(6000, 1224)


def test_what_decides_is_the_content(tmp_path: Path) -> None:
    frames = pictures(3)
    several = [
        animate(tmp_path / "a.png", frames),
        animate(tmp_path / "a.apng", frames, format="PNG"),
        animate(tmp_path / "gif.png", frames, format="GIF"),
        animate(tmp_path / "a.webp", frames),
        animate(tmp_path / "webp.jpg", frames, format="WEBP"),
        animate(tmp_path / "a.gif", frames),  # Pillow writes no control extensions
    ]
    one = [tmp_path / f"one.{extension}" for extension in ("png", "apng", "webp", "jpg", "bmp", "tiff", "gif")]
    for path in one:
        frames[1].save(path, **({"format": "PNG"} if path.suffix == ".apng" else {}))
    one.append(encode(tmp_path / "control.gif", 1, codec="gif", pix_fmt="rgb8"))
    one.append(apng(tmp_path / "control.png", "RGB", [Drawn(numbered_picture(1))]))
    data = (tmp_path / "a.webp").read_bytes()
    end = data.index(b"ANMF", data.index(b"ANMF") + 4)
    one.append(tmp_path / "flag.webp")
    one[-1].write_bytes(b"RIFF" + struct.pack("<I", end - 8) + data[8:end])
    for path in several:
        assert not is_still(path), path
        assert [number_of(frame) for frame in read_video(path).frames] == [0, 1, 2]
        assert not probe(path).is_image
    for path in one:
        assert is_still(path), path
        assert (probe(path).is_image, probe(path).num_frames_from_header, len(read_video(path))) == (True, 1, 1)
    assert not is_still(tmp_path / "a.mp4")
    assert is_still(tmp_path / "missing.png")


@pytest.mark.parametrize("without", [(1,), (2, 3), range(5)])
def test_each_image_of_a_gif_is_a_frame_with_or_without_a_control_extension(
    tmp_path: Path, without: Sequence[int]
) -> None:
    path = encode(tmp_path / "a.gif", 5, codec="gif", pix_fmt="rgb8", options={"gifflags": "0"})
    whole, control = read_video(path), b"!\xf9\x04"
    head, *images = path.read_bytes().split(control)
    path.write_bytes(head + b"".join(image[5:] if i in without else control + image for i, image in enumerate(images)))
    clip = read_video(path)
    assert np.array_equal(clip.frames, whole.frames)
    steps = [Fraction(1, 10) if i in without else Fraction(1, 25) for i in range(4)]
    assert clip.timestamps == tuple(accumulate(steps, initial=Fraction(0)))
    for fraction in (0.5, 0.9):
        with pytest.raises(VaectlError, match="cut short"):
            read_video(cut(path, fraction))


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_an_animation_cut_short_gives_its_whole_frames(tmp_path: Path, extension: str) -> None:
    path = animate(tmp_path / f"a.{extension}", pictures(6), duration=40)
    whole = read_video(path)
    for fraction in (0.5, 0.9, 0.9999):
        short = cut(path, fraction)
        with pytest.raises(
            VaectlError, match=r"it is cut short, and only the first (\d) of its frames can be read"
        ) as error:
            read_video(short)
        readable = int(str(error.value).split("only the first ")[1][0])
        assert 0 < readable < 6
        assert np.array_equal(read_video(short, 0, readable).frames, whole.frames[:readable])
    with pytest.raises(VaectlError, match="it is cut short"):
        read_video(cut(path, 0.03))


def test_damage_in_an_animated_png_is_an_error(tmp_path: Path) -> None:
    frames = [Drawn(numbered_picture(i)) for i in range(4)]
    data = apng(tmp_path / "a.png", "RGB", frames).read_bytes()
    third = data.index(b"fcTL", data.index(b"fcTL", data.index(b"fcTL") + 4) + 4) - 4
    broken = bytearray(data)
    broken[third + 100] ^= 1
    shorter = data[:third] + data[-12:]
    outside = apng(tmp_path / "outside.png", "RGB", [*frames[:2], Drawn(numbered_picture(2), left=1), frames[3]])
    for name, content, readable, reason in (
        ("bit.png", bytes(broken), 2, "it is damaged at byte"),
        ("fewer.png", shorter, 2, "it declares 4 frames, 2 are there"),
        ("outside.png", outside.read_bytes(), 2, "frame 2 is damaged"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(VaectlError, match=rf"{name}: {reason}.*only the first {readable} of its frames"):
            read_video(path)
        assert [number_of(frame) for frame in read_video(path, 0, 2).frames] == [0, 1]


def test_pictures_that_cannot_be_unpacked_are_an_error(tmp_path: Path) -> None:
    """All checksums are right, but half of a picture is missing."""
    frames = [Drawn(numbered_picture(i)) for i in range(3)]
    path = apng(tmp_path / "a.png", "RGB", frames)
    data = path.read_bytes()
    at = data.rindex(b"fdAT")
    length = int.from_bytes(data[at - 4 : at], "big")
    half = data[at + 4 : at + 4 + length // 2]
    path.write_bytes(data[: at - 4] + chunk(b"fdAT", half) + data[at + 8 + length :])
    with pytest.raises(VaectlError, match=r"frame 2 is damaged, and only the first 2"):
        read_video(path)


def test_a_frame_of_a_webp_is_not_lost_with_its_name(tmp_path: Path) -> None:
    """Decoders skip chunks that they do not know."""
    data = animate(tmp_path / "a.webp", pictures(4)).read_bytes()
    third = data.index(b"ANMF", data.index(b"ANMF", data.index(b"ANMF") + 4) + 4)
    (tmp_path / "b.webp").write_bytes(data[:third] + b"ANMG" + data[third + 4 :])
    with pytest.raises(VaectlError, match=rf"it is damaged at byte {third}, and only the first 2 of its frames"):
        read_video(tmp_path / "b.webp")
    assert [number_of(frame) for frame in read_video(tmp_path / "b.webp", 0, 2).frames] == [0, 1]


def test_an_animated_webp_has_any_size_that_frames_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = animate(tmp_path / "a.webp", pictures(3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # a third of the size of the pictures
    assert [number_of(frame) for frame in read_video(path).frames] == [0, 1, 2]
    assert Image.MAX_IMAGE_PIXELS == 1000
    data = bytearray(path.read_bytes())
    data[26] = 0x34  # the highest byte of the width of the canvas
    path.write_bytes(data)
    with pytest.raises(VaectlError, match=rf"a\.webp: it is damaged: its canvas has {64 + 0x340000}x48 pixels"):
        read_video(path)


@pytest.mark.parametrize(("extension", "at", "form"), [("png", 16, ">II"), ("webp", 24, "<HBHB")])
def test_a_canvas_is_not_larger_than_a_still(tmp_path: Path, extension: str, at: int, form: str) -> None:
    size = {"png": (70000, 70000), "webp": (2**14 - 1, 0, 2**14 - 1, 0)}[extension]
    path = animate(tmp_path / f"a.{extension}", pictures(2))
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, at, *size)
    if extension == "png":
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(VaectlError, match=r"its canvas of (\d+)x\1 pixels is too large, or the file is damaged"):
        probe(path)


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_an_animation_is_turned_as_its_tag_says(tmp_path: Path, extension: str) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    path = animate(tmp_path / f"a.{extension}", pictures(2), exif=exif, lossless=True)
    info, clip = probe(path), read_video(path)
    assert (info.width, info.height, info.rotation) == (48, 64, 90)
    assert np.array_equal(clip.frames[1].permute(1, 2, 0), np.rot90(numbered_picture(1), -1))
