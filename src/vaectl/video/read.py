"""Read the frames of a video, from the start or from any frame, as a stream of RGB batches.

Frames come in presentation order, each exactly once. A frame that cannot be read is an error, never a gap. Does not
know what the frames are for.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from fractions import Fraction
from functools import cached_property
from itertools import chain
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import get_args

import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vaectl.errors import UsageError, VaectlError, shown
from vaectl.urls import check_local
from vaectl.video.clip import Clip, VideoInfo
from vaectl.video.color import RgbConversion
from vaectl.video.container import explain_memory_errors
from vaectl.video.decode import DamageError, decode
from vaectl.video.file_cache import identity_of
from vaectl.video.index import FrameIndex, index_of
from vaectl.video.paused import Pass, PausedPass
from vaectl.video.probe import open_source
from vaectl.video.shown import Show, upright_rgb
from vaectl.video.tiff import read_tiff
from vaectl.video.unsupported import is_missing_feature
from vaectl.video.wanted import Wanted

_BATCH_BYTES = 2**28
"""Most bytes of full-size frames in a batch."""
_MAX_CONVERSIONS = 8
"""Most frames that are converted at the same time."""
_FRAMES_PER_OPENING = 8
"""Frames that are decoded in the time that it takes to open a file and to seek."""


def frames_at_once(info: VideoInfo, most: int) -> int:
    """Return the batch size to read frames that are then made smaller: `most`, or less for huge frames."""
    return max(1, min(most, _BATCH_BYTES // (3 * info.width * info.height)))


def read_video(
    path: Path | str,
    start: int = 0,
    num_frames: int | None = None,
    sample_rate: int = 1,
    *,
    rgb_conversion: RgbConversion = "accurate",
) -> Clip:
    """Read the frames start, start + sample_rate, ... of the video at `path`, `num_frames` of them or all, as one clip.

    A shorter video gives all it has. `rgb_conversion` is that of `VideoReader`. Raises as `VideoReader` and
    `VideoReader.clips` do, and UsageError for numbers that are too small or not whole.
    """
    most = [] if num_frames is None else [("num_frames", num_frames, 1)]
    for name, value, least in (("start", start, 0), *most, ("sample_rate", sample_rate, 1)):
        if not isinstance(value, Integral) or value < least:
            raise UsageError(f"`{name}` must be a whole number of at least {least}, not {shown(repr(value))}")
    with VideoReader(path, rgb_conversion=rgb_conversion) as reader:
        return reader.read(start, num_frames, sample_rate)


class VideoReader:
    """A video or still image, for any number of passes over its frames, also at the same time.

    A pass that has given all its frames leaves the file open until `close`, so that a pass which begins a little later
    in the video continues it. Each concurrent pass opens the file.

    Args:
        threads: decode threads, 0 for all cores.
        rgb_conversion: `accurate`: as the tags of the file say, with interpolated chroma, as players show it.
            `swscale`: every pixel is that of PyAV's `frame.to_ndarray(format="rgb24")`; then the frame is cropped and
            rotated as the container says. No effect on animated PNG and WebP, and on TIFF in YCbCr, in CMYK or with
            JPEG compression: their frames are not those of PyAV.

    Raises UsageError if `path` is not a readable file, VaectlError if it contains no video that can be decoded.
    """

    info: VideoInfo

    def __init__(self, path: Path | str, *, threads: int = 0, rgb_conversion: RgbConversion = "accurate") -> None:
        check_local(path)
        if rgb_conversion not in get_args(RgbConversion):
            raise UsageError(f"`rgb_conversion` must be accurate or swscale, not {shown(repr(rgb_conversion))}")
        self._path, self._threads = Path(path), threads
        self._paused = PausedPass()
        self.info, self._layout, self._pictures = open_source(self._path, rgb_conversion)
        # Frames of a sequence are converted already, those of an animation are not decoded by PyAV.
        self._rgb_conversion: RgbConversion = rgb_conversion if self._pictures is None else "accurate"

    def __repr__(self) -> str:
        info = self.info
        count = "" if info.num_frames_from_header is None else f", {info.num_frames_from_header} frames"
        size = f"{info.width}x{info.height}"
        return f"VideoReader({str(self._path)!r}, {size}, {float(info.frame_rate):.5g} fps{count}, {info.codec})"

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. A later pass opens it again."""
        self._paused.close()

    def timestamps(self, start: int = 0, num_frames: int | None = None, sample_rate: int = 1) -> tuple[Fraction, ...]:
        """Return the presentation time in seconds of each frame that `clips` yields. Raises like `clips`."""
        return tuple(self._index.times[number] for number in self._wanted(start, num_frames, sample_rate))

    def is_whole(self, timestamps: Sequence[Fraction]) -> bool:
        """Whether these are the times of all frames of the video, and none is damaged."""
        return not self._index.damage and tuple(timestamps) == self._index.times

    def read(self, start: int = 0, num_frames: int | None = None, sample_rate: int = 1) -> Clip:
        """Return the frames of `clips` as one clip."""
        (clip,) = self.clips(start, num_frames, sample_rate, batch_size=max(1, len(self._index.times)))
        return clip

    def clips(
        self, start: int = 0, num_frames: int | None = None, sample_rate: int = 1, batch_size: int = 8
    ) -> Iterator[Clip]:
        """Yield the frames start, start + sample_rate, ..., `num_frames` of them or all, in batches.

        Args:
            start: number of the first frame, from 0.
            num_frames: the most frames to read. A shorter video yields all it has.
            sample_rate: distance between the frames to read.
            batch_size: frames in each clip but the last. Memory grows with it, not with the length of the video.

        Yields clips with contiguous frames (T, 3, H, W) uint8 RGB that share no memory.

        Raises UsageError if the video ends before `start`. Raises VaectlError if a requested frame cannot be read: at
        once for a truncated file, later for damage that shows only in decoding. Raises ValueError for numbers below 1
        (start: below 0).
        """
        if batch_size < 1:
            raise ValueError(f"{batch_size=} is too small")
        return self._clips(self._wanted(start, num_frames, sample_rate), batch_size)

    def _wanted(self, start: int, num_frames: int | None, sample_rate: int) -> range:
        """Numbers of the frames to read."""
        if start < 0 or sample_rate < 1 or (num_frames is not None and num_frames < 1):
            raise ValueError(f"{start=}, {num_frames=} or {sample_rate=} is too small")
        index = self._index
        wanted = range(start, len(index.times), sample_rate)[:num_frames]
        if index.damage and (num_frames is None or len(wanted) < num_frames):
            raise self._damaged(len(index.times), index.damage)
        if not wanted:
            raise UsageError(
                f"{self._path} has {len(index.times)} frames, so none can be read from frame {start} on",
                "begin earlier",
            )
        return wanted

    @cached_property
    def _index(self) -> FrameIndex:
        if self._pictures is not None:
            return FrameIndex(self._pictures.times, (), (), self._pictures.damage)
        return index_of(self.info)

    def _clips(self, wanted: range, batch_size: int) -> Iterator[Clip]:
        info, times = self.info, self._index.times
        count = min(len(wanted), self._threads or _cores(), _MAX_CONVERSIONS)
        threads = self._threads if count == 1 else 1
        shows = [upright_rgb(info, self._layout, self._rgb_conversion, threads) for _ in range(count)]
        with explain_memory_errors(self._path, info.width, info.height), closing(self._frames(wanted)) as frames:
            for first in range(0, len(wanted), batch_size):
                numbers = wanted[first : first + batch_size]
                # NumPy asks the system for huge pages, which PyTorch does not: most of the time to fetch them is saved.
                batch = np.empty((len(numbers), 3, info.height, info.width), np.uint8)
                _fill(batch, frames, shows)
                yield Clip(torch.from_numpy(batch), tuple(times[n] for n in numbers), info.frame_rate / wanted.step)

    def _frames(self, wanted: range) -> Generator[VideoFrame]:
        """Yield the wanted frames as stored. Each is compared with the index."""
        if self.info.is_image and (picture := read_tiff(self._path)) is not None:
            yield picture
            return
        if self._pictures is not None:
            try:
                yield from self._pictures.frames(wanted)
            except DamageError as damage:
                raise self._damaged(damage.packet, f"frame {damage.packet} is damaged", f" ({damage})") from None
            return
        pts, readable, detail = self._index.pts, 0, ""
        with ExitStack() as opened:
            current = self._pass_from(wanted)
            opened.enter_context(closing(current.frames))
            try:
                for readable, frame in current.frames:
                    if readable >= len(self._index.times) or (pts and frame.pts != pts[readable]):
                        break
                    if readable == wanted[-1] < len(self._index.times) - 1:
                        opened.pop_all()
                        self._paused.put(current._replace(number=readable + 1), threads=self._threads)
                    if readable in wanted:
                        yield frame
                    if readable == wanted[-1]:
                        return
                    readable += 1
            except DamageError as damage:
                detail = f" ({damage})"
        if is_missing_feature(detail):
            raise VaectlError(
                f"{self._path}: FFmpeg does not support its frame {readable}{detail}",
                "convert it with another program, or read only the frames before",
            )
        raise self._damaged(readable, f"frame {readable} is damaged", detail)

    def _pass_from(self, numbers: range) -> Pass:
        """Return a pass over the frames `numbers`. Continue the last pass if that is nearer than a keyframe."""
        file, start = identity_of(self._path), numbers[0]
        keyframe = next(_keyframes_before(self._index, start), None)
        first = 0 if keyframe is None else bisect_left(self._index.pts, keyframe)
        if paused := self._paused.take(file, first - _FRAMES_PER_OPENING, start):
            paused.wanted.numbers = numbers
            return paused
        wanted = Wanted(numbers, self._index.pts if self._index.keyframes else ())
        return Pass(file, 0, _decode_from(self._path, self._index, wanted, self._threads), wanted)

    def _damaged(self, num_frames: int, reason: str, detail: str = "") -> VaectlError:
        return VaectlError(
            f"{self._path}: {reason}, and only the first {num_frames} of its frames can be read{detail}",
            "get the file again, or read no more than those",
        )


def _fill(batch: NDArray[np.uint8], frames: Iterator[VideoFrame], shows: Sequence[Show]) -> None:
    """Convert the next frames into `batch`, in a thread for each of `shows`, while the calling thread decodes."""

    def fill(number: int, frame: VideoFrame) -> None:
        for channel, plane in zip(batch[number], shows[number % len(shows)](frame), strict=True):
            channel[...] = plane

    if len(shows) == 1:
        for number in range(len(batch)):
            fill(number, next(frames))
        return
    running: deque[Future[None]] = deque()
    with ThreadPoolExecutor(len(shows)) as pool:
        for number in range(len(batch)):
            frame = next(frames)
            if len(running) == len(shows):
                running.popleft().result()
            try:
                running.append(pool.submit(fill, number, frame))
            except RuntimeError as error:  # the system cannot start a thread
                raise MemoryError(str(error)) from None
        for each in running:
            each.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decode_from(path: Path, index: FrameIndex, wanted: Wanted, threads: int = 0) -> Generator[tuple[int, VideoFrame]]:
    """Yield the same numbered frames as a full pass, from the first wanted one or earlier. Raises DamageError.

    Frames that are not wanted may be left out.
    """
    number, start = 0, wanted.numbers[0]
    from_first = [None] if index.keyframes else []
    for keyframe in (*_keyframes_before(index, start), *from_first):
        with closing(decode(path, threads, keyframe, leave_out=wanted.leave_out)) as pictures:
            frames: Iterator[VideoFrame] = (picture.frame for picture in pictures)
            if keyframe is not None:
                first = _first_frame(frames)
                if first is None or first.pts is None or first.pts > index.pts[start]:
                    continue
                number = bisect_left(index.pts, first.pts)
                frames = chain([first], frames)
            try:
                for frame in frames:
                    while number in wanted.left_out:
                        number += 1
                    if number >= len(index.pts) or frame.pts != index.pts[number]:
                        break
                    yield number, frame
                    number += 1
                if number > wanted.numbers[-1]:
                    return
            except DamageError:
                pass
            break  # frames are damaged, or those before the keyframe are missing: a full pass tells
    with closing(decode(path, threads)) as pictures:
        yield from ((n, picture.frame) for n, picture in enumerate(pictures) if n >= number)


def _keyframes_before(index: FrameIndex, start: int) -> Iterator[int]:
    """Yield the ticks of keyframes to try: the nearest, then ever earlier ones, without the first of the video."""
    if index.pts:
        place, step = bisect_right(index.keyframes, index.pts[start]) - 1, 1
        while place > 0:
            yield index.keyframes[place]
            place, step = place - step, step * 2


def _first_frame(frames: Iterator[VideoFrame]) -> VideoFrame | None:
    """Return the frame of the first packet after seeking; None if it is not a keyframe.

    Seeking may land elsewhere, the keyframe flag may be wrong, or the decoder may drop frames until the picture has
    recovered: the first frame shows all of these. Frames shown before the keyframe but decoded after it are skipped,
    because they may refer to frames before it (open GOP).
    """
    try:
        first = next((frame for frame in frames if frame.opaque == 0), None)
    except DamageError:
        return None
    return first if first is not None and first.key_frame else None
