"""Reads a sample from a video file. Knows nothing of trees, epochs or workers."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from vaectl.data.ken_burns import ken_burns
from vaectl.data.sampling import Draw, Sampling, place, span
from vaectl.errors import VaectlError
from vaectl.video.read import VideoReader, frames_at_once
from vaectl.video.sequence import stamp_of
from vaectl.video.transform import scale_and_crop

_FRAMES_AT_ONCE = 4
"""Frames in full size that are in memory at a time."""
_MAX_INDEXED_FRAMES = 500_000
"""Total number of frames of the files whose index is cached: about 100 MB."""


class ClipReader:
    """Reads samples from files, and caches the frame index of recent files."""

    def __init__(self) -> None:
        self._readers: OrderedDict[tuple[Path, int, int], tuple[VideoReader, int]] = OrderedDict()
        self._indexed = 0
        self._last: VideoReader | None = None

    def read(self, path: Path, sampling: Sampling, draw: Draw) -> Tensor:
        """Return the sample at `draw` of the video at `path`: (num_frames, 3, side, side) uint8 RGB.

        Resizing uses 8-bit arithmetic, within one level of the exact `scale_and_crop`. The result depends only on the
        arguments and the file. Raises VaectlError for any problem with the file.
        """
        try:
            return self._read(path, sampling, draw)
        except VaectlError:
            raise
        except OSError as error:
            raise VaectlError(f"{path}: cannot be read ({error.strerror or error})") from error
        except Exception as error:  # one damaged file must not end a training of days
            raise VaectlError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error

    def _read(self, path: Path, sampling: Sampling, draw: Draw) -> Tensor:
        reader, num_frames = self._open(path)
        if not sampling.suits(num_frames):
            raise VaectlError(f"{path}: has {num_frames} frames, but {sampling.frames_needed} are needed")
        size, side = sampling.resolution, sampling.side
        if num_frames == 1 and sampling.animate_images:
            where = place(draw, sampling, span(sampling.num_frames, sampling.sample_rate))
            times = range(0, span(sampling.num_frames, where.sample_rate), where.sample_rate)
            clip = ken_burns(reader.read().frames[0], times, size, side, draw.camera)
        else:
            where = place(draw, sampling, num_frames)
            at_once = frames_at_once(reader.info, _FRAMES_AT_ONCE)
            parts = reader.clips(where.start, sampling.num_frames, where.sample_rate, batch_size=at_once)
            clip = torch.cat([scale_and_crop(part.frames, size, side, where.at, exact=False) for part in parts])
        return clip.flip(-1) if where.flip else clip

    def _open(self, path: Path) -> tuple[VideoReader, int]:
        """Return a reader and its number of frames. Raises for a file that is damaged anywhere."""
        reader, num_frames = self._known(path)
        if self._last is not None and self._last is not reader:
            self._last.close()  # only the file of the last sample stays open
        self._last = reader
        return reader, num_frames

    def _known(self, path: Path) -> tuple[VideoReader, int]:
        key = (path, *stamp_of(path))
        if key not in self._readers:
            reader = VideoReader(path, threads=1)  # other workers use the other cores
            num_frames = len(reader.timestamps())
            self._readers[key] = reader, num_frames
            self._indexed += num_frames
            while self._indexed > _MAX_INDEXED_FRAMES and len(self._readers) > 1:
                self._indexed -= self._readers.popitem(last=False)[1][1]
        self._readers.move_to_end(key)
        return self._readers[key]
