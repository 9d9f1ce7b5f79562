"""The crop that a container asks for. Plain values; `isobmff` and `matroska` read them."""

from __future__ import annotations

from typing import NamedTuple


class Crop(NamedTuple):
    """Rows and columns of the stored picture to remove, before rotation."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
