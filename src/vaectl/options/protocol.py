"""What a protocol of `eval` and `prepare-eval` may set: which frames are compared, at which size, by which metrics.

In `eval`, None means not given: clips may be prepared, and then their manifest has the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar

from vaectl.errors import UsageError
from vaectl.metrics import DEFAULT, METRICS, known
from vaectl.options.clips import (
    ALL_WINDOWS,
    FRAME_RATE,
    NUM_FRAMES,
    RESOLUTION,
    Count,
    Side,
    check_crop,
    check_windows,
)
from vaectl.options.common import (
    INPUT,
    EnableTiling,
    RgbConversionName,
    expand_user,
    read_frame_rate,
    rgb_conversion_option,
)
from vaectl.options.option import Option

METRIC = "Metrics"
"""A panel of the help page."""
PROTOCOLS = ("wfvae", "vidtok", "published-script", "full")
"""The files in evaluation/protocols/."""


def read_protocol_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"give a TOML file, or one of {', '.join(PROTOCOLS)}")
    return str(expand_user(value))


def read_metrics(value: Any) -> tuple[str, ...]:
    """Parse names of metrics: a list in which each item may hold several, separated by commas. Drops duplicates."""
    given = value if isinstance(value, list | tuple) else [value]
    names = tuple(dict.fromkeys(name.strip() for each in given for name in str(each).split(",")))
    if not names:
        raise ValueError(f"name at least one of {', '.join(METRICS)}")
    try:
        for name in names:
            known(name)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return names


def _from_manifest(metavar: str, about: str, least: int | None = None, most: int | None = None) -> Option:
    return Option(panel=INPUT, metavar=metavar, least=least, most=most, help=about)


ProtocolName = Annotated[
    str | None,
    Option(
        panel=INPUT,
        metavar="NAME|FILE",
        choices=PROTOCOLS,
        read=read_protocol_name,
        help=f"Set these options by name ({', '.join(PROTOCOLS)}) or from a TOML file; --config and flags override it.",
    ),
]
NumFrames = Annotated[
    Count | None, _from_manifest("N", f"Frames of each clip, or all. (default: as prepared, else {NUM_FRAMES})", 1)
]
SampleRate = Annotated[int | None, _from_manifest("N", "Take every N-th frame. (default: as prepared, else 1)", 1)]
FrameRate = Annotated[
    Fraction | None,
    Option(
        panel=INPUT,
        metavar="RATE",
        read=read_frame_rate,
        help=f"{FRAME_RATE} (default: as prepared, else that of the source)",
    ),
]
AllWindows = Annotated[bool | None, _from_manifest("", f"{ALL_WINDOWS} (default: as prepared, else off)")]
Resolution = Annotated[
    Side | None,
    _from_manifest(
        "PIXELS",
        "Resize the shorter side to this; source: keep the size of the source. "
        f"(default: as prepared, else {RESOLUTION})",
        16,
        16384,
    ),
]
CropSize = Annotated[
    int | None,
    _from_manifest(
        "PIXELS",
        "Then crop this square from the centre; 0: the whole frame. (default: as prepared, else the resolution)",
        0,
        16384,
    ),
]
RgbConversion = Annotated[RgbConversionName | None, rgb_conversion_option(" (default: as prepared, else accurate)")]
Metric = Annotated[
    tuple[str, ...],
    Option(
        panel=METRIC,
        metavar="NAMES",
        choices=tuple(METRICS),
        many=True,
        read=read_metrics,
        help=f"{', '.join(METRICS)}; separate several by commas, or repeat the option.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """The options in the file of a protocol. Raises `ValueError` for options that exclude each other."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    num_frames: NumFrames = None
    sample_rate: SampleRate = None
    frame_rate: FrameRate = None
    all_windows: AllWindows = None
    resolution: Resolution = None
    crop_size: CropSize = None
    rgb_conversion: RgbConversion = None
    metric: Metric = DEFAULT
    enable_tiling: EnableTiling = False

    def __post_init__(self) -> None:
        check_windows(self.num_frames, self.all_windows)
        check_crop(self.resolution or RESOLUTION, self.crop_size)
