"""Audio is copied in sync, unchanged if possible, and never prevents the video."""

import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest
from sync import burst_time, film_with_clap, flash_time

from vaectl.video import VideoReader, read_video
from vaectl.video.write import VideoWriter, write_video


def rewrite(source: Path, target: Path) -> list[str]:
    """Write the frames and the audio of `source` to `target`. Return the warnings."""
    clip, words = read_video(source), list[str]()
    height, width = clip.frames.shape[-2:]
    with VideoWriter(
        target,
        width=width,
        height=height,
        frame_rate=clip.frame_rate,
        timestamps=clip.timestamps,
        audio_from=source,
        warn=words.append,
    ) as writer:
        writer.write(clip)
    return words


def audio_data(path: Path, track: int = 0) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[track]) if packet.size]


STARTS = {
    "together": (Fraction(0), Fraction(0)),
    "sound first": (Fraction(1, 10), Fraction(0)),
    "picture first": (Fraction(0), Fraction(1, 2)),
    "both late": (Fraction(13, 25), Fraction(1, 4)),
}
SOURCES = [("mp4", "aac", 48000), ("webm", "libopus", 48000), ("mov", "pcm_s16le", 44100), ("mkv", "libmp3lame", 44100)]


@pytest.mark.parametrize("starts", STARTS.values(), ids=STARTS.keys())
@pytest.mark.parametrize(("extension", "codec", "rate"), SOURCES, ids=[source[1] for source in SOURCES])
def test_sound_stays_in_sync(
    tmp_path: Path, extension: str, codec: str, rate: int, starts: tuple[Fraction, Fraction]
) -> None:
    video_start, audio_start = starts
    source = film_with_clap(
        tmp_path / f"source.{extension}", codec, video_start=video_start, audio_start=audio_start, rate=rate
    )
    for target in ("mp4", "mov", "mkv", "webm"):
        rewrite(source, tmp_path / f"a.{target}")
        assert flash_time(tmp_path / f"a.{target}") == pytest.approx(1.22)
        assert burst_time(tmp_path / f"a.{target}") == pytest.approx(1.22, abs=0.0015)
        assert VideoReader(tmp_path / f"a.{target}").timestamps()[0] == 0


@pytest.mark.parametrize(
    ("extension", "codec", "target", "expected"),
    [
        ("mp4", "aac", "mp4", "copied"),
        ("mp4", "aac", "mkv", "copied"),
        ("mp4", "aac", "webm", "opus"),
        ("webm", "libopus", "mp4", "copied"),
        ("webm", "libopus", "mov", "aac"),
        ("mov", "pcm_s16le", "mp4", "aac"),
        ("mov", "pcm_s16le", "mov", "copied"),
        ("mkv", "flac", "webm", "opus"),
    ],
)
def test_sound_is_copied_where_the_target_holds_it(
    tmp_path: Path, extension: str, codec: str, target: str, expected: str
) -> None:
    source = film_with_clap(tmp_path / f"source.{extension}", codec)
    words = rewrite(source, tmp_path / f"a.{target}")
    if expected == "copied":
        assert not words
        priming = int(target == "mkv")  # the first AAC packet is before 0, where Matroska has no times
        assert audio_data(tmp_path / f"a.{target}") == audio_data(source)[priming:]
    else:
        (word,) = words
        name = "pcm_s16le" if codec.startswith("pcm") else codec.removeprefix("lib")
        assert word == f"{source}: {target} does not hold {name} audio: stream 1 is encoded again as {expected}"
        with av.open(str(tmp_path / f"a.{target}")) as container:
            assert container.streams.audio[0].codec_context.codec.canonical_name == expected


def test_surround_sound_is_coded_anew_as_surround(tmp_path: Path) -> None:
    source = film_with_clap(tmp_path / "source.mkv", "ac3", layout="5.1")
    rewrite(source, tmp_path / "a.webm")
    with av.open(str(tmp_path / "a.webm")) as container:
        assert container.streams.audio[0].codec_context.layout.nb_channels == 6


def test_all_tracks_are_carried_over_with_their_language(tmp_path: Path) -> None:
    source = film_with_clap(tmp_path / "source.mkv", "aac", tracks=3)
    rewrite(source, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [track.language for track in container.streams.audio] == ["deu"] * 3
    assert burst_time(tmp_path / "a.mp4", track=2) == pytest.approx(1.22, abs=0.0015)


def test_real_sound_is_copied_unchanged_and_interleaved(tmp_path: Path, samples: Path) -> None:
    source = samples / "bigbuckbunny.mp4"
    with VideoReader(source) as reader:
        times = reader.timestamps()
        with VideoWriter(
            tmp_path / "a.mp4",
            width=160,
            height=90,
            frame_rate=reader.info.frame_rate,
            timestamps=times,
            audio_from=source,
        ) as writer:
            for clip in reader.clips(batch_size=16):
                small = clip.frames[:, :, ::8, ::8].contiguous()
                writer.write(type(clip)(small, clip.timestamps, clip.frame_rate))
    assert audio_data(tmp_path / "a.mp4") == audio_data(source)
    with av.open(str(tmp_path / "a.mp4")) as container:
        due = sorted((p.pos, float(p.dts * p.time_base), p.stream.type) for p in container.demux() if p.size)
    assert all(abs(a - b) < 1.1 for (_, a, _), (_, b, _) in pairwise(due))
    assert {kind for *_, kind in due[: len(due) // 3]} == {"audio", "video"}


def test_a_source_without_sound_is_fine(tmp_path: Path, samples: Path) -> None:
    write_video(tmp_path / "a.mp4", read_video(samples / "bikes.mp4", num_frames=3), audio_from=samples / "bikes.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.audio


def broken(tmp_path: Path, how: str) -> Path:
    """A video with readable pictures and unreadable audio."""
    if how == "header":
        source = film_with_clap(tmp_path / "source.mkv", "libopus")
        return replaced(source, source.read_bytes().replace(b"A_OPUS", b"A_OPUX"))
    if how == "first packets":
        source = film_with_clap(tmp_path / "source.mkv", "ac3", noise=True)
        data = source.read_bytes()
        for packet in audio_data(source)[:20]:
            data = data.replace(packet, b"\xff" * len(packet))
        return replaced(source, data)
    source = film_with_clap(tmp_path / "source.mkv", "aac", noise=True)
    data = source.read_bytes()
    for packet in audio_data(source)[10:30]:
        data = data.replace(packet, b"\xff" * len(packet))
    return replaced(source, data)


def replaced(path: Path, data: bytes) -> Path:
    assert data != path.read_bytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("how", ["header", "first packets", "packets"])
def test_broken_sound_does_not_cost_the_video(tmp_path: Path, target: str, how: str) -> None:
    source = broken(tmp_path, how)
    words = rewrite(source, tmp_path / f"a.{target}")
    assert len(read_video(tmp_path / f"a.{target}")) == 60
    if how == "header":
        assert any("audio stream 1 is left out" in word for word in words)
    if how == "packets" and target == "webm":  # only this one must be decoded
        assert re.search(r"audio stream 1 is damaged: \d+ packets are left out", words[-1])
        assert burst_time(tmp_path / "a.webm") == pytest.approx(1.22, abs=0.0015)
    assert all("\n" not in word for word in words)


def test_a_source_that_vanishes_costs_only_its_sound(tmp_path: Path) -> None:
    source = film_with_clap(tmp_path / "source.mp4")
    clip, words = read_video(source), list[str]()
    source.unlink()
    with VideoWriter(
        tmp_path / "a.mp4", width=64, height=48, frame_rate=clip.frame_rate, audio_from=source, warn=words.append
    ) as writer:
        writer.write(clip)
    assert len(words) == 1
    assert words[0].startswith(f"{source}: the audio is left out: ")
    assert len(read_video(tmp_path / "a.mp4")) == 60
