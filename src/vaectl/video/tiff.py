"""Read still images in TIFF files. FFmpeg reads some of them wrongly: tiles and JPEG become black pictures.

Pillow reads them with libtiff, the reference, but reduces 16-bit colours to 8 bits. So FFmpeg reads the 16-bit pictures
that it can, and tifffile the others.
"""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vaectl.errors import VaectlError

_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OPAQUE = {"1": "L", "L": "L", "RGB": "RGB", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
"""Pillow's modes without alpha, and the modes to convert them to. All others become RGBA."""
_FFMPEG_COMPRESSIONS = frozenset({1, 5, 8, 32773, 32946})
"""None, LZW, deflate (two numbers), PackBits."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_ALPHA = (2,)
"""The first extra sample is unassociated alpha. Associated alpha (1) is already multiplied into the colours, as over
black; an unspecified sample (0) is not alpha."""


def read_tiff(path: Path) -> VideoFrame | None:
    """Read the first picture of a TIFF, upright: gray, RGB or RGBA of 8 or 16 bits. None if FFmpeg can read it.

    Raises VaectlError if it cannot be read correctly.
    """
    with path.open("rb") as opened:
        if opened.read(4) not in _HEADS:
            return None
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it also raises what it logs
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            if page.sampleformat not in (None, 1) or page.bitspersample not in (*range(1, 9), 16):
                numbers = {2: "signed numbers", 3: "floating-point numbers"}.get(page.sampleformat, "numbers")
                raise VaectlError(
                    f"{path}: a TIFF of {numbers} of {page.bitspersample} bits", "convert it to PNG first"
                )
            if page.bitspersample <= 8:
                return _frame(_with_pillow(path))
            plain = page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) and page.extrasamples in ((), _ALPHA)
            if plain and not (page.is_tiled or file.is_bigtiff) and page.compression in _FFMPEG_COMPRESSIONS:
                return None
            tag = page.tags.get("Orientation")
            return _frame(_upright(_with_tifffile(path, page), 1 if tag is None else int(tag.value)))
    except VaectlError:
        raise
    except Exception as error:  # the two libraries raise many types for damaged and unsupported files
        reason = str(error) or type(error).__name__
        if isinstance(error, LookupError) or "decoder error" in reason:
            reason = "it is damaged"
        raise VaectlError(f"{path}: the TIFF cannot be read ({reason})", "convert it to PNG, or get it again") from None


def _with_pillow(path: Path) -> NDArray[Any]:
    from PIL import ImageOps
    from PIL.TiffImagePlugin import TiffImageFile

    with of_any_size(), TiffImageFile(path) as image:
        _silence_libtiff()
        upright = ImageOps.exif_transpose(image)
        return np.asarray(
            upright.convert("LA" if image.mode == "La" else None).convert(_OPAQUE.get(image.mode, "RGBA"))
        )


@contextmanager
def of_any_size() -> Iterator[None]:
    """Lift Pillow's limit on the pixels of an image. Our own error reports a lack of memory."""
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@cache
def _silence_libtiff() -> None:
    """Stop libtiff from printing errors, because Pillow raises them."""
    with suppress(OSError, AttributeError):  # libtiff is linked statically, or there is no /proc
        for library in set(re.findall(r"/.*/libtiff[^/\n]*", Path("/proc/self/maps").read_text())):
            ctypes.CDLL(library).TIFFSetErrorHandler(ctypes.c_void_p(None))


def _with_tifffile(path: Path, page: Any) -> NDArray[Any]:
    picture: NDArray[Any] = page.asarray()
    if page.axes == "SYX":
        picture = picture.transpose(1, 2, 0)
    kinds = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}
    if page.photometric not in kinds or page.axes not in ("YX", "YXS", "SYX"):
        raise VaectlError(f"{path}: a TIFF of the kind {page.photometric.name} in 16 bits", "convert it to PNG first")
    picture = picture.reshape(*picture.shape[:2], -1)
    channels, white = kinds[page.photometric], np.iinfo(picture.dtype).max
    colors, alpha = picture[..., :channels], picture[..., channels : channels + (page.extrasamples[:1] == _ALPHA)]
    if page.photometric == _WHITE_IS_ZERO:
        colors = white - colors
    elif page.photometric == _CMYK:
        inks = (white - colors).astype(np.uint32)
        colors = ((inks[..., :3] * inks[..., 3:] + white // 2) // white).astype(picture.dtype)
    if alpha.shape[2]:
        return np.concatenate([np.broadcast_to(colors, (*colors.shape[:2], 3)), alpha], axis=2)
    return colors[..., 0] if colors.shape[2] == 1 else colors


def _upright(picture: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Rotate and mirror a picture by the orientation tag, 1 to 8 (TIFF 6.0, section 8)."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return picture[:, ::-1] if orientation in (2, 3, 6, 7) else picture


def _frame(picture: NDArray[Any]) -> VideoFrame:
    deep = picture.dtype.itemsize == 2
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    kinds = {1: ("gray", "gray16le"), 3: ("rgb24", "rgb48le"), 4: ("rgba", "rgba64le")}
    return VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=kinds[channels][deep])
