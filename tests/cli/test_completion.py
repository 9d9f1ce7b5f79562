"""Shell completion, driven in a real bash: words handed to the completion function, and the TAB key on a terminal."""

import os
import pty
import re
import select
import shutil
import subprocess
import time
from functools import cache

import pytest

from tests.cli.conftest import VAECTL, environment

BASH = shutil.which("bash") or pytest.fail("the tests of completion need bash: install it", pytrace=False)
SOURCE = 'eval "$(_VAECTL_COMPLETE=source_bash vaectl)"'


@cache
def completion_script() -> str:
    """What the line of the documentation evaluates; the tests of the TAB key evaluate that line itself."""
    variables = environment(_VAECTL_COMPLETE="source_bash")
    return subprocess.run([VAECTL], env=variables, capture_output=True, text=True, timeout=60, check=True).stdout


def complete(*words: str) -> list[str]:
    """What bash offers for the last of the words."""
    script = f"""{completion_script()}
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _vaectl_completion vaectl; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(
        [BASH, "--norc", "--noprofile", "-c", script, "bash", "vaectl", *words],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ([""], ["compare", "eval", "models", "prepare-eval", "reconstruct", "train"]),
        (["eval", "--metric", "f"], ["fvd", "flicker"]),
        (["rec"], ["reconstruct"]),
        (["reconstruct", "--vid"], ["--video-path"]),
        (
            ["reconstruct", "--s"],
            [
                "--sample-rate",
                "--start",
                "--short-size",
                "--side-by-side",
                "--sample",
                "--save-memory",
                "--seed",
                "--strict",
            ],
        ),
        (["reconstruct", "--sample", "--sa"], ["--sample-rate", "--save-memory"]),
        (["reconstruct", "--no-o"], ["--no-overwrite"]),
        (["reconstruct", "--num_"], ["--num_frames"]),
        (["train", "--disc"], ["--disc-weight", "--disc-start"]),
        (["eval", "--fvd"], ["--fvd-detector"]),
        (["eval", "--protocol", "v"], ["vidtok"]),
        (["eval", "--rgb-conversion", ""], ["accurate", "swscale"]),
        (["eval", "--mp"], []),
        (["reconstruct", "--tile"], []),
        (["train", "--find_unused"], []),
        (["reconstruct", "--image-p"], ["--image-path"]),
        (["reconstruct", "--device", ""], ["auto", "cpu", "cuda", "mps"]),
        (["reconstruct", "--device", "c"], ["cpu", "cuda"]),
        (["reconstruct", "--rec_path", "x", "--dtype", "f"], ["float32", "float16"]),
        (["reconstruct", "--device", "="], ["auto", "cpu", "cuda", "mps"]),
        (["reconstruct", "--video-path", ""], []),
        (["reconstruct", ""], []),
        (["reconstruct", "a", ""], []),
        (["reconstruct", "--video_path", "a"], []),
    ],
)
def test_bash_is_offered(words, offered):
    assert sorted(complete(*words)) == sorted(offered)


def test_all_options_are_offered_once_each_to_someone_who_has_typed_nothing():
    offered = complete("prepare-eval", "")
    assert len(offered) == len(set(offered))
    assert {"--real-video-dir", "--generated-video-dir", "--num-frames", "--help"} <= set(offered)
    assert not any("_" in word or word.startswith("--no-") for word in offered)


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("vaectl rec\t", "vaectl reconstruct"),
        ("vaectl reconstruct --video-p\t", "vaectl reconstruct --video-path"),
        ("vaectl reconstruct some\t", "vaectl reconstruct some\\ clip.mp4"),
        ("vaectl reconstruct a.mp4 some\t", "vaectl reconstruct a.mp4 some\\ clip.mp4"),
        ("vaectl reconstruct --video-path some\t", "vaectl reconstruct --video-path some\\ clip.mp4"),
        ("vaectl reconstruct --video_path some\t", "vaectl reconstruct --video_path some\\ clip.mp4"),
        ("vaectl reconstruct --video-path=some\t", "vaectl reconstruct --video-path=some\\ clip.mp4"),
        ("vaectl reconstruct --dtype bf\t", "vaectl reconstruct --dtype bfloat16"),
    ],
)
def test_the_tab_key_completes_commands_options_choices_and_paths(tmp_path, typed, line):
    (tmp_path / "some clip.mp4").touch()
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execve(BASH, ["bash", "--norc", "--noprofile", "-i"], environment(TERM="dumb", PS1="$ ", COLUMNS="200"))
    try:
        os.write(terminal, f"bind 'set enable-bracketed-paste off'; {SOURCE}; echo is rea''dy\n".encode())
        read_until(terminal, r"is ready\s+\$ ")
        os.write(terminal, typed.encode())
        read_until(terminal, re.escape(line))
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def read_until(terminal: int, expected: str) -> None:
    """Read what the terminal shows until it holds `expected`."""
    shown, deadline = "", time.monotonic() + 20
    while not re.search(expected, shown):
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{expected!r} did not appear in {shown!r}"
        shown += os.read(terminal, 4096).decode()
