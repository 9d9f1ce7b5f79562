"""Frames come in presentation order, exactly once, and are the same from every start."""

from __future__ import annotations

import resource
from fractions import Fraction
from pathlib import Path
from threading import Thread
from typing import Any

import av
import numpy as np
import pytest
import torch
from tests.video.media import cut, encode, number_of, numbered_picture, set_display_matrix

from vaectl.errors import UsageError, VaectlError
from vaectl.video import VideoReader, read_video
from vaectl.video.index import build_index
from vaectl.video.read import _decode_from
from vaectl.video.wanted import Wanted

B_FRAMES: dict[str, Any] = {"options": {"g": "8", "bf": "3"}}
OPEN_GOP: dict[str, Any] = {"options": {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:b-adapt=0"}}
HEVC: dict[str, Any] = {
    "codec": "libx265",
    "options": {"x265-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:b-adapt=0:log-level=none:pools=1"},
}
INTRA_REFRESH: dict[str, Any] = {"options": {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}}
MPEG4: dict[str, Any] = {"codec": "mpeg4", "options": {"bf": "2", "g": "10", "b": "2M"}}
MPEG2: dict[str, Any] = {"codec": "mpeg2video", "options": {"bf": "2", "g": "10", "b": "4M"}}
# With frames that are decoded but not shown.
VP8: dict[str, Any] = {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "10", "b": "1M"}}
VP9: dict[str, Any] = {**VP8, "codec": "libvpx-vp9"}
GIF: dict[str, Any] = {"codec": "gif", "pix_fmt": "rgb8"}
FFV1: dict[str, Any] = {"codec": "ffv1", "pix_fmt": "bgr0", "options": {"g": "5"}}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "B-frames in MP4": ("mp4", B_FRAMES),
    "B-frames in MOV": ("mov", B_FRAMES),
    "B-frames in Matroska": ("mkv", B_FRAMES),
    "B-frames in AVI, which stores no times": ("avi", B_FRAMES),
    "B-frames in MPEG-TS": ("ts", B_FRAMES),
    "open GOP in MP4": ("mp4", OPEN_GOP),
    "open GOP in Matroska": ("mkv", OPEN_GOP),
    "open GOP of H.265 in MP4": ("mp4", HEVC),
    "open GOP of H.265 in Matroska": ("mkv", HEVC),
    "keyframes that take time to recover": ("mkv", INTRA_REFRESH),
    "fragmented MP4": ("mp4", {**B_FRAMES, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "negative composition offsets": (
        "mp4",
        {**B_FRAMES, "container_options": {"movflags": "negative_cts_offsets", "use_editlist": "0"}},
    ),
    "interlaced": ("mp4", {"options": {"g": "8", "bf": "2", "x264-params": "interlaced=1"}}),
    "keyframes closer than the decoder's delay": ("mp4", {"options": {"g": "2", "bf": "1"}}),
    "VP8": ("webm", VP8),
    "VP9": ("webm", VP9),
    "AV1": ("mp4", {"codec": "libsvtav1", "options": {"g": "10", "preset": "10"}}),
    "MPEG-4 in AVI": ("avi", MPEG4),
    "MPEG-4 in MP4": ("mp4", MPEG4),
    "MPEG-2 in a program stream": ("mpg", MPEG2),
    "Motion JPEG": ("avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "ProRes": ("mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
    "FFV1": ("mkv", FFV1),
    "GIF": ("gif", GIF),
    "animated PNG": ("apng", {"codec": "apng", "pix_fmt": "rgb24"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_once_in_order_and_the_same_from_anywhere(tmp_path: Path, kind: str) -> None:
    extension, how = KINDS[kind]
    with VideoReader(encode(tmp_path / f"clip.{extension}", 24, **how)) as reader:
        clip = reader.read()
        assert [number_of(frame) for frame in clip.frames] == list(range(24))
        assert clip.timestamps == reader.timestamps()
        steps = {b - a for a, b in zip(clip.timestamps, clip.timestamps[1:], strict=False)}
        assert steps == {Fraction(1, 25)}
        for start in (1, 7, 8, 9, 15, 16, 17, 23):
            assert torch.equal(reader.read(start, 2).frames, clip.frames[start : start + 2]), start


@pytest.mark.parametrize("how", [B_FRAMES, HEVC, MPEG4, VP9], ids=["H.264", "H.265", "MPEG-4", "VP9"])
@pytest.mark.parametrize("extension", ["mkv", "mp4"])
def test_false_keyframe_marks_do_not_mislead(tmp_path: Path, extension: str, how: dict[str, Any]) -> None:
    def mark_as_key(packet: Any) -> Any:
        packet.is_keyframe = True
        return packet

    with VideoReader(encode(tmp_path / f"clip.{extension}", 24, edit_packet=mark_as_key, **how)) as reader:
        clip = reader.read()
        for start in range(1, 24, 3):
            assert torch.equal(reader.read(start, 1).frames, clip.frames[start : start + 1]), start


def test_seeks_rather_than_decodes_from_the_beginning(samples: Path) -> None:
    with VideoReader(samples / "bikes.mp4") as reader:
        wanted = Wanted(range(200, 250), ())
        numbers = [number for number, _ in _decode_from(reader.info.path, build_index(reader.info), wanted)]
    assert 150 < numbers[0] <= 200
    assert numbers == list(range(numbers[0], 250))


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_a_file_whose_header_says_all_is_probed_once(
    tmp_path: Path, extension: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / f"clip.{extension}", 30, **B_FRAMES)
    expected = read_video(path).frames
    probed: list[bool] = []
    plain = av.open

    def spy(*given: Any, options: dict[str, str], **more: Any) -> Any:
        probed.append("probesize" not in options)
        return plain(*given, options=options, **more)

    monkeypatch.setattr(av, "open", spy)
    copy = tmp_path / f"copy.{extension}"
    copy.write_bytes(path.read_bytes())
    with VideoReader(copy) as reader:
        for start in (20, 3):
            assert torch.equal(reader.read(start, 5).frames, expected[start : start + 5])
    assert sum(probed) == 1 if extension == "mp4" else all(probed)


@pytest.mark.parametrize("name", ["bigbuckbunny", "bikes", "carphone_pristine", "carphone_distorted"])
def test_real_clips(samples: Path, name: str) -> None:
    with VideoReader(samples / f"{name}.mp4") as reader:
        times = reader.timestamps()
        assert len(times) == reader.info.num_frames_from_header
        rate = reader.info.frame_rate
        assert times == tuple(i / rate for i in range(len(times)))
        tail = torch.cat([clip.frames for clip in reader.clips(start=60, num_frames=20)])
        for start in (60, 71, 79):
            assert torch.equal(reader.read(start, 1).frames[0], tail[start - 60])


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    ticks = [i * i + i for i in range(20)]
    for extension in ("mp4", "mkv"):
        path = encode(tmp_path / f"clip.{extension}", 20, pts=ticks, time_base=Fraction(1, 1000), **B_FRAMES)
        clip = read_video(path)
        assert clip.timestamps == tuple(Fraction(t, 1000) for t in ticks)
        assert [number_of(frame) for frame in clip.frames] == list(range(20))
        assert torch.equal(read_video(path, 13, 1).frames, clip.frames[13:14])


@pytest.mark.parametrize(
    ("extension", "how"),
    [("gif", GIF), ("apng", KINDS["animated PNG"][1]), ("avi", KINDS["Motion JPEG"][1])],
    ids=["GIF", "animated PNG", "frames that an AVI repeats"],
)
def test_pauses_keep_their_length(tmp_path: Path, extension: str, how: dict[str, Any]) -> None:
    ticks = [0, 1, 4, 5, 9]
    clip = read_video(encode(tmp_path / f"clip.{extension}", 5, pts=ticks, time_base=Fraction(1, 25), **how))
    assert [number_of(frame) for frame in clip.frames] == list(range(5))
    assert clip.timestamps == tuple(Fraction(t, 25) for t in ticks)


def test_times_that_matroska_rounds_onto_each_other_are_told_apart(tmp_path: Path) -> None:
    path = encode(tmp_path / "fast.mkv", 20, rate=3000, **B_FRAMES)
    clip = read_video(path)
    assert [number_of(frame) for frame in clip.frames] == list(range(20))
    assert clip.timestamps == tuple(Fraction(i, 3000) for i in range(20))


def test_frames_before_an_edit_list_are_not_given(tmp_path: Path) -> None:
    # The MP4 writer puts frames with times below 0 before the start of the edit list.
    path = encode(
        tmp_path / "trimmed.mov",
        40,
        pts=range(-10, 30),
        time_base=Fraction(1, 25),
        container_options={"avoid_negative_ts": "disabled"},
        **OPEN_GOP,
    )
    with VideoReader(path) as reader:
        clip = reader.read()
        assert [number_of(frame) for frame in clip.frames] == list(range(10, 40))
        assert clip.timestamps == tuple(Fraction(i, 25) for i in range(30))
        for start in range(0, 30, 4):
            assert torch.equal(reader.read(start, 1).frames, clip.frames[start : start + 1]), start


def test_a_late_first_frame_keeps_its_time(tmp_path: Path) -> None:
    path = encode(tmp_path / "late.mp4", 10, pts=range(50, 60), time_base=Fraction(1, 25), **B_FRAMES)
    assert read_video(path).timestamps == tuple(Fraction(i, 25) for i in range(50, 60))


def test_a_recording_that_begins_between_keyframes_gives_what_can_be_decoded(tmp_path: Path) -> None:
    seen = 0

    def skip_first_five(packet: Any) -> Any:
        nonlocal seen
        seen += 1
        return packet if seen > 5 else None

    path = encode(
        tmp_path / "cut.ts", 24, edit_packet=skip_first_five, options={"g": "8", "bf": "0", "sc_threshold": "0"}
    )
    with VideoReader(path) as reader:
        clip = reader.read()
        assert [number_of(frame) for frame in clip.frames] == list(range(8, 24))
        assert torch.equal(reader.read(9, 3).frames, clip.frames[9:12])


def test_ranges_and_batches(tmp_path: Path) -> None:
    with VideoReader(encode(tmp_path / "clip.mkv", 24, **FFV1)) as reader:
        everything = reader.read()
        clips = list(reader.clips(start=3, num_frames=5, sample_rate=4, batch_size=2))
        assert [len(clip) for clip in clips] == [2, 2, 1]
        assert [number_of(frame) for clip in clips for frame in clip.frames] == [3, 7, 11, 15, 19]
        assert [t for clip in clips for t in clip.timestamps] == [Fraction(n, 25) for n in (3, 7, 11, 15, 19)]
        assert {clip.frame_rate for clip in clips} == {Fraction(25, 4)}
        # A shorter clip yields all it has.
        assert [number_of(frame) for frame in reader.read(20, 100, 3).frames] == [20, 23]
        # Passes do not disturb each other.
        for one, two in zip(reader.clips(batch_size=5), reader.clips(batch_size=5), strict=True):
            assert torch.equal(one.frames, two.frames)
        assert everything.frames.is_contiguous()
        assert everything.frames.shape == (24, 3, 48, 64)
        assert everything.frames.dtype == torch.uint8


def test_a_start_beyond_the_end_is_refused(tmp_path: Path) -> None:
    with VideoReader(encode(tmp_path / "clip.mp4", 5)) as reader:
        with pytest.raises(UsageError, match=r"clip\.mp4 has 5 frames"):
            reader.clips(start=5)
        for wrong in ({"start": -1}, {"num_frames": 0}, {"sample_rate": 0}, {"batch_size": 0}):
            with pytest.raises(ValueError, match="too small"):
                reader.clips(**wrong)


def test_wrong_numbers_are_refused_before_the_file_is_opened(tmp_path: Path) -> None:
    for name, wrong in (("start", -1), ("start", None), ("num_frames", 0), ("num_frames", 2.5), ("sample_rate", "2")):
        with pytest.raises(UsageError, match=rf"`{name}` must be a whole number of at least [01], not {wrong!r}"):
            read_video(tmp_path / "missing.mp4", **{name: wrong})
    clip = read_video(encode(tmp_path / "clip.mp4", 5), np.int64(1), np.int64(2), np.int64(2))
    assert [number_of(frame) for frame in clip.frames] == [1, 3]


def test_pixels_of_lossless_rgb_come_back_bit_for_bit(tmp_path: Path) -> None:
    expected = torch.stack([torch.from_numpy(numbered_picture(i, 63, 47)).permute(2, 0, 1) for i in range(5)])
    ffv1 = encode(tmp_path / "clip.mkv", 5, size=(63, 47), **FFV1)
    h264 = encode(tmp_path / "clip.mp4", 5, size=(63, 47), codec="libx264rgb", pix_fmt="rgb24", options={"qp": "0"})
    png = encode(tmp_path / "clip.mov", 5, size=(63, 47), codec="png", pix_fmt="rgb24")
    for path in (ffv1, h264, png):
        assert torch.equal(read_video(path).frames, expected), path.name


# The effect of (x, y) -> (a x + c y, b x + d y) on a picture, in torch.
TURNS = {
    (1, 0, 0, 1): lambda p: p,
    (0, 1, -1, 0): lambda p: p.rot90(-1, (-2, -1)),
    (-1, 0, 0, -1): lambda p: p.rot90(2, (-2, -1)),
    (0, -1, 1, 0): lambda p: p.rot90(1, (-2, -1)),
    (-1, 0, 0, 1): lambda p: p.flip(-1),
    (1, 0, 0, -1): lambda p: p.flip(-2),
    (0, 1, 1, 0): lambda p: p.transpose(-2, -1),
    (0, -1, -1, 0): lambda p: p.rot90(2, (-2, -1)).transpose(-2, -1),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_rotation_and_mirroring_are_applied(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = encode(tmp_path / "clip.mp4", 3, size=(64, 48))
    stored = read_video(path).frames
    with VideoReader(set_display_matrix(path, *matrix)) as reader:
        shown = TURNS[matrix](stored)
        assert torch.equal(reader.read().frames, shown)
        assert (reader.info.height, reader.info.width) == shown.shape[-2:]


DAMAGE: dict[str, tuple[str, dict[str, Any]]] = {
    "MP4 with its index in front": ("mp4", {**B_FRAMES, "container_options": {"movflags": "faststart"}}),
    "fragmented MP4": KINDS["fragmented MP4"],
    "H.264 in Matroska": ("mkv", B_FRAMES),
    "H.265 in Matroska": ("mkv", HEVC),
    "VP8": ("webm", VP8),
    "VP9": ("webm", VP9),
    "H.264 in AVI": ("avi", B_FRAMES),
    "MPEG-4 in AVI": ("avi", MPEG4),
    "FFV1": ("mkv", FFV1),
    "GIF": ("gif", GIF),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_file_cut_short_is_an_error_and_its_whole_frames_can_be_had(tmp_path: Path, kind: str) -> None:
    extension, how = DAMAGE[kind]
    whole = encode(tmp_path / f"clip.{extension}", 40, **how)
    frames = read_video(whole).frames
    for fraction in (0.6, 0.95, 0.999):
        with VideoReader(cut(whole, fraction)) as reader:
            with pytest.raises(VaectlError, match="cut short") as caught:
                reader.timestamps()
            with pytest.raises(VaectlError, match="cut short"):
                reader.clips()
            assert str(reader.info.path) in str(caught.value)
            readable = int(str(caught.value).split("first ")[1].split()[0])
            # All 40 if only the index at the end of a WebM is missing.
            assert (20 if fraction > 0.9 else 0) <= readable < (41 if fraction == 0.999 and extension == "webm" else 40)
            if readable:
                assert torch.equal(reader.read(0, readable).frames, frames[:readable])
            with pytest.raises(VaectlError, match="cut short"):
                reader.clips(0, readable + 1)


def test_a_damaged_frame_is_an_error_after_the_good_ones(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 40, **B_FRAMES)
    whole = read_video(path).frames
    data = bytearray(path.read_bytes())
    middle = int(len(data) * 0.6)
    data[middle : middle + 300] = bytes(byte ^ 0x5A for byte in data[middle : middle + 300])
    path.write_bytes(data)
    given = []
    with pytest.raises(VaectlError, match=r"clip\.mp4: frame \d+ is damaged"):
        given.extend(clip.frames for clip in VideoReader(path).clips(batch_size=1))
    assert 8 < len(given) < 40
    assert torch.equal(torch.cat(given), whole[: len(given)])
    assert torch.equal(read_video(path, 0, len(given)).frames, whole[: len(given)])
    # After the next keyframe frames are intact. Before it, the error still counts from the start.
    assert torch.equal(read_video(path, 34, 2).frames, whole[34:36])
    with pytest.raises(VaectlError, match=f"frame {len(given)} is damaged, and only the first {len(given)} of its"):
        read_video(path, len(given), 1)


def test_a_stream_that_changes_its_size_keeps_the_first(tmp_path: Path) -> None:
    motion_jpeg: dict[str, Any] = {"codec": "mjpeg", "pix_fmt": "yuvj444p"}
    parts = [encode(tmp_path / f"{size[0]}.mkv", 8, size=size, **motion_jpeg) for size in ((64, 48), (128, 96))]
    both = tmp_path / "both.mkv"
    with av.open(str(both), "w") as target, av.open(str(parts[0])) as small, av.open(str(parts[1])) as large:
        stream = target.add_stream_from_template(small.streams.video[0])
        packets = [p for part in (small, large) for p in part.demux(video=0) if p.size]
        for number, packet in enumerate(packets):
            packet.stream, packet.pts, packet.dts = stream, 40 * number, 40 * number
            target.mux(packet)
    clip = read_video(both)
    assert clip.frames.shape == (16, 3, 48, 64)
    assert [number_of(frame) for frame in clip.frames] == [*range(8), *range(8)]


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    path = encode(tmp_path / "long.mp4", 400, size=(640, 480), options={"preset": "ultrafast"})
    with VideoReader(path) as reader:
        next(reader.clips(num_frames=40))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert sum(len(clip) for clip in reader.clips()) == 400
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # KiB; the whole clip is 360 MiB


def test_a_thread_that_cannot_start_is_a_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "clip.mp4", 4)
    with VideoReader(path, threads=2) as reader:
        assert len(reader.timestamps()) == 4

        def refuse(_: Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(Thread, "start", refuse)
        with pytest.raises(VaectlError, match=r"clip\.mp4: out of memory: its frames have 64x48 pixels"):
            reader.read()
