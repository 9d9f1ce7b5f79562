"""What stderr shows during a run: nothing for short things, a bar on a terminal, sparse lines elsewhere."""

import io
import time

import pytest
from rich.console import Console

from vaectl.cli import console as cli_console
from vaectl.cli.console import _Bar, _Lines, reporter


def on_terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=100, color_system=None)


def test_a_short_clip_shows_nothing(capsys):
    with reporter() as progress:
        progress.start("clip.mp4", 3)
        progress.advance(3)
        progress.finish()
    assert capsys.readouterr() == ("", "")


def test_a_warning_is_one_line_on_stderr_and_no_markup(capsys):
    with reporter() as progress:
        progress.warn("a [red].mp4: HDR,\n" + "shown as it is; " * 20)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("warning: a [red].mp4: HDR, shown as it is;")


def test_what_holds_for_many_clips_is_said_once(capsys):
    with reporter() as progress:
        for _ in range(3):
            progress.note("tiles of 64 pixels")
            progress.warn("a.mp4: is HDR")
        progress.note("tiles of 96 pixels")
    assert capsys.readouterr().err.splitlines() == [
        "note: tiles of 64 pixels",
        "warning: a.mp4: is HDR",
        "note: tiles of 96 pixels",
    ]


def test_lines_are_sparse_and_tell_rate_and_time_left(monkeypatch):
    now = iter([0.0, 1.0, 6.0, 6.0, 7.0, 9.0, 9.0])
    monkeypatch.setattr(cli_console, "time", type("Clock", (), {"monotonic": staticmethod(lambda: next(now))}))
    console = Console(file=io.StringIO(), width=200)
    lines = _Lines(console)
    lines.start("clip.mp4", 60)
    for _ in range(3):
        lines.advance(15)
    lines.finish()
    assert console.file.getvalue().splitlines() == [
        "clip.mp4: 30/60 frames, 5.0 frames/s, 0:00:06 left",
        "clip.mp4: 45/60 frames, 5.0 frames/s, 0:00:03 left",
    ]


def test_what_was_done_before_counts_in_the_total_and_not_in_the_rate(monkeypatch):
    now = iter([0.0, 6.0, 6.0])
    monkeypatch.setattr(cli_console, "time", type("Clock", (), {"monotonic": staticmethod(lambda: next(now))}))
    console = Console(file=io.StringIO(), width=200)
    lines = _Lines(console)
    lines.start("vae", 100, "steps", done=70)
    lines.advance(12)
    lines.finish()
    assert console.file.getvalue() == "vae: 82/100 steps, 2.0 steps/s, 0:00:09 left\n"


def test_the_last_line_is_not_said_twice(monkeypatch):
    monkeypatch.setattr(cli_console, "LINE_INTERVAL_SECONDS", 0.0)
    console = Console(file=io.StringIO(), width=200)
    lines = _Lines(console)
    lines.start("clip.mp4", 2)
    time.sleep(0.01)
    lines.advance(2)
    lines.finish()
    assert console.file.getvalue().count("2/2 frames") == 1


def test_lines_of_a_clip_of_unknown_length_tell_what_is_done(monkeypatch):
    monkeypatch.setattr(cli_console, "LINE_INTERVAL_SECONDS", 0.0)
    console = Console(file=io.StringIO(), width=200)
    lines = _Lines(console)
    lines.start("clip.mp4", None)
    time.sleep(0.01)
    lines.advance(7)
    assert console.file.getvalue().startswith("clip.mp4: 7 frames, ")


def test_how_things_stand_is_told_before_anything_is_done(monkeypatch):
    monkeypatch.setattr(cli_console, "LINE_INTERVAL_SECONDS", 0.0)
    console = Console(file=io.StringIO(), width=200)
    lines = _Lines(console)
    lines.start("clip.mp4", 9)
    lines.status("group 3 of 62")
    assert console.file.getvalue() == "clip.mp4: 0/9 frames, group 3 of 62\n"


def test_a_clip_that_begins_again_has_one_bar(monkeypatch):
    monkeypatch.setattr(cli_console, "BAR_DELAY_SECONDS", 0.0)
    console = on_terminal()
    bar = _Bar(console)
    for _ in range(2):
        bar.start("clip.mp4", 60)
        time.sleep(0.2)
    bar.finish()
    assert console.file.getvalue().count("\x1b[?25h") == 2, "the cursor comes back twice"


def test_a_bar_appears_after_a_delay_and_goes_away(monkeypatch):
    monkeypatch.setattr(cli_console, "BAR_DELAY_SECONDS", 0.05)
    console = on_terminal()
    bar = _Bar(console)
    bar.start("clip [a].mp4", 60)
    for _ in range(4):
        time.sleep(0.1)
        bar.advance(10)
    bar.warn("something odd")
    time.sleep(0.2)
    bar.finish()
    shown = console.file.getvalue()
    assert "clip [a].mp4" in shown
    assert "40/60" in shown
    assert "frames/s" in shown
    assert "warning: something odd\n" in shown
    assert shown.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back, the bar's line is empty


def test_the_status_below_a_bar_names_options(monkeypatch):
    monkeypatch.setattr(cli_console, "BAR_DELAY_SECONDS", 0.0)
    console = on_terminal()
    bar = _Bar(console)
    bar.start("clip.mp4", 60)
    bar.status("within `memory_limit`")
    time.sleep(0.2)
    bar.finish()
    assert "within --memory-limit" in console.file.getvalue()


def test_a_bar_does_not_appear_for_a_short_clip():
    console = on_terminal()
    bar = _Bar(console)
    for _ in range(2):
        bar.start("clip.mp4", 60)
        bar.advance(60)
        bar.finish()
    bar.finish()
    assert console.file.getvalue() == ""


@pytest.mark.parametrize(("extra", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_follows_the_environment(vaectl, extra, coloured):
    done = vaectl("reconstruct", FORCE_COLOR="1", TERM="xterm", **extra)
    assert ("\x1b[1;31merror: " in done.stderr) == coloured
    assert "error: " in done.stderr


def test_slow_work_is_told_in_seconds_for_each_frame():
    assert [cli_console.pace(speed) for speed in (25.0, 1.0, 0.25, 0.01)] == [
        "25.0 frames/s",
        "1.0 frames/s",
        "4.0 s/frame",
        "100.0 s/frame",
    ]
