"""Rotation and mirroring of a stored picture: the display matrix of MP4, MOV and EXIF. Knows arrays, and no file."""

from __future__ import annotations

import ctypes
import gc
import math
import struct
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

from av.dictionary import Dictionary
from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame
from numpy.typing import NDArray


def _unknown_side_data(cls: type[Type], value: Any) -> Type:
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


# PyAV before 19 has no names for some kinds of FFmpeg's side data (EXIF, the view of a stereo video). If a frame has
# one of them, PyAV returns no side data at all, not even the display matrix. So unknown kinds get a name.
if "_missing_" not in vars(Type):
    Type._missing_ = classmethod(_unknown_side_data)  # type: ignore[assignment]


class Orientation(NamedTuple):
    """Swap the axes, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False
    rotation: int = 0
    """Clockwise degrees: 0, 90, 180 or 270. A mirror image is mirrored left to right before the rotation."""

    def apply(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return a view of the (H, W) plane as shown: (W, H) after a quarter turn."""
        shown = plane.T if self.transpose else plane
        return shown[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


def orientation_of(frame: VideoFrame) -> Orientation:
    """Return the orientation of the display matrix of `frame`, rounded to quarter turns; none without a matrix.

    The matrix maps the stored point (x, y), y pointing down, to (a x + c y, b x + d y).
    """
    side_data = frame.side_data  # PyAV 19 returns a new one, with new wrappers, each time
    for each in _values(side_data):
        _keep_metadata(each)
    matrix = side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix)[:36])
    return orientation(a, b, c, d)


def _values(side_data: Any) -> Iterator[SideData]:
    """Yield all values by number, because PyAV 19 iterates over the types and earlier versions over the values."""
    for number in count():
        try:
            yield side_data[number]
        except IndexError:
            return


def _keep_metadata(side_data: SideData) -> None:
    """Leak PyAV's wrapper of the metadata: a few bytes for a frame with, for example, a colour profile.

    With PyAV 17 to 19 the wrapper frees memory of the frame, the frame frees it again, and the process crashes.
    """
    for held in gc.get_referents(side_data):
        if isinstance(held, Dictionary) and len(held):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


def orientation(a: float, b: float, c: float, d: float) -> Orientation:
    """Return the orientation nearest to the 2x2 matrix of `orientation_of`."""
    sign = -1 if a * d - b * c < 0 else 1
    rotation = round(math.degrees(math.atan2(sign * b, sign * a)) / 90) % 4 * 90
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[rotation // 90]
    # The matrix without its scale and skew: [[sign * cosine, -sine], [sign * sine, cosine]].
    if sine:
        return Orientation(True, -sine < 0, sign * sine < 0, rotation)
    return Orientation(False, sign * cosine < 0, cosine < 0, rotation)


def orientation_of_exif(value: int) -> Orientation:
    """Return the orientation of the tag of EXIF and TIFF, 1 to 8 (TIFF 6.0, section 8); none for another value."""
    rotation = {3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270}.get(value, 0)
    return Orientation(value in (5, 6, 7, 8), value in (2, 3, 6, 7), value in (3, 4, 7, 8), rotation)
