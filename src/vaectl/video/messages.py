"""FFmpeg's log messages, assigned to the file that they are about.

Some decoders and demuxers only log an error, and then return a picture or skip one. The process has one log, and its
messages name a codec but no file. PyAV can capture the messages of the calling thread. So where FFmpeg works in that
thread alone, the messages belong to the packet at hand. Messages of decode threads cannot be assigned to a file. They
are collected in one list, where each pass finds errors of its codec. It then decodes again with one thread
(`vaectl.video.decode`). A message about another file of the same codec costs time, but changes no result.

Knows no packets. Decides only which messages never concern a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import NamedTuple

from av import logging


class Message(NamedTuple):
    """One line of FFmpeg's log."""

    level: int
    """FFmpeg's level: 16 for errors, 24 for warnings, smaller numbers for what is worse."""
    source: str
    """Name of the codec or format that wrote it."""
    text: str

    @property
    def is_error(self) -> bool:
        """Whether the message says that something could not be read correctly."""
        serious = self.level <= logging.ERROR or "is not implemented" in self.text  # a missing feature is a warning
        return serious and not _HARMLESS.match(self.text)


# Errors in metadata. The picture itself is correct.
_HARMLESS = re.compile(
    r"SEI type|unable to decode APP fields|Overread (VPS|SPS|PPS|VUI)|non-existing SPS \d+ referenced in buffering"
    r"|mmco: unref short failure|at [\d.]+ seconds|VPS \d+ does not exist|.*\b(ICC|iCCP|EXIF|Exif|exif)\b"
)

_lock = Lock()
_listeners = 0
_capture: logging.Capture | None = None
_before: tuple[int | None, bool] = (None, True)
_unassigned: list[tuple[int, str, str]] = []
"""Messages of threads without a capture of their own (mostly decode threads) since the first file was opened."""


@contextmanager
def listening() -> Iterator[None]:
    """Collect FFmpeg's messages inside the block, then restore PyAV's settings. Several files may listen at once."""
    start_listening()
    try:
        yield
    finally:
        stop_listening()


def start_listening() -> None:
    """Begin what `stop_listening` ends. A block of `listening` may be interrupted: stop, then start again."""
    global _listeners, _capture, _before, _unassigned
    with _lock:
        _listeners += 1
        if _listeners == 1:
            _before = logging.get_level(), logging.get_skip_repeated()
            logging.set_skip_repeated(False)  # another file may cause the same message
            logging.set_level(max(logging.WARNING, _before[0] or 0))
            _capture = logging.Capture(local=False)
            _unassigned = _capture.__enter__()


def stop_listening() -> None:
    """End one `start_listening`; the last one restores PyAV's settings."""
    global _listeners
    with _lock:
        _listeners -= 1
        if _listeners == 0 and _capture is not None:
            _capture.__exit__(None, None, None)
            logging.set_level(_before[0])
            logging.set_skip_repeated(_before[1])


class Interruption:
    """An interruption of a block of `listening`, from `delay` seconds after construction until `end`."""

    def __init__(self, delay: float) -> None:
        self._lock, self._ended, self._stopped = Lock(), False, False
        self._timer = Timer(delay, self._stop)
        self._timer.daemon = True
        if delay:
            self._timer.start()
        else:
            self._stop()

    def _stop(self) -> None:
        with self._lock:
            if not self._ended:
                stop_listening()
                self._stopped = True

    def end(self) -> None:
        """Listen again. Call it once."""
        self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._stopped:
                start_listening()


def of_this_thread() -> logging.Capture:
    """Return a block that collects the lines of the calling thread, for `messages_of`. Needs `listening`."""
    return logging.Capture()


def messages_of(lines: Iterable[tuple[int, str, str]]) -> list[Message]:
    """Return the messages of these lines of FFmpeg's log."""
    return [Message(*line) for line in lines]


class OtherThreads:
    """New messages of one codec from threads without a capture of their own. Needs `listening`."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._messages, self._seen = _unassigned, len(_unassigned)

    def logged_an_error(self) -> bool:
        """Whether there was an error since the last call, or since construction."""
        new = self._messages[self._seen :]
        self._seen += len(new)
        if self._messages is not _unassigned:  # listening was interrupted, and the list is a new one
            self._messages, newer = _unassigned, _unassigned[:]
            self._seen = len(newer)
            new += newer
        return any(source == self._codec and Message(level, source, text).is_error for level, source, text in new)
