"""What FFmpeg writes to its log, for the file that it is about.

Some decoders and demuxers only log an error and then return a picture, or skip one. The log is one for the process, and
its messages name a codec and no file. PyAV can capture what the calling thread logs, so a call that FFmpeg works on in
that thread alone is easy: its messages belong to its packet. With decode threads, messages come out of threads that
nobody can assign to a file. They are collected in one place, where each pass sees that there is something about its
codec. It then decodes again with one thread, where every message has its packet (`vaectl.video.decode`). A message
about another file of the same codec costs time and changes nothing.

This knows no packets, and does not decide what a message means, apart from those that never concern a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import NamedTuple

from av import logging


class Message(NamedTuple):
    """One line of FFmpeg's log."""

    level: int
    """As FFmpeg counts: 16 for errors, 24 for warnings; what is worse has a smaller number."""
    source: str
    """The name of the codec or format that wrote it."""
    text: str

    @property
    def is_error(self) -> bool:
        """True where it says that something could not be read as it should be."""
        serious = self.level <= logging.ERROR or "is not implemented" in self.text  # a feature that it lacks: a warning
        return serious and not _HARMLESS.match(self.text)


# Errors in what accompanies a picture. The picture itself is right.
_HARMLESS = re.compile(
    r"SEI type|unable to decode APP fields|Overread (VPS|SPS|PPS|VUI)|non-existing SPS \d+ referenced in buffering"
    r"|mmco: unref short failure|at [\d.]+ seconds|VPS \d+ does not exist|.*\b(ICC|iCCP|EXIF|Exif|exif)\b"
)

_lock = Lock()
_listeners = 0
_capture: logging.Capture | None = None
_before: tuple[int | None, bool] = (None, True)
_unassigned: list[tuple[int, str, str]] = []
"""What threads logged in which nobody listens, decode threads first of all, since the first file was opened."""


@contextmanager
def listening() -> Iterator[None]:
    """Have FFmpeg's messages collected; several files may do so at once. Then restore PyAV's settings."""
    global _listeners, _capture, _before, _unassigned
    with _lock:
        _listeners += 1
        if _listeners == 1:
            _before = logging.get_level(), logging.get_skip_repeated()
            logging.set_skip_repeated(False)  # the same message about another file counts too
            logging.set_level(max(logging.WARNING, _before[0] or 0))
            _capture = logging.Capture(local=False)
            _unassigned = _capture.__enter__()
    try:
        yield
    finally:
        with _lock:
            _listeners -= 1
            if _listeners == 0 and _capture is not None:
                _capture.__exit__(None, None, None)
                logging.set_level(_before[0])
                logging.set_skip_repeated(_before[1])


@contextmanager
def of_this_thread() -> Iterator[list[Message]]:
    """The messages that the calling thread logs in this block; complete when it ends. Needs `listening`."""
    messages: list[Message] = []
    with logging.Capture() as raw:
        try:
            yield messages
        finally:
            messages += (Message(*line) for line in raw)


class OtherThreads:
    """The messages of one codec from threads in which nobody listens, from now on. Needs `listening`."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._seen = len(_unassigned)

    def logged_an_error(self) -> bool:
        """Whether there was an error since the last call, or since this was made."""
        new = _unassigned[self._seen :]
        self._seen += len(new)
        return any(source == self._codec and Message(level, source, text).is_error for level, source, text in new)
