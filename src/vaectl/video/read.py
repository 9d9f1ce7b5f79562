"""Reading the frames of a video, in order or from anywhere, as a stream of batches of RGB.

Every frame comes in presentation order, exactly once, wherever reading begins; what cannot be read is an error, never
a gap. Knows nothing of what the frames are for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vaectl.errors import UsageError, VaectlError
from vaectl.video.clip import Clip, VideoInfo
from vaectl.video.color import RgbConverter
from vaectl.video.container import explain_memory_errors
from vaectl.video.decode import DamageError, decode
from vaectl.video.index import FrameIndex, build_index
from vaectl.video.probe import probe_with_layout
from vaectl.video.stored import StoredFrames
from vaectl.video.tiff import read_tiff

_BATCH_BYTES = 2**28
"""Bytes of frames in the size of the file that are worth to be held together."""


def frames_at_once(info: VideoInfo, most: int) -> int:
    """How many frames to read at a time when they become smaller at once: fewer than `most` where they are huge."""
    return max(1, min(most, _BATCH_BYTES // (3 * info.width * info.height)))


def read_video(path: Path | str, start: int = 0, num_frames: int | None = None, sample_rate: int = 1) -> Clip:
    """The frames start, start + sample_rate, ... of the video at `path`, `num_frames` of them or all, as one clip.

    Raises as `VideoReader` and `VideoReader.clips` do.
    """
    with VideoReader(path) as reader:
        return reader.read(start, num_frames, sample_rate)


class VideoReader:
    """A video or still image, open for any number of passes over its frames, also several at once.

    Each pass opens the file for itself, and decodes with `threads` threads, 0 for one on each core; between passes none
    is open.
    Raises UsageError where `path` is no file that can be read, VaectlError where it holds no video that can be decoded.
    """

    info: VideoInfo

    def __init__(self, path: Path | str, *, threads: int = 0) -> None:
        self._path, self._threads = Path(path), threads
        self.info, self._layout = probe_with_layout(self._path)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open; a pass that is under way closes its file when its iterator is closed or exhausted."""

    def timestamps(self, start: int = 0, num_frames: int | None = None, sample_rate: int = 1) -> tuple[Fraction, ...]:
        """Presentation time in seconds of each frame that `clips` gives for these; raises as it does."""
        return tuple(self._index.times[number] for number in self._wanted(start, num_frames, sample_rate))

    def is_whole(self, timestamps: Sequence[Fraction]) -> bool:
        """Whether these are the times of all frames that the video has, none of them damaged."""
        return not self._index.damage and tuple(timestamps) == self._index.times

    def read(self, start: int = 0, num_frames: int | None = None, sample_rate: int = 1) -> Clip:
        """The frames that `clips` would give, as one clip."""
        (clip,) = self.clips(start, num_frames, sample_rate, batch_size=max(1, len(self._index.times)))
        return clip

    def clips(
        self, start: int = 0, num_frames: int | None = None, sample_rate: int = 1, batch_size: int = 8
    ) -> Iterator[Clip]:
        """Frames start, start + sample_rate, ..., `num_frames` of them or all there are, in batches.

        Args:
            start: number of the first frame, from 0.
            num_frames: how many frames to give at most; a shorter video gives what it has.
            sample_rate: distance from one given frame to the next.
            batch_size: frames of each clip but the last. Memory grows with this, not with the length.

        Yields clips with frames (T, 3, H, W) uint8 RGB, contiguous, each in memory of its own.

        Raises UsageError where the video ends before `start`, and VaectlError where a frame asked for cannot be read:
        at once if the file is cut short, in the middle if damage shows only in decoding. ValueError for numbers below
        1 (start: below 0).
        """
        if batch_size < 1:
            raise ValueError(f"{batch_size=} is too small")
        return self._clips(self._wanted(start, num_frames, sample_rate), batch_size)

    def _wanted(self, start: int, num_frames: int | None, sample_rate: int) -> range:
        """The numbers of the frames to read."""
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
        return build_index(self.info)

    def _clips(self, wanted: range, batch_size: int) -> Iterator[Clip]:
        info, orientation, times = self.info, self._layout.orientation, self._index.times
        stored = (info.height, info.width) if orientation.transpose else (info.width, info.height)
        prepare = StoredFrames(self._layout.crop, is_sited=self._layout.is_sited)
        convert = RgbConverter(still=info.is_image, codec=info.codec)

        def show(frame: VideoFrame, picture: NDArray[np.uint8]) -> None:
            try:
                planes = convert(prepare(frame), *stored)
            except VaectlError as error:
                raise VaectlError(f"{self._path}: {error.problem}", error.remedy) from None
            for channel, plane in zip(picture, planes, strict=True):
                channel[...] = orientation.apply(plane)

        with explain_memory_errors(self._path, info.width, info.height), closing(self._frames(wanted)) as frames:
            for first in range(0, len(wanted), batch_size):
                numbers = wanted[first : first + batch_size]
                batch = torch.empty((len(numbers), 3, info.height, info.width), dtype=torch.uint8)
                for picture in batch.numpy():
                    show(next(frames), picture)
                yield Clip(batch, tuple(times[n] for n in numbers), info.frame_rate / wanted.step)

    def _frames(self, wanted: range) -> Generator[VideoFrame]:
        """The wanted frames as they are stored, each checked to be the one that the index names."""
        if self.info.is_image and (picture := read_tiff(self._path)) is not None:
            yield picture
            return
        pts, readable, detail = self._index.pts, 0, ""
        with closing(_decode_from(self._path, self._index, wanted[0], self._threads)) as frames:
            try:
                for readable, frame in frames:
                    if readable >= len(self._index.times) or (pts and frame.pts != pts[readable]):
                        break
                    if readable in wanted:
                        yield frame
                    if readable == wanted[-1]:
                        return
                    readable += 1
            except DamageError as damage:
                detail = f" ({damage})"
        raise self._damaged(readable, f"frame {readable} is damaged", detail)

    def _damaged(self, num_frames: int, reason: str, detail: str = "") -> VaectlError:
        return VaectlError(
            f"{self._path}: {reason}, and only the first {num_frames} of its frames can be read{detail}",
            "get the file again, or read no more than those",
        )


def _decode_from(path: Path, index: FrameIndex, start: int, threads: int = 0) -> Generator[tuple[int, VideoFrame]]:
    """Numbered frames, from one at or before `start` on, that equal those of a full pass. Raises DamageError."""
    number = 0
    for keyframe in _keyframes_before(index, start):
        with closing(decode(path, threads, keyframe)) as pictures:
            frames = (picture.frame for picture in pictures)
            first = _first_frame(frames)
            if first is None or first.pts is None or first.pts > index.pts[start]:
                continue
            number = bisect_left(index.pts, first.pts)
            try:
                for frame in chain([first], frames):
                    yield number, frame
                    number += 1
                return
            except DamageError:  # or what is missing lies before the keyframe: a full pass tells
                break
    with closing(decode(path, threads)) as pictures:
        yield from ((n, picture.frame) for n, picture in enumerate(pictures) if n >= number)


def _keyframes_before(index: FrameIndex, start: int) -> Iterator[int]:
    """Ticks of keyframes to try, the nearest first and then ever further back; not the first one of all."""
    if index.pts:
        place, step = bisect_right(index.keyframes, index.pts[start]) - 1, 1
        while place > 0:
            yield index.keyframes[place]
            place, step = place - step, step * 2


def _first_frame(frames: Iterator[VideoFrame]) -> VideoFrame | None:
    """The frame of the first packet after seeking; None where the file does not keep what its keyframe marks promise.

    Seeking may land elsewhere, the mark may be false, the decoder may withhold frames until the picture has recovered:
    all of these show in the first frame. Frames shown before the keyframe but decoded after it are left out, because
    they may refer to frames before it (open GOP).
    """
    try:
        first = next((frame for frame in frames if frame.opaque == 0), None)
    except DamageError:
        return None
    return first if first is not None and first.key_frame else None
