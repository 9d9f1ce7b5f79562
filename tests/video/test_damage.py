"""Damage that FFmpeg only logs or skips is an error with the number of good frames. Intact files cause no error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import pytest
import torch
from PIL import Image
from tests.conftest import ROOT
from tests.video.media import encode, number_of, numbered_picture

from vaectl.errors import VaectlError
from vaectl.video import VideoReader, blocks, read_video
from vaectl.video.messages import listening

FFV1: dict[str, Any] = {"codec": "ffv1", "pix_fmt": "bgr0", "options": {"level": "3", "slicecrc": "1", "g": "1"}}
MJPEG: dict[str, Any] = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
HUFFYUV: dict[str, Any] = {"codec": "huffyuv", "pix_fmt": "yuv422p"}
B_FRAMES: dict[str, Any] = {"options": {"g": "8", "bf": "2", "b-pyramid": "none", "sc_threshold": "0"}}


def packets(path: Path) -> list[tuple[int, int]]:
    """Positions and sizes of the video packets."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def spoil(path: Path, at: int, count: int = 8, value: int | None = None) -> None:
    """Invert `count` bytes, or set them to `value`."""
    data = bytearray(path.read_bytes())
    for place in range(at, min(at + count, len(data))):
        data[place] = data[place] ^ 0xFF if value is None else value
    path.write_bytes(data)


def readable(path: Path) -> int:
    """Read the good frames that the error counts, and return their number."""
    given: list[torch.Tensor] = []
    with (
        pytest.raises(VaectlError, match=r"first \d+ of its frames can be read") as caught,
        VideoReader(path) as reader,
    ):
        given.extend(clip.frames for clip in reader.clips(batch_size=1))
    count = int(str(caught.value).split("first ")[1].split()[0])
    assert len(given) in (0, count)  # reported before reading, or after the good frames
    if count:
        assert [number_of(frame) for frame in read_video(path, 0, count).frames] == list(range(count))
    with pytest.raises(VaectlError), VideoReader(path) as reader:
        list(reader.clips(0, count + 1))
    return count


@pytest.mark.parametrize("threads", [1, 0])
def test_a_slice_whose_checksum_fails(tmp_path: Path, threads: int) -> None:
    path = encode(tmp_path / "clip.mkv", 20, **FFV1)
    whole = read_video(path).frames
    position, size = packets(path)[11]
    spoil(path, position + size // 2)
    assert readable(path) == 11
    given: list[torch.Tensor] = []
    with pytest.raises(VaectlError, match=r"frame 11 is damaged.*CRC"), VideoReader(path, threads=threads) as reader:
        given.extend(clip.frames for clip in reader.clips(batch_size=1))
    assert torch.equal(torch.cat(given), whole[:11])
    assert torch.equal(read_video(path, 12, 4).frames, whole[12:16])  # frames are independent, and these are complete


def test_messages_reach_the_file_that_they_are_about(tmp_path: Path) -> None:
    whole, broken = (encode(tmp_path / f"{name}.mkv", 40, size=(320, 240), **FFV1) for name in ("whole", "broken"))
    position, size = packets(broken)[30]
    spoil(broken, position + size // 2)

    def read(number: int) -> str:
        path = (whole, broken)[number % 2]
        try:
            return str(len(read_video(path)))
        except VaectlError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        for number, said in enumerate(pool.map(read, range(32), timeout=120)):
            assert (said == "40") if number % 2 == 0 else (f"{broken}: frame 30 is damaged" in said)


def test_the_same_message_about_another_file_counts_too(tmp_path: Path) -> None:
    for name in "ab":
        path = encode(tmp_path / f"{name}.mkv", 6, **FFV1)
        position, size = packets(path)[3]
        spoil(path, position + size // 2)
        assert readable(path) == 3


def test_the_settings_of_the_log_are_those_of_before(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 3)
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    with listening():
        assert av.logging.get_level() == av.logging.WARNING
        read_video(path)
        assert av.logging.get_level() == av.logging.WARNING
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


def test_motion_jpeg_that_its_decoder_complains_about(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.avi", 20, **MJPEG)
    position, size = packets(path)[8]
    spoil(path, position + size // 2, size // 2, 0)
    assert readable(path) == 8


def test_zeros_in_the_middle_of_a_matroska_file(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mkv", 40, container_options={"cluster_time_limit": "200"}, **FFV1)
    position, _ = packets(path)[22]
    spoil(path, position - 200, 500, 0)  # the heads of a block and perhaps a cluster
    assert 18 <= readable(path) <= 22


def test_a_chunk_that_the_table_of_an_avi_lists_and_the_file_lacks(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.avi", 20, **MJPEG)
    position, _ = packets(path)[8]
    spoil(path, position - 8, 8, 0)  # its name and its size
    assert readable(path) == 8


@pytest.mark.parametrize("extension", ["ts", "m2ts"])
def test_a_transport_packet_that_is_missing(tmp_path: Path, extension: str) -> None:
    blueray = {"mpegts_m2ts_mode": "1"} if extension == "m2ts" else {}
    path = encode(tmp_path / "clip.ts", 24, size=(320, 240), container_options=blueray, **B_FRAMES)
    stride = 192 if blueray else 188
    data, there = path.read_bytes(), packets(path)
    for number in (10, 13):
        first = there[number][0] // stride * stride
        for at in (first, first + stride):
            path.write_bytes(data[:at] + data[at + stride :])
            assert number - 4 <= readable(path) <= number


@pytest.mark.parametrize(
    ("extension", "how", "least"),
    [("avi", MJPEG, 0), ("avi", HUFFYUV, 0), ("h264", B_FRAMES, 3), ("mkv", FFV1, 0), ("mp4", {}, 5)],
    ids=["Motion JPEG", "HuffYUV", "raw H.264", "FFV1", "H.264"],
)
def test_all_that_can_be_decoded_of_a_cut_file_is_counted(
    tmp_path: Path, extension: str, how: dict[str, Any], least: int
) -> None:
    front = {"container_options": {"movflags": "faststart"}} if extension == "mp4" else {}
    path = encode(tmp_path / f"clip.{extension}", 40, **how, **front)
    there = packets(path)
    position, size = there[30] if extension != "h264" else (sum(size for _, size in there[:30]), there[30][1])
    path.write_bytes(path.read_bytes()[: position + size // 2])
    assert 30 - least <= readable(path) <= 30


def live_matroska(path: Path, count: int, **how: Any) -> Path:
    """Write a Matroska file like a live stream: without sizes and index."""
    return encode(path, count, container_options={"live": "1", "cluster_time_limit": "200"}, **how)


@pytest.mark.parametrize("kind", ["live Matroska", "MPEG-TS"])
def test_a_recording_that_was_stopped_ends_before_the_first_frame_that_is_missing(tmp_path: Path, kind: str) -> None:
    if kind == "MPEG-TS":
        path = encode(tmp_path / "clip.ts", 40, **B_FRAMES)
    else:
        path = live_matroska(tmp_path / "clip.mkv", 40, **B_FRAMES)
    data, whole = path.read_bytes(), read_video(path)
    assert len(whole) == 40
    for number, (position, _) in enumerate(packets(path)):
        if number < 12:
            continue
        end = position if kind == "MPEG-TS" else position - 1
        path.write_bytes(data[:end])
        try:
            clip = read_video(path)
        except VaectlError:
            assert kind == "live Matroska"  # the head of a missing block
            continue
        assert number - 3 <= len(clip) <= number
        assert clip.timestamps == whole.timestamps[: len(clip)]
        assert torch.equal(clip.frames, whole.frames[: len(clip)])


HEVC: dict[str, Any] = {
    "codec": "libx265",
    "options": {"x265-params": "keyint=8:min-keyint=8:bframes=4:b-adapt=0:log-level=none:pools=1"},
}


@pytest.mark.parametrize(("extension", "how"), [("h264", B_FRAMES), ("hevc", HEVC)], ids=["H.264", "H.265"])
def test_a_raw_stream_that_was_stopped_ends_before_the_first_frame_that_is_missing(
    tmp_path: Path, extension: str, how: dict[str, Any]
) -> None:
    path = encode(tmp_path / f"clip.{extension}", 40, **how)
    data, whole = path.read_bytes(), read_video(path).frames
    assert [number_of(frame) for frame in whole] == list(range(40))
    end = 0
    for number, (_, size) in enumerate(packets(path)):
        end += size
        if number < 20:
            continue
        path.write_bytes(data[:end])
        frames = read_video(path).frames
        assert number - 5 <= len(frames) <= number + 1
        assert torch.equal(frames, whole[: len(frames)])


def renumbered(data: bytes) -> bytes:
    """A transport stream with gapless continuity counters."""
    stream, counts = bytearray(data), {}
    for at in range(0, len(stream), 188):
        pid = (stream[at + 1] & 0x1F) << 8 | stream[at + 2]
        if pid in counts and stream[at + 3] & 0x10:
            counts[pid] = (counts[pid] + 1) % 16
        counts.setdefault(pid, stream[at + 3] & 15)
        stream[at + 3] = stream[at + 3] & 0xF0 | counts[pid]
    return bytes(stream)


@pytest.mark.parametrize("first", [0, 250_000], ids=["again", "back"])
@pytest.mark.parametrize("runs_on", [False, True], ids=["counters begin anew", "counters run on"])
def test_joined_transport_streams_are_one_video(tmp_path: Path, first: int, runs_on: bool) -> None:
    one = encode(tmp_path / "1.ts", 24, pts=range(first, first + 24), time_base=Fraction(1, 25), **B_FRAMES)
    two = encode(
        tmp_path / "2.ts",
        24,
        **B_FRAMES,
        pictures=(av.VideoFrame.from_ndarray(numbered_picture(24 + n), format="rgb24") for n in range(24)),
    )
    both = tmp_path / "both.ts"
    data = one.read_bytes() + two.read_bytes()
    both.write_bytes(renumbered(data) if runs_on else data)
    clip = read_video(both)
    assert [number_of(frame) for frame in clip.frames] == list(range(48))
    steps = [b - a for a, b in zip(clip.timestamps, clip.timestamps[1:], strict=False)]
    assert all(abs(step - Fraction(1, 25)) <= Fraction(1, 1000) for step in steps)
    with VideoReader(both) as reader:
        assert torch.equal(reader.read(23, 4).frames, clip.frames[23:27])


def test_a_piece_that_begins_between_keyframes_gives_what_can_be_decoded(tmp_path: Path) -> None:
    path = encode(tmp_path / "1.ts", 24, options={"g": "8", "bf": "0", "sc_threshold": "0"})
    position, _ = packets(path)[5]
    data = path.read_bytes()
    (tmp_path / "both.ts").write_bytes(data + data[position:])
    assert [number_of(frame) for frame in read_video(tmp_path / "both.ts").frames] == [*range(24), *range(8, 24)]


def test_a_tag_in_another_encoding_is_no_damage(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        container.metadata["title"] = "ABCD"
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    path = tmp_path / "clip.mkv"
    path.write_bytes(path.read_bytes().replace(b"ABCD", b"\xe9\xe8BC"))
    assert len(read_video(path)) == 3


def test_a_motion_photo_is_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "photo.jpg"
    Image.fromarray(numbered_picture(5, 200, 150)).save(picture)
    whole = read_video(picture).frames
    data = picture.read_bytes()
    rest = os.urandom(100) + b"\xff\xda" + os.urandom(5000) + b"\xff\xda" + os.urandom(100)
    picture.write_bytes(data + encode(tmp_path / "film.mp4", 5).read_bytes() + rest)
    assert torch.equal(read_video(picture).frames, whole)
    picture.write_bytes(data[:-300] + rest)  # no end of the picture, but perhaps the same bytes after it
    with pytest.raises(VaectlError, match=r"photo\.jpg"):
        read_video(picture)


READ_OFTEN = """
import sys
from vaectl.errors import VaectlError
from vaectl.video import read_video

for _ in range(150):
    try:
        read_video(sys.argv[1])
    except VaectlError:
        pass
"""


def test_decode_threads_that_still_log_cannot_hang_the_end_of_reading() -> None:
    """An MPEG-4 file with a few dozen flipped bits. Reading it hung in one of three runs."""
    path = ROOT / "tests" / "data" / "damaged_slices.avi"
    subprocess.run([sys.executable, "-c", READ_OFTEN, path], check=True, timeout=60)


# Cut or damaged at any place

ROWS: dict[str, dict[str, Any]] = {
    "a.flv": {"options": {"g": "8", "bf": "2"}},
    "b.flv": {"codec": "flv"},
    "a.ivf": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "a.wmv": {"codec": "wmv2", "size": (320, 240)},
    "a.mxf": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "a.ogv": {},
    "a.y4m": {"codec": "wrapped_avframe"},
    "a.hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=8"}},
}


def make(path: Path) -> Path:
    if path.suffix != ".ogv":
        return encode(path, 20, **ROWS[path.name])
    source = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25", "-frames:v", "20")
    subprocess.run(  # PyAV has no encoder for Theora
        [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *source, "-c:v", "libtheora", path], check=True
    )
    return path


@pytest.mark.parametrize("name", ROWS)
def test_a_cut_anywhere_leaves_only_frames_of_the_whole_file(tmp_path: Path, name: str) -> None:
    whole = make(tmp_path / name)
    content, frames = whole.read_bytes(), read_video(whole).frames
    cut = tmp_path / f"cut{whole.suffix}"
    counts = []
    for place in range(len(content) // 4, len(content), len(content) // 25):
        cut.write_bytes(content[:place])
        try:
            read = read_video(cut).frames
        except VaectlError as error:
            named = re.search(r"first (\d+) of its frames", str(error))
            read = read_video(cut, 0, int(named[1])).frames if named and named[1] != "0" else frames[:0]
        assert torch.equal(read, frames[: len(read)]), place
        counts.append(len(read))
    assert max(counts) > 10


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("a.y4m", "a.hevc")])
@pytest.mark.parametrize("how", ["lost", "zeros"])
def test_bytes_that_are_lost_or_overwritten_are_told(tmp_path: Path, name: str, how: str) -> None:
    path = make(tmp_path / name)
    content, frames = path.read_bytes(), read_video(path).frames
    places = packets(path)
    start = places[8][0] + 5
    end = max(places[10][0], start + 3300) + 7  # at least a packet of WMV
    path.write_bytes(content[:start] + (b"" if how == "lost" else bytes(end - start)) + content[end:])
    with pytest.raises(VaectlError, match=r"first \d+ of its frames can be read") as caught:
        read_video(path)
    count = int(str(caught.value).split("first ")[1].split()[0])
    assert count <= 10
    if count:
        assert torch.equal(read_video(path, 0, count).frames, frames[:count])


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("a.y4m", "a.hevc", "a.wmv")])
def test_blocks_of_any_size_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """MXF may hold all of its pictures in one block."""
    path = make(tmp_path / name)
    monkeypatch.setattr(blocks, "_ORDINARY_BLOCK_BYTES", 1)
    assert len(read_video(path).frames) == 20


@pytest.mark.parametrize("name", ["a.mxf", "a.asf"])
def test_times_of_decoding_are_not_taken_for_those_of_display(tmp_path: Path, name: str) -> None:
    """In these containers FFmpeg writes them for H.264 with B-frames."""
    path = encode(tmp_path / name, 20, options={"bf": "2", "b-pyramid": "none", "sc_threshold": "0", "g": "20"})
    assert [number_of(frame) for frame in read_video(path).frames] == list(range(20))


def test_joined_ogg_files_are_one_video(tmp_path: Path) -> None:
    path = make(tmp_path / "a.ogv")
    frames = read_video(path).frames
    path.write_bytes(2 * path.read_bytes())
    assert torch.equal(read_video(path).frames, torch.cat([frames, frames]))


def test_a_small_jpeg_with_another_behind_it(tmp_path: Path) -> None:
    picture = Image.new("RGB", (75, 57), "red")
    picture.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[picture.rotate(90)])
    assert read_video(tmp_path / "a.jpg").frames.shape == (1, 3, 57, 75)


def test_joined_fragmented_mp4_files_are_damaged(tmp_path: Path) -> None:
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    path = encode(tmp_path / "a.mp4", 24, options={"g": "8"}, container_options=fragmented)
    path.write_bytes(2 * path.read_bytes())
    assert 20 <= readable(path) <= 24  # the last decoded frames may be shown after the missing ones
