"""Read animated PNG (APNG) files: decode each frame as a PNG, and draw it over the frames before, as browsers do.

FFmpeg's reader leaves out frames of some files, draws others wrongly, and does not blend 16-bit frames. Format: PNG,
third edition (https://www.w3.org/TR/png-3/), 11.3.2 and 13. Frames are composited over black. Without alpha, a canvas
in transparent black and one in black look the same, so the canvas has no alpha.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vaectl.errors import VaectlError
from vaectl.video.animation import DEFAULT_DELAY, PNG
from vaectl.video.color import RgbConverter
from vaectl.video.container import check_canvas, explain_memory_errors, fraction
from vaectl.video.decode import DamageError, decode_packet
from vaectl.video.facts import bit_depth, color_tags
from vaectl.video.messages import listening
from vaectl.video.orientation import orientation_of
from vaectl.video.source import Source, animation_source
from vaectl.video.truncation import CUT_SHORT

_BACKGROUND, _PREVIOUS = 1, 2
"""Ways to dispose of a frame: clear its rectangle, or restore what was there."""
_OVER = 1
"""Blend a frame over the canvas, instead of replacing its rectangle."""
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND"})
"""Chunks that must be intact. Other ones hold metadata."""


_Canvas = NDArray[np.float32]
"""(H, W, 3), from 0 to 255."""


class _Frame(NamedTuple):
    """A frame control chunk (`fcTL`), and the data of its frame."""

    width: int
    height: int
    left: int
    top: int
    delay: Fraction
    dispose: int
    blend: int
    data: tuple[tuple[int, int], ...]
    """Position and length in bytes of each part."""


class _Structure(NamedTuple):
    header: bytes
    """Content of the IHDR chunk."""
    shared: bytes
    """The chunks that hold for each frame, such as the palette."""
    frames: tuple[_Frame, ...]
    damage: str | None


def open_apng(path: Path) -> Source:
    """Return the frames of an animated PNG. Its colours are those of its first frame.

    Raises VaectlError if not one frame can be decoded.
    """
    structure = _read_structure(path)
    if not structure.frames:
        raise VaectlError(f"{path}: {structure.damage or 'it has no frames'}", "get the file again")
    width, height = struct.unpack(">II", structure.header[:8])
    check_canvas(path, width, height)
    decoder = _decoder()
    try:
        with explain_memory_errors(path, width, height), listening(), path.open("rb") as file:
            first = _decode(decoder, file, structure, 0)
    except DamageError as damage:
        raise VaectlError(f"{path}: not one frame can be decoded ({damage})", "get the file again") from None
    return animation_source(
        path,
        (width, height),
        [frame.delay for frame in structure.frames],
        structure.damage,
        partial(_frames, path, structure),
        orientation_of(first),
        codec="apng",
        pixel_format=first.format.name,
        bit_depth=bit_depth(first),
        color=color_tags(first),
        sample_aspect_ratio=fraction(decoder.sample_aspect_ratio) or Fraction(1),
    )


def _read_structure(path: Path) -> _Structure:
    """Read all chunks, up to the first that is damaged or missing. Keeps no picture data."""
    header, shared, control, declared, number = b"", b"", b"", 0, 0
    frames: list[_Frame] = []
    data: list[tuple[int, int]] = []
    damage: str | None = CUT_SHORT
    with path.open("rb") as file:
        file.seek(len(PNG))
        while True:
            at = file.tell()
            head = file.read(8)
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            content = file.read(length)
            check = file.read(4)
            if len(check) < 4:
                break
            if kind in _CRITICAL and zlib.crc32(kind + content) != int.from_bytes(check, "big"):
                damage = f"it is damaged at byte {at}"
                break
            if kind in (b"fcTL", b"IEND") and control:
                frame = _frame(control, data)
                if frame is None or not _fits(frame, header):
                    damage = f"frame {len(frames)} is damaged"
                    break
                frames.append(frame)
                control, data = b"", []
            if kind in (b"fcTL", b"fdAT"):
                if content[:4] != number.to_bytes(4, "big"):
                    damage = f"its parts are not in order at byte {at}"
                    break
                number += 1
            if kind == b"fcTL":
                control = content
            elif kind == b"fdAT":
                data.append((at + 12, length - 4))
            elif kind == b"IDAT":
                data += [(at + 8, length)] * bool(control)  # without: a picture for programs that show no animations
            elif kind == b"acTL":
                declared = int.from_bytes(content[:4], "big")
            elif kind == b"IHDR":
                header = content
            elif kind == b"IEND":
                damage = None if len(frames) == declared else f"it declares {declared} frames, {len(frames)} are there"
                break
            elif not number:
                shared += head + content + check
    return _Structure(header, shared, tuple(frames[:declared]), damage)


def _frame(control: bytes, data: list[tuple[int, int]]) -> _Frame | None:
    if len(control) != 26 or not data:
        return None
    _, width, height, left, top, numerator, denominator, dispose, blend = struct.unpack(">5I2H2B", control)
    delay = Fraction(numerator, denominator or 100) or DEFAULT_DELAY
    return _Frame(width, height, left, top, delay, dispose, blend, tuple(data))


def _fits(frame: _Frame, header: bytes) -> bool:
    """Whether the rectangle of the frame is inside the canvas."""
    width, height = struct.unpack(">II", header[:8]) if len(header) == 13 else (0, 0)
    return bool(0 < frame.width <= width - frame.left and 0 < frame.height <= height - frame.top)


def _decoder() -> VideoCodecContext:
    decoder = av.CodecContext.create("png", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    return decoder


def _decode(decoder: VideoCodecContext, file: BinaryIO, structure: _Structure, number: int) -> VideoFrame:
    """Decode a frame by itself. Raises DamageError."""
    frame = structure.frames[number]
    parts = []
    for at, length in frame.data:
        file.seek(at)
        parts.append(file.read(length))
    header = struct.pack(">II", frame.width, frame.height) + structure.header[8:]
    picture = _chunk(b"IDAT", b"".join(parts)) + _chunk(b"IEND", b"")
    packet = Packet(PNG + _chunk(b"IHDR", header) + structure.shared + picture)
    packet.is_keyframe = True  # else the decoder adds the frame before
    pictures, problem = decode_packet(decoder, packet)
    if problem or len(pictures) != 1 or (pictures[0].width, pictures[0].height) != (frame.width, frame.height):
        raise DamageError(problem or "decoding fails", number)
    return pictures[0]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _frames(path: Path, structure: _Structure, wanted: range) -> Iterator[VideoFrame]:
    """Yield the canvas after each wanted frame, in RGB over black."""
    width, height = struct.unpack(">II", structure.header[:8])
    canvas: _Canvas = np.zeros((height, width, 3), np.float32)
    decoder, convert = _decoder(), RgbConverter(still=True, codec="png")
    with listening(), path.open("rb") as file:
        for number, frame in enumerate(structure.frames[: wanted[-1] + 1]):
            box = canvas[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width]
            before = box.copy() if frame.dispose == _PREVIOUS else None
            _draw(_decode(decoder, file, structure, number), convert, box, over=frame.blend == _OVER)
            if number in wanted:
                yield VideoFrame.from_ndarray(np.rint(canvas).astype(np.uint8), format="rgb24")
            if before is not None:
                box[:] = before
            elif frame.dispose == _BACKGROUND:
                box[:] = 0


def _draw(picture: VideoFrame, convert: RgbConverter, box: _Canvas, *, over: bool) -> None:
    """Draw a frame on its rectangle of the canvas."""
    *colors, opacity = convert.channels(picture, picture.width, picture.height)
    white = np.iinfo(colors[0].dtype).max
    drawn = np.stack(colors, axis=2).astype(np.float32) * np.float32(255 / white)
    if opacity is not None:
        alpha = (opacity.astype(np.float32) / white)[..., None]
        drawn *= alpha
        if over:
            drawn += box * (1 - alpha)
    box[:] = drawn
