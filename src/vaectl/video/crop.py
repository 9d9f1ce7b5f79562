"""Which part of the stored picture a container asks to show. Plain values; `isobmff` and `matroska` read them."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray


class Crop(NamedTuple):
    """Rows and columns of the stored picture that are not shown, before it is turned."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def apply(self, plane: NDArray[Any]) -> NDArray[Any]:
        """The part of the (H, W) plane that is shown. A view."""
        height, width = plane.shape
        return plane[self.top : height - self.bottom, self.left : width - self.right]
