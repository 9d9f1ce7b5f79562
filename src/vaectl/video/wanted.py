"""Which frames a pass has to yield, and which packets it need not decode for them. Knows packets, but no file."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from av.packet import Packet
from av.video.stream import VideoStream

from vaectl.video.decode import DamageError
from vaectl.video.h264 import Format, format_of, picture_of


class Wanted:
    """The frames that a pass has to yield, by their numbers. A later pass that continues it changes them.

    A packet is left out if its frame is not wanted, a wanted frame follows, and no frame refers to it. So the others
    are decoded to the same pixels. Only H.264 marks such packets. One of the marks may be damaged, so they are compared
    with the numbers that the pictures have (frame_num): all pictures up to and with the next reference picture
    have that of the last one, plus 1.

    Args:
        numbers: of the frames to yield.
        pts: the time of each frame in ticks, in order. Empty if the times do not tell the frames apart.
    """

    def __init__(self, numbers: range, pts: Sequence[int]) -> None:
        self.numbers = numbers
        self.left_out: set[int] = set()
        """Numbers of the frames that were not decoded."""
        self._pts = pts
        self._format: Format | None = None
        self._frame_num: int | None = None
        """Of the last reference picture."""

    def leave_out(self, packet: Packet[VideoStream]) -> bool:
        """Whether not to decode the next packet. Raises DamageError if one before should not have been left out."""
        if packet.opaque == 0:  # a pass begins
            context = packet.stream.codec_context
            is_h264 = context.name == "h264" and len(self._pts) > 0
            self._format, self._frame_num = format_of(context.extradata) if is_h264 else None, None
            self.left_out.clear()
        if self._format is None:
            return False
        picture = picture_of(bytes(packet), self._format)
        if picture is None or not self._continues(picture.frame_num, picture.is_idr):
            if self.left_out:
                raise DamageError("pictures are not numbered as their references need", 0)
            self._format = None
            return False
        if picture.is_reference:
            self._frame_num = picture.frame_num
            return False
        number = bisect_left(self._pts, packet.pts or 0)
        if number >= self.numbers[-1] or number in self.numbers or self._pts[number] != packet.pts:
            return False
        self.left_out.add(number)
        return True

    def _continues(self, frame_num: int, is_idr: bool) -> bool:
        assert self._format is not None
        if is_idr or self._frame_num is None:
            return frame_num == 0 or not is_idr
        return frame_num == (self._frame_num + 1) % (1 << self._format.frame_num_bits)
