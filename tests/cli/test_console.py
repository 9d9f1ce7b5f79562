"""What stderr shows during a run: nothing for short things, a bar on a terminal, sparse lines elsewhere."""

import io
import re
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from vaectl.cli import bars as cli_bars
from vaectl.cli import console as cli_console
from vaectl.cli.bars import Bars
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


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cli_console, "time", clock)
    return clock


def in_a_log() -> tuple[_Lines, Callable[[], list[str]]]:
    """Return what a run writes to, and a function that gives the lines so far."""
    console = Console(file=io.StringIO(), width=30)
    return _Lines(console), lambda: console.file.getvalue().splitlines()


def test_lines_come_soon_and_then_once_a_minute(clock):
    lines, written = in_a_log()
    lines.start("vae", 1000, "steps")
    times = []
    for second in range(1, 301):
        clock.now = 100.0 + second
        before = len(written())
        lines.advance(1)
        times += [second] * (len(written()) - before)
    lines.finish()
    assert times == [5, 15, 30, 90, 150, 210, 270]
    assert written()[0] == "vae: 5/1000 steps, 1.0 steps/s, 0:16:35 left"
    assert written()[-1] == "vae: 300/1000 steps, 1.0 steps/s, 0:11:40 left"


def test_there_is_no_line_while_nothing_advances(clock):
    lines, written = in_a_log()
    lines.start("clip.mp4", 60)
    lines.advance(30)
    lines.status("group 1 of 2")
    for _ in range(100):
        clock.now += 10
        lines.status("group 1 of 2")
    assert written() == []
    lines.advance(10)
    lines.advance(10)
    assert written() == ["clip.mp4: 40/60 frames, 25.0 s/frame, 0:08:20 left, group 1 of 2"]


def test_a_day_of_training_writes_a_line_a_minute_with_the_losses(clock):
    lines, written = in_a_log()
    lines.start("vae", 86400, "steps")
    for step in range(86400):
        clock.now += 1
        lines.status(f"loss {1 / (step + 1):.4g}")
        lines.advance(1)
    assert 1440 <= len(written()) < 1450
    assert all(", loss " in line for line in written())


def test_what_was_done_before_counts_in_the_total_and_not_in_the_rate(clock):
    lines, written = in_a_log()
    lines.start("vae", 100, "steps", done=70)
    clock.now += 6
    lines.advance(12)
    lines.finish()
    assert written() == ["vae: 82/100 steps, 2.0 steps/s, 0:00:09 left"]


def test_the_last_line_is_not_said_twice(clock):
    lines, written = in_a_log()
    lines.start("clip.mp4", 2)
    clock.now += 5
    lines.advance(2)
    lines.finish()
    assert written() == ["clip.mp4: 2/2 frames, 2.5 s/frame in 0:00:05"]


def test_lines_of_a_clip_of_unknown_length_tell_what_is_done(clock):
    lines, written = in_a_log()
    lines.start("clip.mp4", None)
    clock.now += 7
    lines.advance(7)
    assert written() == ["clip.mp4: 7 frames, 1.0 frames/s in 0:00:07"]


def test_how_things_stand_is_told_before_anything_is_done(clock):
    lines, written = in_a_log()
    lines.start("clip.mp4", 9)
    clock.now += 5
    lines.status("group 3 of 62")
    assert written() == ["clip.mp4: 0/9 frames, group 3 of 62"]


def test_a_log_of_a_folder_has_a_line_for_each_clip_and_the_time_left_for_all(clock):
    lines, written = in_a_log()
    lines.start_clips(5, done=1)
    for name, seconds in (("a.mp4", 10), ("b.mp4", 20)):
        lines.start(name, 10)
        for _ in range(10):
            clock.now += seconds / 10
            lines.advance(1)
        lines.finish()
        lines.end_clip(name, "10 frames")
    clock.now += 1
    lines.end_clip("bad.mp4", "bad.mp4: broken; pass `overwrite`", failed=True)
    lines.end_clip("d/" * 50 + "c.mp4", "1 frame")
    assert written() == [
        "a.mp4: 5/10 frames, 1.0 frames/s, 0:00:05 left",
        "2/5 a.mp4: 10 frames; 0:00:30 left",
        "b.mp4: 3/10 frames, 2.0 s/frame, 0:00:14 left, 0:00:34 left for all clips",
        "b.mp4: 10/10 frames, 2.0 s/frame in 0:00:20, 0:00:20 left for all clips",
        "3/5 b.mp4: 10 frames; 0:00:30 left",
        "4/5 failed: bad.mp4: broken; pass --overwrite",
        "5/5 " + "d/" * 50 + "c.mp4: 1 frame",
    ]


def test_the_time_left_is_not_shown_before_a_clip_was_made(clock):
    lines, written = in_a_log()
    lines.start_clips(3, share="rank 0 of 2")
    clock.now += 4
    lines.end_clip("bad.mp4", "bad.mp4: broken", failed=True)
    clock.now += 4
    lines.end_clip("b", "made")
    assert written() == ["rank 0 of 2: 1/3 failed: bad.mp4: broken", "rank 0 of 2: 2/3 b: made; 0:00:08 left"]


def test_a_run_of_one_clip_shows_no_line_for_it(clock):
    lines, written = in_a_log()
    lines.start_clips(1)
    clock.now += 10
    lines.end_clip("a.mp4", "10 frames")
    assert written() == []


def test_a_long_step_of_an_evaluation_is_shown(clock):
    lines, written = in_a_log()
    lines.start_clips(2)
    clock.now += 6
    lines.status("a: lpips")
    assert written() == ["0/2 clips: a: lpips"]


def screen(bars: Bars, width: int) -> list[str]:
    """Return the rows of bars on a terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    console.print(bars.get_renderable())
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "name"), [(80, "clips/deep/a_…"), (60, "c…"), (40, "c…")])
def test_bars_keep_their_figures_whatever_the_name_and_the_width(monkeypatch, width, name):
    monkeypatch.setattr(cli_bars, "BAR_DELAY_SECONDS", 0.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    bars = Bars(console)
    bars.close()
    now = iter(float(second) for second in range(1000))
    bars.get_time = lambda: next(now)
    bars.add_task("clips", total=12, completed=3, left=lambda: 4800.0)
    task = bars.add_task("clips/deep/a_very_long_name_of_a_clip.mp4", total=3600, unit="frames")
    for _ in range(10):
        bars.advance(task, 123)
    bars.message = "loss 0.1234 rec 0.5678 perceptual 0.9012 kl 34.56 | 1.23 clips/s, 4% waiting for data"
    first, second, *status = screen(bars, width)
    assert max(map(len, [first, second, *status])) <= width
    assert first.startswith("clips ")
    assert {"3/12", "1:20:00"} <= set(first.split())
    assert second.split()[0].startswith("c")
    assert "…" in second.split()[0]
    assert {"1230/3600", "frames/s"} <= set(second.split())
    assert re.search(r" \d+:\d\d:\d\d( left)?$", second.rstrip())
    assert " ".join(line.strip() for line in status) == bars.message


def test_a_folder_on_a_terminal_has_a_bar_for_all_and_one_for_the_clip(monkeypatch):
    monkeypatch.setattr(cli_bars, "BAR_DELAY_SECONDS", 0.05)
    console = on_terminal()
    bar = _Bar(console)
    bar.start_clips(3, done=1)
    bar.start("deep/clip.mp4", 60)
    bar.advance(30)
    time.sleep(0.3)
    bar.finish()
    bar.end_clip("d/" * 100 + "clip.mp4", "60 frames, PSNR 30.00 dB")
    time.sleep(0.2)
    bar.close()
    shown = console.file.getvalue()
    assert re.search(r"clips +.* 1/3 .*\n.*deep/clip.mp4 .* 30/60", shown)
    finished = re.search(r"2/3 d/d/\S*…\S*/d/clip.mp4: 60 frames, PSNR 30.00 dB\n", shown)
    assert finished
    assert len(finished[0]) <= 101
    assert re.search(r"clips .* 2/3 ", shown)
    assert shown.endswith("\x1b[2K")


def test_the_bar_of_one_clip_is_alone(monkeypatch):
    monkeypatch.setattr(cli_bars, "BAR_DELAY_SECONDS", 0.05)
    console = on_terminal()
    bar = _Bar(console)
    bar.start_clips(1)
    bar.start("clip.mp4", 60)
    time.sleep(0.2)
    bar.finish()
    bar.end_clip("clip.mp4", "60 frames")
    bar.close()
    assert "clip.mp4" in console.file.getvalue()
    assert "0/1" not in console.file.getvalue()


def test_a_clip_that_begins_again_has_one_bar(monkeypatch):
    monkeypatch.setattr(cli_bars, "BAR_DELAY_SECONDS", 0.0)
    console = on_terminal()
    bar = _Bar(console)
    for _ in range(2):
        bar.start("clip.mp4", 60)
        time.sleep(0.2)
    bar.finish()
    assert console.file.getvalue().count("\x1b[?25h") == 2, "the cursor comes back twice"


def test_a_bar_appears_after_a_delay_and_goes_away(monkeypatch):
    monkeypatch.setattr(cli_bars, "BAR_DELAY_SECONDS", 0.05)
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
    monkeypatch.setattr(cli_bars, "BAR_DELAY_SECONDS", 0.0)
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
