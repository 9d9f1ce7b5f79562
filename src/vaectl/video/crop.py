"""Which part of the stored picture a container asks to show. Plain values; `isobmff` and `matroska` read them."""

from __future__ import annotations

from typing import NamedTuple


class Crop(NamedTuple):
    """Rows and columns of the stored picture that are not shown, before it is turned."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
