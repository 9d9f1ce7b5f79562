"""Files that may be fine, but that vaectl or FFmpeg cannot read. No message calls them broken. Opens no decoder."""

from __future__ import annotations

import re
from pathlib import Path

_SIGNATURES = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"SDPX": "DPX",
    b"XPDS": "DPX",
    b"8BPS": "Photoshop",
    b".RMF": "RealMedia",
    b"FWS": "Flash",
    b"CWS": "Flash",
}
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"})
_MISSING_FEATURE = re.compile("not (yet )?implemented|not supported|unsupported|patches welcome", re.IGNORECASE)


def unsupported_kind(path: Path) -> str | None:
    """Return the name of the format of a file that FFmpeg could not open, if it is a known one."""
    with path.open("rb") as file:
        head = file.read(12)
    return next((kind for start, kind in _SIGNATURES.items() if head.startswith(start)), heif_kind(head))


def heif_kind(head: bytes) -> str | None:
    """Return HEIC or AVIF if this is the head of a file of that format (ISO/IEC 23008-12), else None.

    FFmpeg reads a picture of several tiles, with transparency or with a preview as several streams.
    """
    if head[4:8] != b"ftyp" or head[8:12] not in _HEIF_BRANDS:
        return None
    return "AVIF" if head[8:11] == b"avi" else "HEIC"


def is_missing_feature(message: str) -> bool:
    """Whether FFmpeg's message says that it does not support the file, and not that the file is damaged."""
    return bool(_MISSING_FEATURE.search(message))
