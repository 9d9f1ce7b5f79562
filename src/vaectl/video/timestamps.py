"""Exact frame times: the clock of a file, and a tag for containers that round times. Knows no file.

Times are fractions of a second from the first frame. Matroska and WebM store whole milliseconds, so the writer adds the
exact times as a tag. The reader uses the tag if it agrees with the stored times to the millisecond.

The tag `VAECTL_FRAME_TIMES` holds the tick of the clock in seconds, a colon, and the ticks from each frame to the next,
run-length encoded. `1001/30000: 1x131` is 132 frames at 29.97 Hz. `1/90000: 3003x2 6006 3003` is five frames, with one
missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, groupby, pairwise
from math import gcd, lcm

from vaectl.numbers import read_fraction

FRAME_TIMES_TAG = "VAECTL_FRAME_TIMES"

_CLOCK_LIMIT = 2**31 - 1
"""Most ticks in a second and between two frames, in MP4 and in FFmpeg's fractions."""


def clock(timestamps: Sequence[Fraction], frame_rate: Fraction) -> Fraction:
    """Return the coarsest tick (seconds) such that every step between frames is a whole multiple of it.

    `timestamps` are in seconds, increasing. A constant rate gives 1 / rate, also if frames are missing. If containers
    cannot count the exact tick, the result is a microsecond, or more for long steps.
    """
    steps = [later - earlier for earlier, later in pairwise(timestamps)] or [1 / frame_rate]
    denominator = lcm(*{step.denominator for step in steps})
    if denominator <= _CLOCK_LIMIT:
        tick = Fraction(gcd(*{step.numerator * (denominator // step.denominator) for step in steps}), denominator)
        if tick.numerator <= _CLOCK_LIMIT and max(steps) * tick.denominator <= _CLOCK_LIMIT:
            return tick
    return Fraction(1, max(1, min(10**6, int(_CLOCK_LIMIT / max(steps)))))


def format_frame_times(timestamps: Sequence[Fraction]) -> str:
    """Return the tag for these times (seconds, increasing, at least two), relative to the first."""
    steps = [later - earlier for earlier, later in pairwise(timestamps)]
    denominator = lcm(*{step.denominator for step in steps})
    ticks = [step.numerator * (denominator // step.denominator) for step in steps]
    unit = gcd(*ticks)
    runs = [(tick // unit, len(list(run))) for tick, run in groupby(ticks)]
    return f"{Fraction(unit, denominator)}: " + " ".join(f"{t}x{n}" if n > 1 else f"{t}" for t, n in runs)


def true_times(stored: Sequence[Fraction], tag: str | None) -> Sequence[Fraction]:
    """Return the times (s) of the tag if they agree with all stored times to the millisecond; else the stored times.

    A tag that does not agree belongs to another file: some programs keep tags when they cut or join files.
    """
    try:
        tick_text, _, runs_text = (tag or "").partition(":")
        runs = [
            (int(ticks), int(count or "1")) for ticks, _, count in (run.partition("x") for run in runs_text.split())
        ]
        tick = read_fraction(tick_text)
    except ValueError:
        return stored
    if (
        any(not 1 <= ticks < 2**63 or count < 1 for ticks, count in runs)
        or sum(count for _, count in runs) != len(stored) - 1
    ):
        return stored
    tagged = [tick * n for n in accumulate((ticks for ticks, count in runs for _ in range(count)), initial=0)]
    agreed = all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(tagged, stored, strict=True))
    return tagged if agreed else stored
