"""Write frames to a video or image file: the whole file, or nothing.

Frames arrive in batches and are encoded at once. The file has a hidden name next to the target, and gets its own name
when it is complete. `encoding` chooses the codec, `audio` copies the sound. Does not know where frames come from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from math import lcm
from pathlib import Path
from types import MappingProxyType, TracebackType

import av
import torch
from av.packet import Packet
from av.video.stream import VideoStream

from vaectl.errors import UsageError, VaectlError
from vaectl.io.atomic_write import atomic_write
from vaectl.shortage import cannot_write
from vaectl.urls import check_local
from vaectl.video.arrays import Frames, clip_of
from vaectl.video.audio import AudioTrack, TimedPacket, add_audio, audio_packets, can_hold_audio
from vaectl.video.clip import Clip, ColorTags
from vaectl.video.codec_psnr import CodecPSNR
from vaectl.video.encoding import converter, encoding_for, tags_for
from vaectl.video.timestamps import FRAME_TIMES_TAG, clock, format_frame_times

_UNKNOWN_COLOR = ColorTags()
_SQUARE = Fraction(1)
_NO_METADATA: Mapping[str, str] = MappingProxyType({})


def write_video(
    path: Path | str,
    video: Frames,
    fps: float | Fraction | str | None = None,
    *,
    lossless: bool = False,
    overwrite: bool = False,
    audio_from: Path | str | None = None,
) -> None:
    """Write a clip, or frames at `fps` frames per second, to `path`, encoded by its extension.

    Args:
        path: the target. Its extension chooses the encoding.
        video: a clip; frames as uint8 (T, H, W, 3) or (T, 3, H, W), a tensor, a NumPy array or a list; or a video as
            float (3, T, H, W) or (1, 3, T, H, W) in [-1, 1].
        fps: required for more than one frame, except for a clip. For a clip, it replaces the times of its frames.
        lossless, overwrite, audio_from: see `VideoWriter`.

    Raises UsageError for other arrays, and as `VideoWriter` does.
    """
    clip = clip_of(video, fps)
    height, width = clip.frames.shape[-2:]
    check_local(audio_from)
    with VideoWriter(
        path,
        width=width,
        height=height,
        frame_rate=clip.frame_rate,
        timestamps=clip.timestamps,
        lossless=lossless,
        overwrite=overwrite,
        audio_from=Path(audio_from) if audio_from else None,
    ) as writer:
        writer.write(clip)


class VideoWriter:
    """Writes one file frame by frame; a context manager.

    A normal exit completes the file. An exception removes it, and leaves an existing target unchanged. Missing parent
    folders are created.

    Args:
        path: the target; its extension chooses the encoding (`vaectl.video.encoding`).
        width, height: pixels of every frame.
        frame_rate: average frames per second, above 0. The last frame is shown for 1 / `frame_rate` s.
        timestamps: the times (s) of all frames, if known. Then the clock of the file fits irregular times exactly, and
            Matroska, which rounds to milliseconds, gets a tag with the exact times (`vaectl.video.timestamps`).
            Without them, times are exact if they are multiples of 1 / `frame_rate` or 1/90000 s, else rounded.
        lossless: encode bit-exact RGB, if the extension has a codec for it.
        overwrite: replace an existing target.
        color: the colour tags of the picture; see `vaectl.video.encoding.tags_for`.
        sample_aspect_ratio: pixel width divided by pixel height.
        audio_from: a file whose audio tracks are copied, in sync with the times of the frames: the time of the first
            frame becomes 0 for both. Ignored for images and GIF.
        measure: also decode the result, for `codec_psnr`.
        metadata: tags of the file, for example title and comment. Each container keeps those it supports.
        warn: called with one line for each problem that does not stop the run, for example broken audio.

    Raises:
        UsageError: no encoder for the extension, no lossless one, an existing target, a folder as target, or a folder
            without write permission.
        VaectlError: any later failure, for example a full disk.
    """

    codec_psnr: float | None = None
    """After closing, with `measure`: mean over the frames of the PSNR in dB, 8-bit RGB of the decoded file against the
    input; inf if all is bit-exact. An exact frame among others counts as if one sample were off by one level."""

    def __init__(
        self,
        path: Path | str,
        *,
        width: int,
        height: int,
        frame_rate: Fraction,
        timestamps: Sequence[Fraction] | None = None,
        lossless: bool = False,
        overwrite: bool = False,
        color: ColorTags = _UNKNOWN_COLOR,
        sample_aspect_ratio: Fraction = _SQUARE,
        audio_from: Path | None = None,
        measure: bool = False,
        metadata: Mapping[str, str] = _NO_METADATA,
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        check_local(path, written=True)
        self._path = Path(path)
        square = sample_aspect_ratio == 1
        self._encoding = encoding_for(self._path, width, height, lossless=lossless, square_pixels=square)
        self._shape = (3, height, width)
        self._announced = timestamps
        self._warn = warn
        self._num_frames = 0
        self._first = self._last = Fraction(0)
        self._audio: Iterator[TimedPacket] = iter(())
        self._due: TimedPacket | None = None
        self._refuse_several(len(timestamps or ()))

        tags = tags_for(self._encoding, color, width, height)
        self._convert = converter(self._encoding, tags)
        grid = (Fraction(0), Fraction(1, lcm(frame_rate.numerator, 90000)))
        self._clock = clock(timestamps or grid, frame_rate)
        self._duration = max(1, round(1 / frame_rate / self._clock))
        if self._encoding.tick and timestamps and len(timestamps) > 1:
            metadata = {**metadata, FRAME_TIMES_TAG: format_frame_times(timestamps)}

        if not square and not self._encoding.keeps_pixel_shape:
            warn(f"{self._path}: will be shown with square pixels, the source's are {sample_aspect_ratio}; use .mp4")

        with self._explained(), ExitStack() as resources:
            temporary = resources.enter_context(atomic_write(self._path, overwrite=overwrite))
            self._file = av.open(
                str(temporary.absolute()), "w", self._encoding.container, container_options=self._container_options()
            )
            resources.callback(self._close_file)
            self._file.metadata.update(metadata)
            self._stream = self._add_stream(frame_rate, tags, sample_aspect_ratio)
            self._tracks: tuple[AudioTrack, ...] = ()
            if audio_from and can_hold_audio(self._encoding.container):
                self._tracks = add_audio(audio_from, self._file, warn)
            self._file.start_encoding()
            still = self._encoding.is_image
            self._psnr_meter = CodecPSNR(self._stream.codec_context, still=still) if measure else None
            self._resources = resources.pop_all()

    def _container_options(self) -> dict[str, str]:
        if self._encoding.container in ("matroska", "webm"):
            return {"fflags": "+bitexact"}  # no random id: the same frames give the same file
        if self._encoding.container not in ("mp4", "mov"):
            return {}
        # The unit of the start and end of each track. FFmpeg's default, a millisecond, can lose a frame.
        exact = lcm(self._clock.denominator, 48000)
        return {"movie_timescale": str(exact if exact < 2**31 else self._clock.denominator)}

    def _add_stream(self, frame_rate: Fraction, tags: ColorTags, sample_aspect_ratio: Fraction) -> VideoStream:
        _, height, width = self._shape
        stream = self._file.add_stream(
            self._encoding.codec, frame_rate.limit_denominator(1001000), dict(self._encoding.options)
        )
        assert isinstance(stream, VideoStream)
        stream.time_base = self._clock
        encoder = stream.codec_context
        encoder.time_base = self._clock
        encoder.width, encoder.height, encoder.pix_fmt = width, height, self._encoding.pixel_format
        encoder.sample_aspect_ratio = sample_aspect_ratio
        encoder.colorspace, encoder.color_range = tags.matrix, 2 if tags.full_range else 1
        encoder.color_primaries, encoder.color_trc = tags.primaries, tags.transfer
        encoder.thread_type = "AUTO"  # PyAV's default, slices only, reduces quality
        return stream

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._resources.__exit__(kind, error, trace)
            return
        with self._resources, self._explained():
            self._finish()

    def write(self, clip: Clip) -> None:
        """Append the frames of `clip`: (T, 3, height, width) uint8 RGB, with increasing times (s).

        Raises ValueError for frames of another size or type, and for times that do not increase or differ from
        `timestamps`; UsageError for a second frame of an image; VaectlError if the frames cannot be written.
        """
        frames, times = clip.frames, clip.timestamps
        if frames.dtype != torch.uint8 or frames.shape != (len(times), *self._shape):
            wanted = ", ".join(map(str, self._shape))
            raise ValueError(f"need ({len(times)}, {wanted}) uint8 frames, not {tuple(frames.shape)} {frames.dtype}")
        self._refuse_several(self._num_frames + len(times))
        for frame_CHW, time in zip(frames.cpu().numpy(), times, strict=True):
            pts = self._admit(time)
            picture = self._convert(frame_CHW)
            picture.pts, picture.time_base = pts, self._clock
            if self._psnr_meter:
                self._psnr_meter.give(frame_CHW.copy())  # the caller may reuse its memory
            with self._explained():
                self._mux(self._stream.encode(picture))

    def _admit(self, time: Fraction) -> int:
        """Check the time of the next frame, and return it in ticks of the clock."""
        index = self._num_frames
        if self._announced is not None and (index >= len(self._announced) or self._announced[index] != time):
            raise ValueError(f"frame {index} at {time} s is not as announced")
        if index == 0:
            self._first = time
            self._audio = audio_packets(self._tracks, time, self._warn)
            self._due = next(self._audio, None)
        else:
            tick = max(self._clock, self._encoding.tick)
            if time <= self._last:
                raise ValueError(f"frame {index} at {time} s does not come after {self._last} s")
            if round((time - self._first) / tick) <= round((self._last - self._first) / tick):
                raise VaectlError(
                    f"{self._path}: frames {index - 1} and {index} are too close in time for this format", "use .mp4"
                )
        self._num_frames, self._last = index + 1, time
        return round((time - self._first) / self._clock)

    def _mux(self, packets: Sequence[Packet[VideoStream]]) -> None:
        if self._psnr_meter:
            self._psnr_meter.decode(packets)
        for packet in packets:
            packet.duration = self._duration
            self._mux_audio(before=(packet.dts or 0) * packet.time_base)
            self._file.mux(packet)

    def _mux_audio(self, before: Fraction | None = None) -> None:
        while self._due is not None and (before is None or self._due.time < before):
            self._file.mux(self._due.packet)
            self._due = next(self._audio, None)

    def _finish(self) -> None:
        if self._num_frames < len(self._announced or (0,)):
            raise VaectlError(f"{self._path}: not written: only {self._num_frames} frames came")
        self._mux(self._stream.encode(None))
        self._mux_audio()
        self._file.close()
        if self._psnr_meter:
            self._psnr_meter.decode([None])
            self.codec_psnr = self._psnr_meter.psnr()

    def _close_file(self) -> None:
        """Close the file. It is complete, or will be deleted, so errors do not matter."""
        with suppress(Exception):
            self._file.close()

    def _refuse_several(self, num_frames: int) -> None:
        if self._encoding.is_image and num_frames > 1:
            raise UsageError(f"{self._path}: an image holds one frame, not {num_frames}", "name a .mp4 or .mkv")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError, MemoryError) as error:
            if isinstance(error, (OSError, MemoryError)):
                raise VaectlError(*cannot_write(self._path, error)) from error
            reason = error.strerror or type(error).__name__
            _, height, width = self._shape
            what = f"{self._encoding.codec} cannot code {width}x{height} ({reason})"
            raise VaectlError(f"{self._path}: {what}", "choose another size or extension") from error
