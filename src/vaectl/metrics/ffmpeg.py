"""FFmpeg's filters that compare two clips: find an FFmpeg that has one, and run it on frames in memory.

The filter runs in PyAV's own FFmpeg where that has it, otherwise in a program to which the frames are piped. Either way
FFmpeg gets 8-bit RGB, converts it to YUV 4:2:0 with BT.709 and limited range, and never reads a file. Knows no metrics.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, cast

from torch import Tensor

from vaectl.errors import VaectlError, shown

if TYPE_CHECKING:
    from av.filter.context import FilterContext

INSTALL = "run pip install imageio-ffmpeg (the extra vaectl[vmaf])"
FRAME_RATE = 25
"""Frames per second that filters see. The filter xpsnr weights motion in another way from 32 on; others ignore it."""
YUV = "YUV 4:2:0, 8 bits, BT.709, limited range"
SCALE = "out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_inp"
"""Options of the filter `scale` that make `YUV` of RGB, with each pixel of the chroma."""


@dataclass(frozen=True)
class FFmpeg:
    """An FFmpeg that has the filter in question."""

    origin: str
    """Where it comes from: "PyAV 19.0.2", "imageio-ffmpeg 0.8.1", or a path."""
    version: str
    program: str | None
    """The path of the program; None: PyAV's own FFmpeg."""

    def compare(self, name: str, arguments: str, real_TCHW: Tensor, generated_TCHW: Tensor) -> str:
        """Run the filter `name` with `arguments` on two clips, both (T, 3, H, W) uint8 RGB; return its report.

        The report is the JSON log of libvmaf; of other filters, the metadata of the frames in lines `key=value`. Raises
        VaectlError if FFmpeg fails or is killed.
        """
        if self.program is None:
            report = _in_process(name, arguments, real_TCHW, generated_TCHW)
        else:
            report = _piped(self.program, name, arguments, real_TCHW, generated_TCHW)
        if not report:
            raise VaectlError(f"{self.origin}: its filter {name} reported nothing", "put another ffmpeg on PATH")
        return report


@cache
def find(name: str) -> tuple[FFmpeg, ...]:
    """Return each FFmpeg that has the filter `name`: PyAV's, the `ffmpeg` on PATH, that of imageio-ffmpeg.

    Raises VaectlError, with the command that installs one, if there is none.
    """
    import av
    from av.filter import filters_available

    found = [FFmpeg(f"PyAV {av.__version__}", av.ffmpeg_version_info, None)] if name in filters_available else []
    programs = list(_programs())
    for origin, program in programs:
        if re.search(rf"^ *[\w.|]+ +{name} ", _output(program, "-filters"), re.MULTILINE):
            text = re.match(r"ffmpeg version (\S+)", _output(program, "-version"))
            found.append(FFmpeg(origin, text[1] if text else "unknown", program))
    if not found:
        tried = ", ".join([f"PyAV {av.__version__}", *(origin for origin, _ in programs)])
        remedy = f"put an ffmpeg with {name} on PATH" if "imageio-ffmpeg" in tried else INSTALL
        raise VaectlError(f"no FFmpeg here has the filter {name} (looked at {tried})", remedy)
    return tuple(found)


def _programs() -> Iterator[tuple[str, str]]:
    """Yield where a program `ffmpeg` comes from, and its path."""
    if on_path := shutil.which("ffmpeg"):
        yield on_path, on_path
    # RuntimeError: the package has no program for this platform.
    with suppress(ImportError, RuntimeError):
        import imageio_ffmpeg

        yield f"imageio-ffmpeg {imageio_ffmpeg.__version__}", imageio_ffmpeg.get_ffmpeg_exe()


def _output(program: str, option: str) -> str:
    """Return what the program prints; nothing if it does not run."""
    try:
        return subprocess.run(
            [program, "-hide_banner", option], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _rgb(frame_CHW: Tensor) -> Tensor:
    return frame_CHW.permute(1, 2, 0).contiguous()


def _in_process(name: str, arguments: str, real_TCHW: Tensor, generated_TCHW: Tensor) -> str:
    if name != "libvmaf":
        return "\n".join(_metadata(name, arguments, real_TCHW, generated_TCHW))
    with _log() as log:
        _metadata(name, f"{arguments}:log_path=/dev/fd/{log.fileno()}", real_TCHW, generated_TCHW)
        # libvmaf writes its log when the graph is freed, and the graph and its filters refer to each other.
        gc.collect()
        log.seek(0)
        return log.read().decode()


def _log() -> BinaryIO:
    """Return an empty file without a name, in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("libvmaf"), "w+b")
    return tempfile.TemporaryFile()


def _metadata(name: str, arguments: str, real_TCHW: Tensor, generated_TCHW: Tensor) -> list[str]:
    """Run the filter in PyAV; return the metadata of its frames, as lines `key=value`."""
    import av

    lines: list[str] = []
    try:
        graph = av.filter.Graph()
        compare, sink = graph.add(name, arguments or None), graph.add("buffersink")
        compare.link_to(sink)
        sources = []
        height, width = real_TCHW.shape[-2:]
        shape = f"video_size={width}x{height}:pix_fmt=rgb24:time_base=1/{FRAME_RATE}:frame_rate={FRAME_RATE}"
        for side in range(2):
            sources.append(graph.add("buffer", shape))
            yuv = graph.add("format", "yuv420p")
            graph.link_nodes(sources[-1], graph.add("scale", SCALE), yuv)
            yuv.link_to(compare, 0, side)
        graph.configure()
        for index, pair in enumerate(zip(generated_TCHW, real_TCHW, strict=True)):
            for source, pixels in zip(sources, pair, strict=True):
                frame = av.VideoFrame.from_ndarray(_rgb(pixels).numpy(), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, FRAME_RATE)
                source.push(frame)
            lines += _ready(sink)
        for source in sources:
            source.push(None)
        lines += _ready(sink)
    except av.FFmpegError as error:
        raise VaectlError(f"PyAV {av.__version__}: its filter {name} failed ({error.strerror})") from error
    return lines


def _ready(sink: FilterContext) -> Iterator[str]:
    """Yield the metadata of the frames that are ready, as lines `key=value`."""
    with suppress(BlockingIOError, EOFError):
        while True:
            yield from (f"{key}={value}" for key, value in sink.pull().metadata.items())


def _piped(program: str, name: str, arguments: str, real_TCHW: Tensor, generated_TCHW: Tensor) -> str:
    """Pipe the frames into the program by turns, so that one pipe is enough; the graph separates them."""
    height, width = real_TCHW.shape[-2:]
    report = ":log_path=/dev/stdout" if name == "libvmaf" else ",metadata=print:file=-"
    graph = (
        f"[0:v]scale={SCALE},format=yuv420p,split[even][odd];"
        f"[even]select='not(mod(n,2))',setpts=N/{FRAME_RATE}/TB[generated];"
        f"[odd]select='mod(n,2)',setpts=N/{FRAME_RATE}/TB[real];"
        f"[generated][real]{name}={arguments}{report}"
    )
    raw = f"-f rawvideo -pixel_format rgb24 -video_size {width}x{height} -framerate {FRAME_RATE}".split()
    command = [program, "-hide_banner", "-loglevel", "error", *raw, "-i", "pipe:0", "-lavfi", graph, "-f", "null", "-"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        ThreadPoolExecutor(1) as reader,
    ):
        pipe, process.stdin = cast(BinaryIO, process.stdin), None  # otherwise `communicate` would close it
        try:
            outputs = reader.submit(process.communicate)
            with suppress(BrokenPipeError):  # a program that stops says why
                for pair in zip(generated_TCHW, real_TCHW, strict=True):
                    for frame in pair:
                        pipe.write(_rgb(frame).numpy().data)
                pipe.close()
            out, err = outputs.result()
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                pipe.close()
    if process.returncode < 0:
        by = signal.Signals(-process.returncode).name
        raise VaectlError(f"{program}: was killed by {by} in the filter {name}", "put another ffmpeg on PATH")
    if process.returncode:
        # The first line has the cause. "[filter @ 0x5559c36c99c0]" says nothing more.
        cause = re.match(
            r"(?:\[.*?\] )?(.+)", err.decode(errors="replace").strip() or f"exit code {process.returncode}"
        )
        raise VaectlError(f"{program}: the filter {name} failed ({shown(cause[1] if cause else '', 200)})")
    return str(out.decode())
