"""The options that `prepare-eval` and `eval` share: which clips, and their size. Each is declared once.

Both commands have the same names and defaults, so `eval` reads what `prepare-eval` wrote.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from vaectl.options.common import INPUT, RUN, read_frame_rate, read_path
from vaectl.options.option import Option

NUM_FRAMES, RESOLUTION = 33, 256
"""The defaults: those of the published tables."""

FRAME_RATE = "Take every N-th frame, N = rate of the source / RATE, rounded; --sample-rate then takes fewer of them."
ALL_WINDOWS = "Take every window of --num-frames frames of a clip, one after the other, not the first alone."

Count: TypeAlias = int | Literal["all"]
Side: TypeAlias = int | Literal["source"]

RealVideoDir = Annotated[
    Path,
    Option(
        panel=INPUT,
        metavar="PATH",
        main=True,
        read=read_path,
        help="The originals: a folder, at any depth, or a file.",
    ),
]
NumFrames = Annotated[Count, Option(panel=INPUT, metavar="N", least=1, help="Frames of each clip, or all.")]
SampleRate = Annotated[int, Option(panel=INPUT, metavar="N", least=1, help="Take every N-th frame.")]
FrameRate = Annotated[
    Fraction | None,
    Option(panel=INPUT, metavar="RATE", read=read_frame_rate, help=f"{FRAME_RATE} (default: that of the source)"),
]
AllWindows = Annotated[bool, Option(panel=INPUT, help=ALL_WINDOWS)]
Resolution = Annotated[
    Side,
    Option(
        panel=INPUT,
        metavar="PIXELS",
        least=16,
        most=16384,
        help="Resize the shorter side to this; source: keep the size of the source.",
    ),
]
CropSize = Annotated[
    int | None,
    Option(
        panel=INPUT,
        metavar="PIXELS",
        least=0,
        most=16384,
        help="Then crop this square from the centre; 0: keep the whole frame. (default: the resolution)",
    ),
]
SubsetSize = Annotated[
    int, Option(panel=INPUT, metavar="N", least=0, help="Take the first N clips by name; 0: all of them.")
]
NumWorkers = Annotated[int, Option(panel=RUN, metavar="N", least=0, help="Clips to decode at once.")]


def check_windows(num_frames: Count | None, all_windows: bool | None) -> None:
    """Raise ValueError for windows of all frames."""
    if all_windows and num_frames == "all":
        raise ValueError("`all_windows` cuts a clip into windows, and `num_frames=all` takes it whole; leave out one")


def check_crop(resolution: Side, crop_size: int | None) -> None:
    """Raise ValueError if the crop is larger than the resolution."""
    if crop_size is not None and resolution != "source" and crop_size > resolution:
        raise ValueError(f"`crop_size={crop_size}` does not fit into a `resolution` of {resolution}; make it smaller")
