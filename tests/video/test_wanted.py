"""Pictures that no other picture refers to are decoded only if they are wanted. The others are the same pixels."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from tests.video.media import encode
from tests.video.test_read import B_FRAMES, OPEN_GOP

from vaectl.errors import VaectlError
from vaectl.video import VideoReader, decode, read_video
from vaectl.video.h264 import Format, format_of, picture_of
from vaectl.video.wanted import Wanted

LONG_GOP = {"options": {"g": "200", "bf": "3"}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "one keyframe": ("mp4", LONG_GOP),
    "keyframes": ("mkv", B_FRAMES),
    "open GOP": ("mp4", OPEN_GOP),
    "pyramid": ("mp4", {"options": {"g": "200", "bf": "4", "x264-params": "b-pyramid=normal:ref=4"}}),
}


def packets_of(path: Path) -> list[tuple[int, bytes, int]]:
    """Return the position, the content and the time of each packet."""
    with av.open(str(path)) as container:
        return [(packet.pos or 0, bytes(packet), packet.pts or 0) for packet in container.demux(video=0) if packet.size]


def form_of(path: Path) -> Format:
    with av.open(str(path)) as container:
        form = format_of(container.streams.video[0].codec_context.extradata)
    assert form is not None
    return form


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["bikes", "carphone_pristine"])
def test_they_are_left_out(samples: Path, name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    plain = decode.decode_packet
    monkeypatch.setattr(decode, "decode_packet", lambda *given: decoded.append(given[1]) or plain(*given))
    path = samples / f"{name}.mp4"
    expected = read_video(path, 75, 40, 13).frames

    def read(start: int, num_frames: int, sample_rate: int = 1) -> int:
        with VideoReader(path, threads=threads) as reader:
            reader.timestamps()
            decoded.clear()
            frames = reader.read(start, num_frames, sample_rate).frames
        assert torch.equal(frames, expected[(start - 75) // 13 :: sample_rate // 13][:num_frames])
        return len(decoded)

    fewer = read(75, 3, 13)
    monkeypatch.setattr(Wanted, "leave_out", lambda *_: False)
    assert fewer < 0.8 * read(75, 3, 13)


@pytest.mark.parametrize("name", ["bigbuckbunny", "bikes", "carphone_pristine", "carphone_distorted", *KINDS])
def test_headers_say_what_ffmpeg_leaves_out(samples: Path, tmp_path: Path, name: str) -> None:
    if name in KINDS:
        extension, how = KINDS[name]
        path = encode(tmp_path / f"clip.{extension}", 40, **how)
    else:
        path = samples / f"{name}.mp4"
    pictures = [(picture_of(content, form_of(path)), pts) for _, content, pts in packets_of(path)]
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        kept = {frame.pts for frame in container.decode(video=0)}
    assert kept == {pts for picture, pts in pictures if picture is not None and picture.is_reference}
    assert pictures[0][0] == (True, True, 0)


def test_a_mark_that_is_damaged_misleads_nobody(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 40, **LONG_GOP)
    form, content = form_of(path), path.read_bytes()
    references = [(place, data) for place, data, _ in packets_of(path) if (p := picture_of(data, form)) and p[1]]
    for place, data in references[1:8]:
        header = data[form.length_bytes]
        damaged = content[: place + 4] + bytes([header & ~0x60]) + content[place + 5 :]
        path.write_bytes(damaged)
        with pytest.raises(VaectlError, match=r"frame \d+ is damaged"):
            read_video(path, 30, 3)


def test_damage_in_a_frame_that_nothing_needs_does_not_matter(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 40, **LONG_GOP)
    expected, form, content = read_video(path).frames, form_of(path), bytearray(path.read_bytes())
    unused = [(place, data) for place, data, _ in packets_of(path) if (p := picture_of(data, form)) and not p[1]]
    place, data = unused[2]
    content[place + 20 : place + len(data)] = random.Random(0).randbytes(len(data) - 20)
    path.write_bytes(content)
    assert torch.equal(read_video(path, 30, 3).frames, expected[30:33])
    with pytest.raises(VaectlError, match=r"frame \d+ is damaged"):
        read_video(path)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_damaged_files_are_those_of_a_full_pass_or_of_the_intact_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extension, how = KINDS[kind]
    path, draw = encode(tmp_path / f"clip.{extension}", 40, **how), random.Random(kind)
    intact, content, packets = read_video(path).frames, path.read_bytes(), packets_of(path)
    jobs = []
    for number in range(12):
        damaged = bytearray(content)
        place, data, _ = draw.choice(packets[1:])
        for _ in range(draw.randrange(1, 4)):
            damaged[place + draw.randrange(min(len(data), draw.choice([6, 12, 1000])))] ^= 1 << draw.randrange(8)
        copy = tmp_path / f"{number}.{extension}"
        copy.write_bytes(damaged)
        jobs += [(copy, draw.randrange(36), draw.randrange(1, 4), draw.choice([1, 2, 3])) for _ in range(3)]

    def read(job: tuple[Path, int, int, int]) -> torch.Tensor | None:
        try:
            return read_video(*job).frames
        except VaectlError:
            return None

    frames = [read(job) for job in jobs]
    monkeypatch.setattr(Wanted, "leave_out", lambda *_: False)
    for job, found in zip(jobs, frames, strict=True):
        full = read(job)
        if full is None and found is not None:
            _, start, num_frames, sample_rate = job
            full = intact[start::sample_rate][:num_frames]
        assert (found is None) == (full is None), job
        assert found is None or (full is not None and torch.equal(found, full)), job
