"""A pass that begins a little after the last one continues it, and gives the same frames as any other."""

from __future__ import annotations

import gc
import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
import torch
from tests.video.media import encode
from tests.video.test_read import B_FRAMES, HEVC, KINDS, OPEN_GOP, VP9

from vaectl.errors import VaectlError
from vaectl.video import VideoReader, decode, messages, paused, read_video

LONG_GOP = {"options": {"g": "200", "bf": "3"}}
KIND = {"one keyframe": ("mp4", LONG_GOP), "keyframes": ("mkv", B_FRAMES), "open GOP": ("mp4", OPEN_GOP)} | {
    "H.265": ("mkv", HEVC),
    "VP9": ("webm", VP9),
    "AVI": KINDS["B-frames in AVI, which stores no times"],
    "interlaced": KINDS["interlaced"],
    "GIF": KINDS["GIF"],
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", KIND)
def test_frames_are_the_same_in_any_order_of_passes(tmp_path: Path, kind: str, threads: int) -> None:
    extension, how = KIND[kind]
    path = encode(tmp_path / f"clip.{extension}", 30, **how)
    expected, draw = read_video(path).frames, random.Random(0)
    with VideoReader(path, threads=threads) as reader:
        assert len(reader.timestamps()) == 30
        for start in [0, 3, 6, 6, 20, 29, *(draw.randrange(30) for _ in range(12))]:
            step = draw.choice([1, 1, 2])
            assert torch.equal(reader.read(start, 3, step).frames, expected[start::step][:3]), start


@pytest.fixture
def packets(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The packets that were decoded."""
    decoded: list[object] = []
    plain = decode.decode_packet
    monkeypatch.setattr(decode, "decode_packet", lambda *given: decoded.append(given[1]) or plain(*given))
    return decoded


def test_a_pass_that_begins_later_decodes_no_frame_again(tmp_path: Path, packets: list[object]) -> None:
    path = encode(tmp_path / "clip.mp4", 60, **LONG_GOP)
    with VideoReader(path, threads=1) as reader:
        reader.timestamps()
        packets.clear()
        for start in range(0, 60, 5):
            reader.read(start, 5)
        assert len(packets) <= 61  # and the end of the stream
        packets.clear()
        reader.read(5, 5)  # backwards: from the beginning
        reader.close()
        reader.read(10, 5)
        assert len(packets) >= 10 + 10  # without some B-frames


def test_a_far_keyframe_is_sought(tmp_path: Path, packets: list[object]) -> None:
    path = encode(tmp_path / "clip.mp4", 60, options={"g": "20", "bf": "0", "sc_threshold": "0"})
    with VideoReader(path, threads=1) as reader:
        reader.read(0, 2)
        packets.clear()
        reader.read(41, 2)
        assert len(packets) < 20


def test_closing_ends_the_capture_of_messages(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 20)
    before = av.logging.get_level()
    reader = VideoReader(path)
    reader.read(0, 3)
    reader.close()
    reader.close()
    assert av.logging.get_level() == before
    with VideoReader(path) as other:
        other.read(0, 3)
        copy = pickle.loads(pickle.dumps(other))
        assert torch.equal(copy.read(4, 2).frames, other.read(4, 2).frames)
    copy.close()
    assert av.logging.get_level() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_a_paused_pass_captures_no_messages(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paused, "DECODE_AHEAD_SECONDS", 0.1)
    path = encode(tmp_path / "clip.mp4", 30)
    expected, before = read_video(path).frames, av.logging.get_level()
    reader = VideoReader(path, threads=threads)
    for start in (0, 6, 12):
        assert torch.equal(reader.read(start, 3).frames, expected[start : start + 3])
        assert threads == 2 or messages._listeners == 0
        time.sleep(0.3 * (threads - 1))
        assert (messages._listeners, av.logging.get_level()) == (0, before)
    del reader
    gc.collect()
    assert messages._listeners == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_errors_after_a_pause_are_found(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paused, "DECODE_AHEAD_SECONDS", 0.01)
    path = encode(tmp_path / "clip.mp4", 40, **LONG_GOP)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    place, size = packets[24].pos or 0, packets[24].size
    content[place + 8 : place + size] = random.Random(0).randbytes(size - 8)
    path.write_bytes(content)
    with VideoReader(path, threads=threads) as reader:
        reader.read(0, 5)
        time.sleep(0.1)
        with pytest.raises(VaectlError, match=r"frame \d+ is damaged"):
            reader.read(5, 35)
    assert messages._listeners == 0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
def test_many_files_leave_no_file_open(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 6)

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for number in range(100):
        copy = tmp_path / f"{number}.mp4"
        copy.hardlink_to(path)
        VideoReader(copy, threads=1).read(0, 2)
        read_video(copy, 0, 2)
    assert opened() <= before + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_reads_by_itself_and_nothing_waits_at_the_end(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 40, **LONG_GOP)
    code = """
import os, sys, torch
from vaectl.video import VideoReader
reader = VideoReader(sys.argv[1], threads=2)
expected = reader.read().frames
reader.read(0, 3)
child = os.fork()
frames = torch.cat([reader.read(start, 5).frames for start in range(5, 40, 5)])
assert torch.equal(frames, expected[5:])
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
