"""No valid file is refused: each is read frame by frame, time by time and pixel by pixel as FFmpeg shows it.

A sample of the cases is part of `make test`, all of them run by `make fuzz`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.valid import CASES, differences, expected, make
from vaectl.video import read_video

SAMPLE = frozenset(
    {
        ("h264", "avi", "whole"),
        ("h264", "mp4", "cut"),
        ("h264", "ts", "joined"),
        ("h264", "m2ts", "joined to late"),
        ("h264-open", "ts", "begun late"),
        ("h264-interlaced", "mkv", "streamed"),
        ("h264-refresh", "mkv", "cut"),
        ("hevc-open", "ts", "begun late"),
        ("hevc-open", "mp4", "cut"),
        ("vp8", "webm", "tagged"),
        ("vp9", "mkv", "concatenated"),
        ("mpeg2", "mpg", "joined"),
        ("mpeg2", "ts", "with sound"),
        ("mpeg4", "mov", "turned"),
        ("mpeg4", "m4v", "joined"),
        ("mjpeg-422", "mov", "whole"),
        ("ffv1", "avi", "with sound"),
        ("prores", "mov", "streamed"),
        ("theora", "ogv", "whole"),
        ("wmv2", "wmv", "cut"),
    }
)
NOT_VALID = {
    ("h264-422", "ts", "begun late"): "no keyframe in the rest",
    ("hevc-10", "ts", "begun late"): "no keyframe in the rest",
}
"""Cases whose files hold nothing that could be shown."""


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 200
    assert set(CASES) >= SAMPLE


@pytest.mark.parametrize(
    ("codec", "extension", "way"),
    [pytest.param(*case, marks=[] if case in SAMPLE else pytest.mark.fuzz) for case in CASES if case not in NOT_VALID],
)
def test_a_valid_file_is_read_as_ffmpeg_shows_it(tmp_path: Path, codec: str, extension: str, way: str) -> None:
    path = make(codec, extension, way, tmp_path)
    frames, times = expected(path, codec, way)
    assert len(frames) > 3
    assert differences(read_video(path), frames, times) == []
