"""The program as a whole: help pages, spellings, exit codes, signals, and a start without the heavy libraries."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
import torch

from tests.cli.conftest import VAECTL, environment
from vaectl.cli.app import main
from vaectl.errors import UsageError, VaectlError

PATHS = ["reconstruct", "--video-path", "in.mp4", "--rec-path", "out.mp4"]
HEAVY = ("torch", "av", "numpy", "lpips", "skimage", "pydantic.main", "rich.markdown")


def imported(code: str, **extra: str) -> set[str]:
    """Which of `HEAVY` a fresh interpreter has imported after `code`."""
    report = (
        "import atexit, json, sys\n"
        f"atexit.register(lambda: print(json.dumps([m for m in {HEAVY} if m in sys.modules]), file=sys.stderr))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{report}\n{code}"],
        capture_output=True,
        text=True,
        env=environment(**extra),
        timeout=60,
        check=False,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["--version"], ["reconstruct", "--help"], ["prepare-eval", "--help"]]
)
def test_help_starts_without_the_heavy_libraries(arguments):
    assert imported(f"from vaectl.cli.app import main; main({arguments})") == set()


@pytest.mark.parametrize("words", ["vaectl ", "vaectl reconstruct --", "vaectl reconstruct --device "])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_starts_without_the_heavy_libraries(shell, words):
    assert (
        imported(
            "from vaectl.cli.app import main; main([])",
            _VAECTL_COMPLETE=f"complete_{shell}",
            COMP_WORDS=words,
            COMP_CWORD=str(len(words.split(" ")) - 1),
            _TYPER_COMPLETE_ARGS=words,
            _TYPER_COMPLETE_FISH_ACTION="get-args",
        )
        == set()
    )


def test_importing_the_package_imports_nothing_else():
    assert imported("import vaectl; assert 'load_model' in dir(vaectl)") == set()


def test_the_check_for_heavy_libraries_sees_them():
    assert "pydantic.main" in imported("from pydantic import BaseModel")


@pytest.mark.parametrize("arguments", [["--help"], ["reconstruct", "--help"], ["prepare-eval", "--help"]])
@pytest.mark.parametrize("columns", [60, 80, 132])
def test_help_fits_the_terminal(vaectl, arguments, columns):
    lines = vaectl(*arguments, COLUMNS=str(columns)).stdout.splitlines()
    assert max(map(len, lines)) == min(columns, 100)
    assert not any("…" in line for line in lines)


def test_help_shows_panels_every_option_once_and_examples(vaectl):
    page = vaectl("reconstruct", "--help").stdout
    for panel in ("Input", "Output", "Model", "Run"):
        assert f"─ {panel} ─" in page
    assert page.count("│ --num-frames N ") == 1
    assert "--num_frames" not in page
    assert "--no-" not in page
    assert "Usage: vaectl reconstruct [IN... OUT] [OPTIONS]" in page
    assert "│ IN... OUT  " in page
    assert "  vaectl reconstruct --video-path clip.mp4 --rec-path rec.mp4\n" in page


@pytest.mark.parametrize(
    ("command", "hidden"),
    [
        ("train", ["--disc-cls", "--find-unused-parameters", "--enable-tiling", "--model-name"]),
        ("reconstruct", ["--tile-overlap-factor", "--model-name"]),
        ("prepare-eval", ["--tile-overlap-factor", "--model-name"]),
        ("eval", ["--fvd-method", "--mp", "--sample-fps"]),
    ],
)
def test_help_leaves_out_what_only_published_commands_need(vaectl, command, hidden):
    page = vaectl(command, "--help").stdout
    assert [name for name in hidden if f"{name} " in page] == []
    assert "--seed N" in page  # so that the names above would be found


def test_no_command_means_help(vaectl):
    done = vaectl()
    assert (done.returncode, done.stdout) == (0, vaectl("--help").stdout)


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_names_what_a_bug_report_needs(capsys, option):
    assert main([option]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"vaectl {version('vaectl')}"
    python, pytorch, pyav, system = second.split(", ")
    assert python == f"Python {platform.python_version()}"
    assert pytorch == f"PyTorch {torch.__version__}"
    assert pyav == f"PyAV {version('av')}"
    assert system.startswith(platform.system())


@pytest.mark.parametrize("command", [[], ["train"], ["reconstruct"], ["prepare-eval"], ["eval"], ["models"]])
def test_every_page_of_help_has_a_short_option(capsys, command):
    assert main([*command, "-h"]) == 0
    short = capsys.readouterr().out
    assert main([*command, "--help"]) == 0
    assert capsys.readouterr().out == short
    assert "│ -h, --help " in short


def test_on_a_narrow_terminal_long_names_are_above_their_texts(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["train", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if "--num-frames N" in line)
    assert lines[at].strip("│ ") == "--num-frames N"
    assert lines[at + 1].startswith("│     Frames per clip: 1 + 4n for models")
    assert main(["reconstruct", "--help"]) == 0
    assert "│ --num-frames N         Number of frames. (default: all)" in capsys.readouterr().out


@pytest.mark.parametrize("form", [["--show-completion", "SHELL"], ["--show-completion=SHELL"]])
@pytest.mark.parametrize(("shell", "sign"), [("zsh", "#compdef vaectl"), ("bash", "COMPREPLY"), ("fish", "--no-files")])
def test_the_completion_of_the_shell_that_is_named_is_shown(capsys, monkeypatch, form, shell, sign):
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: "powershell")
    with pytest.raises(SystemExit) as stop:
        main([word.replace("SHELL", shell) for word in form])
    assert stop.value.code == 0
    assert sign in capsys.readouterr().out


def test_completion_is_installed_for_the_shell_that_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["--install-completion", "zsh"])
    assert "zsh completion installed" in capsys.readouterr().out
    assert "#compdef vaectl" in (tmp_path / ".zfunc" / "_vaectl").read_text()


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_an_unknown_shell_is_named_with_the_choices(capsys, option):
    assert main([option, "nushell"]) == 2
    assert capsys.readouterr().err == (
        f"error: {option}: unknown shell nushell; give one of bash, zsh, fish, powershell, pwsh\n"
    )


@pytest.mark.parametrize(
    "spelling",
    [
        ["--video_path", "a_b", "--rec_path=c_d", "--num_frames", "3", "--side_by_side"],
        ["--video-path=a_b", "--rec-path", "c_d", "--num-frames=3", "--side-by-side"],
        ["--image_path", "a_b", "--rec_path", "c_d", "--num_frames=3", "--no-side_by_side", "--side-by-side"],
    ],
)
def test_options_are_taken_with_dashes_and_underscores(run_options, spelling):
    options = run_options("reconstruct", *spelling)
    assert (str(*options.video_path), str(options.rec_path)) == ("a_b", "c_d")
    assert (options.num_frames, options.side_by_side) == (3, True)


def test_published_names_mean_the_same(run_options):
    options = run_options(
        "reconstruct", "--image_path", "a", "--rec_path", "b", "--from_pretrained", "c", "--short_size", "64"
    )
    assert (str(*options.video_path), str(options.model), options.short_size) == ("a", "c", 64)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reconstruct"], "IN... or --video-path is missing; OUT or --rec-path is missing"),
        (["reconstruct", "--rec-path", "x"], "IN... or --video-path is missing"),
        (["reconstruct", "a"], "a: is the input, and the output is missing; give it as a second argument, or as --rec"),
        (["reconstruct", "a", "b.mp4/"], "--rec-path: b.mp4/: no such folder; create it, or leave out the / for a"),
        (["reconstruct", "--video-path", "a", "b"], "Got unexpected extra argument(s) (b); did you mean --rec-path b?"),
        (
            [*PATHS, "--num-frames", "3", "--num_frames=4"],
            "--num-frames is given 2 times (--num-frames, --num_frames);",
        ),
        ([*PATHS, "--model", "A", "--ae_path", "B"], "--model is given 2 times (--model, --ae_path); give it once"),
        (
            ["reconstruct", "--video-path", "a", "b", "c"],
            "Got unexpected extra argument(s) (b c); did you mean --video-path b --rec-path c?",
        ),
        (
            ["reconstruct", __file__, "new.mp4", "64"],
            "new.mp4: no such file or folder; the last argument, 64, is the output; check the path",
        ),
        (["models", "a", "b"], "Got unexpected extra argument(s) (b); see --help"),
        (["train", "v"], "Got unexpected extra argument(s) (v); did you mean --video-path v?"),
        (
            ["train", "--video-path", "v", "w", "x y"],
            "Got unexpected extra argument(s) (w x y); did you mean --video-path w --video-path 'x y'?",
        ),
        (
            ["eval", "a", "b"],
            "Got unexpected extra argument(s) (a b); did you mean --real-video-dir a --generated-video-dir b?",
        ),
        (
            ["eval", "--real_video_dir", "a", "b"],
            "Got unexpected extra argument(s) (b); did you mean --generated-video",
        ),
        (["prepare-eval", "a", "b"], "Got unexpected extra argument(s) (a b); did you mean --real-video-dir a --gen"),
        (["prepare-eval", "a", "b", "c"], "Got unexpected extra argument(s) (a b c); see --help"),
        ([*PATHS, "--memory-limit", "6"], "--memory-limit: 6 what? give a unit, as in 6GiB or 6MiB"),
        ([*PATHS, "--height", "5"], "--height: must be at least 16, not 5"),
        ([*PATHS, "--num_frames", "0"], "--num-frames: must be at least 1, not 0"),
        (
            [*PATHS, "--memory-limit", "much"],
            "--memory-limit: give an amount of memory as 6GiB, 500MiB or in bytes, not 'much'",
        ),
        ([*PATHS, "--memory_limit", "0"], "--memory-limit: give an amount of memory as 6GiB"),
        ([*PATHS, "--num-frame", "3"], "No such option: --num-frame "),
        ([*PATHS, "extra"], "Got unexpected extra argument(s) (extra); did you mean --video-path extra?"),
        ([*PATHS, "--", "--num_frames"], "Got unexpected extra argument(s) (--num_frames)"),
        ([*PATHS, "--height"], "Option '--height' requires an argument"),
        ([*PATHS, "--strict=1"], "Option '--strict' does not take a value"),
        ([*PATHS, "--config", "no.toml"], "no.toml: cannot read the configuration: No such file or directory"),
        (["reconstuct"], "No such command 'reconstuct'. Did you mean 'reconstruct'?"),
        (["tune"], "No such command 'tune'"),
        (["--nope"], "No such option: --nope (see vaectl --help)"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, arguments, said):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [(VaectlError("a.mp4: broken; try b"), 1), (UsageError("same\nfile"), 2)])
def test_errors_are_one_line_with_their_exit_code(job, capsys, error, code):
    def broken(_options, _progress):
        raise error

    job(broken)
    assert main(PATHS) == code
    assert capsys.readouterr().err == f"error: {' '.join(str(error).split())}\n"


def test_a_bug_is_told_apart_and_debug_shows_where_it_is(job, capsys):
    job(lambda *_: 1 / 0)
    assert main(PATHS) == 1
    assert capsys.readouterr().err == (
        "error: ZeroDivisionError: division by zero; this is a bug: run again with --debug for the traceback\n"
    )
    assert main([*PATHS, "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, getattr(signal, %r))  # whatever the tests themselves were started with
from types import SimpleNamespace
def wait(options, progress):
    try:
        progress.start("clip", 10)
        print("ready", flush=True)
        time.sleep(30)
    finally:
        print("cleaned up", flush=True)
sys.modules["vaectl.reconstruction"] = SimpleNamespace(reconstruct=wait)
from vaectl.cli.app import main
sys.exit(main(%r))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_the_run_after_cleaning_up(number, code):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING % ("default_int_handler", PATHS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    begun = time.monotonic()
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - begun < 10
    assert (process.returncode, out, err) == (code, "cleaned up\n", "error: interrupted\n")


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP"])
def test_a_job_in_the_background_is_not_stopped_by_what_it_ignores(number):
    ignoring = WAITING.replace("30", "0.5").replace("signal.SIGINT", f"signal.{number}") % ("SIG_IGN", PATHS)
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, number))
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "interrupted" not in err


def test_a_reader_that_leaves_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [VAECTL, "reconstruct", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 1


def test_module_and_script_are_the_same_program(vaectl):
    done = subprocess.run(
        [sys.executable, "-m", "vaectl", "--help"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.stdout == vaectl("--help").stdout


def test_python_users_find_the_three_functions():
    import vaectl

    assert all(callable(getattr(vaectl, name)) for name in ("load_model", "read_video", "write_video"))
    with pytest.raises(ImportError, match="cannot import name 'train'"):
        from vaectl import train  # noqa: F401  # finding it is the test


def test_an_error_without_a_file_is_blamed_on_standard_output_only_where_that_is_full(job, capsys):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    job(full)
    assert main(PATHS) == 1
    assert capsys.readouterr().err == (
        "error: the system: No space left on device; check its permissions and free space\n"
    )
    with open("/dev/full", "w") as target:  # noqa: PTH123  # a device
        done = subprocess.run(
            [VAECTL, "models"], stdout=target, stderr=subprocess.PIPE, env=environment(), text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output: No space left on device; check its permissions and free space\n"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), OSError(12, "Cannot allocate")]
)
def test_short_memory_is_called_so(job, capsys, error):
    def short(*_arguments):
        raise error

    job(short)
    assert main(PATHS) == 1
    assert capsys.readouterr().err.startswith("error: out of memory; free some, or use smaller frames")


def test_control_characters_of_a_message_are_escaped(job, capsys):
    def odd(*_arguments):
        raise VaectlError("a\x1b[31m.mp4\x07: broken")

    job(odd)
    main(PATHS)
    assert capsys.readouterr().err == "error: a\\x1b[31m.mp4\\x07: broken\n"
