"""Valid files of many kinds, made with an FFmpeg binary, and what that FFmpeg shows of them.

A kind is a codec in a container; a way is what was done to the file afterwards: cut, joined, streamed, tagged. FFmpeg
comes from the package imageio-ffmpeg; the product itself needs no binary.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

_X265 = "log-level=error:pools=1:frame-threads=1"
_B_FRAMES = "-bf 2 -g 12"


@dataclass(frozen=True)
class Codec:
    """How FFmpeg encodes it, and what it can be put into."""

    arguments: str
    extensions: str
    chroma: str = "left"
    """Where its chroma samples are: FFmpeg's name of the place."""
    seconds: float = 1.6


CODECS = {
    "h264": Codec(f"-c:v libx264 {_B_FRAMES} -pix_fmt yuv420p", "mp4 mov mkv avi ts m2ts flv h264 3gp"),
    "h264-open": Codec(
        "-c:v libx264 -x264-params open-gop=1:keyint=12:bframes=3:b-adapt=0 -pix_fmt yuv420p",
        "mp4 mov mkv ts m2ts h264",
    ),
    "h264-interlaced": Codec(
        f"-c:v libx264 {_B_FRAMES} -flags +ildct+ilme -x264-params tff=1 -pix_fmt yuv420p", "mp4 mkv ts h264"
    ),
    "h264-refresh": Codec(
        "-c:v libx264 -x264-params intra-refresh=1:keyint=10:bframes=0 -pix_fmt yuv420p", "mp4 mkv ts h264"
    ),
    "h264-422": Codec("-c:v libx264 -g 12 -pix_fmt yuv422p", "mp4 mkv ts"),
    "hevc": Codec(f"-c:v libx265 -x265-params {_X265}:keyint=12:bframes=3:open-gop=0", "mp4 mov mkv ts hevc"),
    "hevc-open": Codec(f"-c:v libx265 -x265-params {_X265}:keyint=12:bframes=4:open-gop=1", "mp4 mov mkv ts m2ts hevc"),
    "hevc-10": Codec(f"-c:v libx265 -x265-params {_X265}:keyint=12 -pix_fmt yuv420p10le", "mp4 mkv ts"),
    "vp8": Codec("-c:v libvpx -b:v 1M -auto-alt-ref 1 -lag-in-frames 16 -g 12", "webm mkv ivf"),
    "vp9": Codec("-c:v libvpx-vp9 -b:v 1M -auto-alt-ref 1 -lag-in-frames 16 -g 12", "webm mkv mp4 ivf"),
    "av1": Codec("-c:v libaom-av1 -cpu-used 8 -b:v 1M -g 12", "mp4 mkv webm ivf obu", seconds=0.8),
    "mpeg4": Codec(f"-c:v mpeg4 {_B_FRAMES} -q:v 3", "mp4 avi mkv mov 3gp m4v"),
    "mpeg2": Codec(f"-c:v mpeg2video {_B_FRAMES} -q:v 3", "mpg ts m2ts mkv mp4 m2v"),
    "mpeg2-interlaced": Codec(f"-c:v mpeg2video {_B_FRAMES} -q:v 3 -flags +ildct+ilme", "mpg ts"),
    "mpeg1": Codec(f"-c:v mpeg1video {_B_FRAMES} -q:v 3", "mpg ts mkv", "center"),
    "mjpeg": Codec("-c:v mjpeg -q:v 2 -pix_fmt yuvj420p", "avi mov mkv mp4", "center"),
    "mjpeg-422": Codec("-c:v mjpeg -q:v 2 -pix_fmt yuvj422p", "avi mov mkv", "center"),
    "ffv1": Codec("-c:v ffv1 -level 3 -slicecrc 1 -g 5", "mkv avi mov"),
    "ffv1-old": Codec("-c:v ffv1 -level 1 -pix_fmt yuv422p", "mkv avi"),
    "prores": Codec("-c:v prores_ks", "mov mkv"),
    "huffyuv": Codec("-c:v huffyuv -pix_fmt yuv422p", "avi mkv"),
    "utvideo": Codec("-c:v utvideo", "avi mkv"),
    "raw": Codec("-c:v rawvideo -pix_fmt yuv420p", "avi nut"),
    "raw-422": Codec("-c:v rawvideo -pix_fmt uyvy422", "mov avi"),
    "v210": Codec("-c:v v210", "mov"),
    "y4m": Codec("-pix_fmt yuv420p", "y4m", "center"),
    "gif": Codec("-c:v gif", "gif"),
    "apng": Codec("-c:v apng -plays 0", "apng"),
    "theora": Codec("-c:v libtheora -q:v 8 -g 12", "ogv mkv", "center"),
    "wmv2": Codec("-c:v wmv2 -q:v 3 -g 12", "wmv avi asf"),
    "msmpeg4": Codec("-c:v msmpeg4 -q:v 3 -g 12", "avi wmv"),
    "flv1": Codec("-c:v flv -q:v 3 -g 12", "flv"),
    "h263": Codec("-c:v h263 -q:v 3 -g 12 -s 176x144", "3gp", "center"),
    "dv": Codec("-c:v dvvideo -s 720x576 -pix_fmt yuv420p", "avi mov dv", "topleft", 0.4),
    "dv-411": Codec("-c:v dvvideo -s 720x480 -r 30000/1001 -pix_fmt yuv411p", "avi mov", "topleft", 0.4),
    "cinepak": Codec("-c:v cinepak", "mov avi"),
    "qtrle": Codec("-c:v qtrle", "mov"),
    "png": Codec("-c:v png", "mov mkv avi"),
    "jpeg2000": Codec("-c:v jpeg2000 -pix_fmt yuv422p", "mov mkv"),
    "cineform": Codec("-c:v cfhd -s 128x96", "mov mkv"),
    "dirac": Codec("-c:v vc2 -pix_fmt yuv422p", "mkv mov"),
    "snow": Codec("-c:v snow", "avi mkv"),
    "magicyuv": Codec("-c:v magicyuv", "avi mkv"),
    "speedhq": Codec("-c:v speedhq -pix_fmt yuv422p -s 128x96", "nut", "center"),
}
_FORMATS = {
    "m2ts": "-f mpegts -mpegts_m2ts_mode 1",
    "obu": "-f obu",
    "m4v": "-f m4v",
    "m2v": "-f mpeg2video",
    "asf": "-f asf",
}


def ffmpeg(*arguments: object) -> bytes:
    """What FFmpeg writes to its standard output. Raises RuntimeError with what it says where it fails."""
    command = [_binary(), "-nostdin", "-hide_banner", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    return done.stdout


@cache
def _binary() -> str:
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def whole(codec: str, extension: str, folder: Path) -> Path:
    """A file of moving shapes, 96x64 at 25 Hz unless the codec wants otherwise."""
    how = CODECS[codec]
    target = folder / f"{codec}.{extension}"
    pictures = f"testsrc2=s=96x64:r=25:d={how.seconds}"
    ffmpeg("-f", "lavfi", "-i", pictures, *how.arguments.split(), *_FORMATS.get(extension, "").split(), target)
    return target


# What is done to it


def cut(source: Path, target: Path) -> None:
    """From between two keyframes on: an edit list where the container has them."""
    start = CODECS[source.stem].seconds * 0.45
    ffmpeg("-ss", start, "-i", source, "-c", "copy", *_format(target), target)


def concatenated(source: Path, target: Path) -> None:
    """Twice in a row, by FFmpeg."""
    listed = target.with_name("list.txt")
    listed.write_text(f"file '{source}'\nfile '{source}'\n")
    ffmpeg("-f", "concat", "-safe", "0", "-i", listed, "-c", "copy", *_format(target), target)


def joined(source: Path, target: Path) -> None:
    """Twice in a row, byte by byte."""
    target.write_bytes(2 * source.read_bytes())


def begun_late(source: Path, target: Path) -> None:
    """A transport stream from a third of its packets on."""
    data, stride = source.read_bytes(), _stride(source)
    target.write_bytes(data[len(data) // stride // 3 * stride :])


def joined_to_late(source: Path, target: Path) -> None:
    """A transport stream, and once more from a frame between two keyframes on."""
    data, stride = source.read_bytes(), _stride(source)
    target.write_bytes(data + data[_frame(source, 5) // stride * stride :])


def with_sound(source: Path, target: Path) -> None:
    ffmpeg(
        *("-i", source, "-f", "lavfi", "-i", "sine=d=2", "-map", "0:v", "-map", "1:a"),
        *("-c:v", "copy", "-shortest", *_format(target), target),
    )


def streamed(source: Path, target: Path) -> None:
    """Without sizes, as one writes to a pipe; in fragments."""
    if target.suffix in (".mkv", ".webm"):
        target.write_bytes(
            ffmpeg("-i", source, "-c", "copy", "-f", {".mkv": "matroska"}.get(target.suffix, "webm"), "-")
        )
    else:
        ffmpeg("-i", source, "-c", "copy", "-movflags", "frag_keyframe+empty_moov", target)


def turned(source: Path, target: Path) -> None:
    ffmpeg("-display_rotation", "90", "-i", source, "-c", "copy", target)


def tagged(source: Path, target: Path) -> None:
    """With a title that is not UTF-8, and colour tags."""
    ffmpeg("-i", source, "-c", "copy", "-metadata", "title=ABCDEFGH", *_format(target), target)
    data = target.read_bytes()
    assert b"ABCDEFGH" in data
    target.write_bytes(data.replace(b"ABCDEFGH", b"caf\xe9 \xff\xfe "))


_ISO, _MATROSKA, _STREAMS = ("mp4", "mov", "3gp"), ("mkv", "webm"), ("ts", "m2ts")
_FILES = (*_ISO, *_MATROSKA, "avi", "flv", "wmv")
WAYS: dict[str, tuple[Callable[[Path, Path], None] | None, Sequence[str]]] = {
    "whole": (None, tuple({e for codec in CODECS.values() for e in codec.extensions.split()})),
    "cut": (cut, (*_FILES, *_STREAMS, "mpg")),
    "concatenated": (concatenated, (*_FILES, *_STREAMS, "mpg")),
    "joined": (joined, (*_STREAMS, "mpg", "h264", "hevc", "m4v", "m2v", "obu")),
    "begun late": (begun_late, _STREAMS),
    "joined to late": (joined_to_late, _STREAMS),
    "with sound": (with_sound, ("mp4", "mov", *_MATROSKA, "avi", "flv", "wmv", *_STREAMS, "mpg")),
    "streamed": (streamed, ("mp4", "mov", *_MATROSKA)),
    "turned": (turned, ("mp4", "mov")),
    "tagged": (tagged, (*_MATROSKA, "mp4", "mov", "avi")),
}
CASES = [
    (codec, extension, way)
    for codec, how in CODECS.items()
    for extension in how.extensions.split()
    for way, (_, extensions) in WAYS.items()
    if extension in extensions
]


def make(codec: str, extension: str, way: str, folder: Path) -> Path:
    """The file of that case."""
    source = whole(codec, extension, folder)
    change, _ = WAYS[way]
    if change is None:
        return source
    target = folder / f"{way.replace(' ', '-')}.{extension}"
    change(source, target)
    return target


def shown_by_ffmpeg(path: Path, chroma: str) -> tuple[NDArray[np.uint8], list[float]]:
    """The frames (T, 3, H, W), RGB, not turned, and their times in seconds.

    Chroma is taken to be where the codec has it, in interlaced video for each field.
    """
    accurate = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
    filters = f"scale=in_chroma_loc={chroma}:interl=-1:{accurate},format=gbrp,showinfo"
    command = [_binary(), "-nostdin", "-hide_banner", "-noautorotate", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-vf", filters, "-f", "rawvideo", "-pix_fmt", "gbrp", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    said = done.stderr.decode(errors="replace")
    times = [float(time) for time in re.findall(r"pts_time:\s*([-\d.e]+)", said)]
    (width, height) = map(int, re.findall(r"rawvideo.*?, gbrp.*?, (\d+)x(\d+)", said)[0])
    planes = np.frombuffer(done.stdout, np.uint8).reshape(-1, 3, height, width)
    return planes[:, [2, 0, 1]], times


def expected(path: Path, codec: str, way: str) -> tuple[NDArray[np.uint8], list[float]]:
    """What is to be read from a file of `make`: what FFmpeg shows, turned; of a seam both sides by themselves."""
    chroma = CODECS[codec].chroma
    if way == "joined to late":
        # FFmpeg's command predicts from the pictures before the seam, which are of another recording.
        source = path.with_name(f"{codec}{path.suffix}")
        rest = path.with_name(f"rest{path.suffix}")
        rest.write_bytes(path.read_bytes()[source.stat().st_size :])
        parts = [shown_by_ffmpeg(part, chroma)[0] for part in (source, rest)]
        return np.concatenate(parts), []
    frames, times = shown_by_ffmpeg(path, chroma)
    if path.suffix == ".avi" and _B_FRAMES in CODECS[codec].arguments:
        times = []  # AVI stores none, and FFmpeg's guesses are not right
    return (np.rot90(frames, 1, (2, 3)) if way == "turned" else frames), times


def differences(clip: Any, frames: NDArray[np.uint8], times: list[float]) -> list[str]:
    """In what a clip differs from what is expected; nothing where rounding is all."""
    ours = clip.frames.numpy()
    if ours.shape != frames.shape:
        return [f"{ours.shape} instead of {frames.shape}"]
    found = []
    errors = np.abs(ours.astype(int) - frames.astype(int)).mean((1, 2, 3))
    if errors.max() > 0.6:
        found.append(f"pictures differ by {errors.max():.2f} in frame {errors.argmax()}")
    shown = [float(time - clip.timestamps[0]) for time in clip.timestamps]
    if times and max(abs(a - (b - times[0])) for a, b in zip(shown, times, strict=True)) > 0.0011:
        found.append(f"times differ: {shown[:4]} instead of {[time - times[0] for time in times[:4]]}")
    return found


def _format(target: Path) -> list[str]:
    return _FORMATS.get(target.suffix[1:], "").split()


def _stride(path: Path) -> int:
    return 192 if path.suffix == ".m2ts" else 188


def _frame(path: Path, number: int) -> int:
    """Where that packet of the video begins."""
    with av.open(str(path)) as container:
        return [packet.pos or 0 for packet in container.demux(video=0) if packet.size][number]
