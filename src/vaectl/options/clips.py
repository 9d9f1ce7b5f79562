"""The options that `prepare-eval` and `eval` share: which clips, and their size. Each is declared once.

Both commands have the same names and defaults, so `eval` reads what `prepare-eval` wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vaectl.options.common import INPUT, RUN, read_path
from vaectl.options.option import Option

NUM_FRAMES, RESOLUTION = 33, 256
"""The defaults: those of the published tables."""

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
NumFrames = Annotated[int, Option(panel=INPUT, metavar="N", least=1, help="Frames of each clip.")]
SampleRate = Annotated[int, Option(panel=INPUT, metavar="N", least=1, help="Take every N-th frame.")]
Resolution = Annotated[
    int, Option(panel=INPUT, metavar="PIXELS", least=16, most=16384, help="Resize the shorter side to this.")
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


def check_crop(resolution: int, crop_size: int | None) -> None:
    """Raise ValueError if the crop is larger than the resolution."""
    if crop_size is not None and crop_size > resolution:
        raise ValueError(f"`crop_size={crop_size}` does not fit into a `resolution` of {resolution}; make it smaller")
