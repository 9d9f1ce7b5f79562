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
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from threading import Event
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from torch import Tensor

from vaectl.errors import VaectlError, shown
from vaectl.versions import versions

if TYPE_CHECKING:
    from av.filter.context import FilterContext

INSTALL = "run pip install imageio-ffmpeg (the extra vaectl[vmaf])"
ANOTHER = "put another ffmpeg on PATH"
OVERRIDE = "IMAGEIO_FFMPEG_EXE"
"""The environment variable that names the program of imageio-ffmpeg."""
PROBE_SECONDS = 15.0
"""A program that does not answer a question, or measure a known pair, for so long is not used."""
STALLED_SECONDS = 600.0
"""A program that takes no frame for so long hangs."""
MOST_BYTES = 2**26
"""More output is no report. That of libvmaf has about 1 kB for each frame."""
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

    def compare(
        self, name: str, arguments: str, real_TCHW: Tensor, generated_TCHW: Tensor, seconds: float = STALLED_SECONDS
    ) -> str:
        """Run the filter `name` with `arguments` on two clips, both (T, 3, H, W) uint8 RGB; return its report.

        The report is the JSON log of libvmaf; of other filters, the metadata of the frames in lines `key=value`. Raises
        VaectlError if FFmpeg fails or is killed, or if a program takes no frame for `seconds`.
        """
        if self.program is None:
            report = _in_process(name, arguments, real_TCHW, generated_TCHW)
        else:
            report = _piped(self.program, name, arguments, real_TCHW, generated_TCHW, seconds)
        if not report:
            raise VaectlError(f"{self.origin}: its filter {name} reported nothing", ANOTHER)
        return report


@dataclass(frozen=True)
class Program:
    """A program `ffmpeg`, and what it says about itself."""

    origin: str
    path: str
    filters: str
    """What it prints for `-filters`."""
    version: str
    trouble: str = ""
    """Why it is not used, if it does not answer."""


def find(name: str) -> Iterator[FFmpeg]:
    """Yield each FFmpeg that has the filter `name`: PyAV's, the `ffmpeg` on PATH, that of imageio-ffmpeg.

    Runs no program before PyAV's is taken. Raises VaectlError, with the command that installs one, if there is none.
    """
    import av
    from av.filter import filters_available

    pyav, has_one = f"PyAV {av.__version__}", name in filters_available
    if has_one:
        yield FFmpeg(pyav, av.ffmpeg_version_info, None)
    for each in programs():
        if re.search(rf"^ *[\w.|]+ +{name} ", each.filters, re.MULTILINE):
            has_one = True
            yield FFmpeg(each.origin, each.version, each.path)
    if not has_one:
        tried = ", ".join([pyav, *(each.origin + (f" {each.trouble}" if each.trouble else "") for each in programs())])
        remedy = f"put an ffmpeg with {name} on PATH" if "imageio-ffmpeg" in tried else INSTALL
        if OVERRIDE in tried:
            remedy = f"unset {OVERRIDE}"
        raise VaectlError(f"no FFmpeg here has the filter {name} (looked at {tried})", remedy)


@cache
def programs() -> tuple[Program, ...]:
    """Return the programs `ffmpeg`, each asked once: the one on PATH, and that of imageio-ffmpeg."""
    found = []
    for origin, path in _paths():
        try:
            filters, text = (
                _run([path, "-hide_banner", option], PROBE_SECONDS).out for option in ("-filters", "-version")
            )
        except VaectlError as error:
            found.append(Program(origin, path, "", "", error.problem))
        else:
            version_match = re.match(r"ffmpeg version (\S+)", text)
            found.append(Program(origin, path, filters, shown(version_match[1], 60) if version_match else "unknown"))
    return tuple(found)


def _paths() -> Iterator[tuple[str, str]]:
    """Yield where a program `ffmpeg` comes from, and its path."""
    if on_path := shutil.which("ffmpeg"):
        yield on_path, on_path
    # RuntimeError: the package has no program for this platform.
    with suppress(ImportError, RuntimeError):
        import imageio_ffmpeg

        path = imageio_ffmpeg.get_ffmpeg_exe()
        package = f"imageio-ffmpeg {versions('imageio-ffmpeg')['imageio-ffmpeg']}"
        yield f"{OVERRIDE}={path}" if os.environ.get(OVERRIDE) else package, path


class Result(NamedTuple):
    """What a program did."""

    code: int
    out: str
    err: str


def _run(command: list[str], seconds: float, frames: Iterable[memoryview] = ()) -> Result:
    """Run a program on `frames`, piped into it.

    Raises VaectlError, without its name, if it cannot be run, prints endlessly, or neither takes a frame nor ends for
    `seconds`.
    """
    try:
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # with the processes that it starts
        )
    except (OSError, ValueError) as error:
        raise VaectlError(f"cannot be run ({getattr(error, 'strerror', None) or error})") from None
    with started as process, ThreadPoolExecutor(3) as threads:
        pipe, out, err = (cast(BinaryIO, each) for each in (process.stdin, process.stdout, process.stderr))
        ended, active = Event(), [time.monotonic()]

        def read(stream: BinaryIO) -> bytes:
            content = stream.read(MOST_BYTES)
            if len(content) == MOST_BYTES:
                _kill(process)
            return content

        def watch() -> bool:
            while not ended.wait(min(1.0, seconds)):
                if time.monotonic() - active[0] > seconds:
                    _kill(process)
                    return True
            return False

        texts, hangs = [threads.submit(read, stream) for stream in (out, err)], threads.submit(watch)
        try:
            with suppress(BrokenPipeError):  # a program that stops says why
                for frame in frames:
                    pipe.write(frame)
                    active[0] = time.monotonic()
                pipe.close()
            outputs = [text.result() for text in texts]
            code = process.wait()
        except BaseException:
            _kill(process)
            raise
        finally:
            ended.set()
            with suppress(BrokenPipeError):
                pipe.close()
    if hangs.result():
        raise VaectlError(f"does not answer for {seconds:g} s")
    if any(len(output) == MOST_BYTES for output in outputs):
        raise VaectlError("prints endlessly")
    return Result(code, *(output.decode(errors="replace") for output in outputs))


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


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


def _piped(program: str, name: str, arguments: str, real_TCHW: Tensor, generated_TCHW: Tensor, seconds: float) -> str:
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
    frames = (_rgb(frame).numpy().data for pair in zip(generated_TCHW, real_TCHW, strict=True) for frame in pair)
    try:
        code, out, err = _run(command, seconds, frames)
    except VaectlError as error:
        raise VaectlError(f"{program}: {error.problem} in the filter {name}", ANOTHER) from None
    if code < 0:
        raise VaectlError(f"{program}: was killed by {_signal(-code)} in the filter {name}", ANOTHER)
    if code:
        # The first line has the cause. "[filter @ 0x5559c36c99c0]" says nothing more.
        cause = re.match(r"(?:\[.*?\] )?(.+)", err.strip() or f"exit code {code}")
        raise VaectlError(f"{program}: the filter {name} failed ({shown(cause[1] if cause else '', 200)})")
    return out


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"
