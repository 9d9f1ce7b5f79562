"""What the headers of H.264 packets say about references between pictures (ITU-T H.264, 7.3 and 7.4).

Reads packets as in MP4 and Matroska, where each NAL unit has its length in front (ISO/IEC 14496-15, 5.3.3). Knows plain
bytes, and nothing of PyAV.
"""

from __future__ import annotations

from typing import NamedTuple

_SLICE, _SLICE_OF_IDR = 1, 5
_WITHOUT_PICTURE = frozenset({6, 9, 12})
"""NAL unit types (table 7-1): supplemental information, access unit delimiter, filler data."""
_WITH_CHROMA_FORMAT = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
"""Values of profile_idc for which the parameter set has further fields (7.3.2.1.1)."""
_HEADER_BYTES = 24
"""More than the fields of a slice header up to frame_num take."""


class Format(NamedTuple):
    """How to read the packets of a stream."""

    length_bytes: int
    """Of the length in front of a NAL unit."""
    frame_num_bits: int


class Picture(NamedTuple):
    """The first slice of a picture."""

    is_idr: bool
    is_reference: bool
    """Whether other pictures may refer to this one, or the packet holds something that later packets may need."""
    frame_num: int
    """Number of reference pictures before this one since the last IDR picture, modulo 2**frame_num_bits."""


class _Bits:
    """Reads bits. Raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")  # emulation prevention (7.4.1)
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def number(self, bits: int) -> int:
        self._left -= bits
        return self._value >> self._left & (1 << bits) - 1

    def exp_golomb(self) -> int:
        zeros = self._left - (self._value & (1 << self._left) - 1).bit_length()
        return self.number(2 * zeros + 1) - 1

    def skip_exp_golomb(self, count: int) -> None:
        value, left = self._value, self._left
        for _ in range(count):
            left -= 2 * (left - (value & (1 << left) - 1).bit_length()) + 1
        self._left = left


def format_of(extradata: bytes | None) -> Format | None:
    """Read the configuration record of a stream. None for a raw stream, and for forms that are not supported."""
    if extradata is None or len(extradata) < 8 or extradata[0] != 1 or extradata[5] & 31 != 1:
        return None
    bits = _Bits(extradata[9 : 8 + int.from_bytes(extradata[6:8], "big")])
    try:
        profile = bits.number(8)
        bits.number(16)  # constraints, level
        bits.exp_golomb()  # seq_parameter_set_id
        if profile in _WITH_CHROMA_FORMAT:
            is_444 = bits.exp_golomb() == 3
            bits.skip_exp_golomb(2)  # bit depths
            bits.number(1)  # qpprime_y_zero_transform_bypass_flag
            if is_444 or bits.number(1):  # planes may be separate; scaling lists follow
                return None
        return Format((extradata[4] & 3) + 1, bits.exp_golomb() + 4)
    except ValueError:
        return None


def picture_of(packet: bytes, form: Format) -> Picture | None:
    """Read the headers of a packet. None if it holds no picture, or is damaged."""
    first: tuple[bool, int] | None = None
    place, is_reference = 0, False
    while place + form.length_bytes < len(packet):
        begin = place + form.length_bytes
        kind, nal_ref_idc = packet[begin] & 31, packet[begin] >> 5 & 3
        is_reference |= nal_ref_idc > 0 or (kind != _SLICE and kind not in _WITHOUT_PICTURE)
        if first is None and kind in (_SLICE, _SLICE_OF_IDR):
            bits = _Bits(packet[begin + 1 : begin + 1 + _HEADER_BYTES])
            try:
                bits.skip_exp_golomb(3)  # first_mb_in_slice, slice_type, pic_parameter_set_id
                first = kind == _SLICE_OF_IDR, bits.number(form.frame_num_bits)
            except ValueError:
                return None
        place = begin + int.from_bytes(packet[place:begin], "big")
    if first is None or place != len(packet):
        return None
    is_idr, frame_num = first
    return Picture(is_idr, is_reference, frame_num)
