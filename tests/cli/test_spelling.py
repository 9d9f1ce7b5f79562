"""Options in messages: the library names parameters, the command line shows options."""

import ast
import json
import pickle
import re

import pytest

from tests.conftest import ROOT
from vaectl.cli.console import say
from vaectl.cli.spelling import as_json, spell_options
from vaectl.errors import UsageError, VaectlError


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("raise `memory_limit`", "raise --memory-limit"),
        ("use `dtype=float32`, or another checkpoint", "use --dtype float32, or another checkpoint"),
        ("in/`seed`/a.mp4: not found", "in/`seed`/a.mp4: not found"),
        ("`nothing_known` stays, and so does `a file.mp4`", "`nothing_known` stays, and so does `a file.mp4`"),
    ],
)
def test_parameters_are_shown_as_options(message, shown, capsys):
    assert spell_options(message) == shown
    say("error", message)
    assert " ".join(capsys.readouterr().err.split()) == f"error: {shown}"


def test_json_shows_options_in_messages_and_leaves_numbers_alone():
    values = {"error": "raise `memory_limit`", "clips": [{"reason": "lower `num_frames`", "psnr": 3.5}], "none": None}
    expected = {"error": "raise --memory-limit", "clips": [{"reason": "lower --num-frames", "psnr": 3.5}], "none": None}
    assert json.loads(as_json(values)) == expected
    reasons = {"left_out": {"`seed`": "raise `num_frames`"}, "failures": ["raise `num_frames`"]}
    spelt = {"left_out": {"`seed`": "raise --num-frames"}, "failures": ["raise --num-frames"]}
    assert json.loads(as_json(reasons)) == spelt


def test_json_keeps_the_names_of_files():
    values = {"source": "`seed`", "clips": [{"target": "x `overwrite`"}], "options": {"video_path": ["`debug`"]}}
    assert json.loads(as_json(values)) == values


def test_an_error_is_its_problem_and_its_remedy():
    error = UsageError("out.mp4: already exists", "pass `overwrite` to replace it")
    assert str(error) == "out.mp4: already exists; pass `overwrite` to replace it"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # errors of worker processes arrive pickled
    assert str(VaectlError("no remedy")) == "no remedy"


def test_only_the_command_line_names_options():
    named = []
    for file in sorted((ROOT / "src/vaectl").rglob("*.py")):
        part = file.relative_to(ROOT / "src/vaectl").parts[0]
        # The last three name options of other programs.
        if part in ("cli", "options", "versions.py", "model_names.py") or file.name == "pip.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named += [
                    f"{file.name}:{node.lineno}: {text}" for text in re.findall(r"(?<!\S)`?--[a-z][a-z-]+", node.value)
                ]
    assert named == []
