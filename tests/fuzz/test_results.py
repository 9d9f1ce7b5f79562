"""Damaged results of eval: read, compared, shown and written, or refused in one clear line."""

from __future__ import annotations

import contextlib
import io
import json
import os
from random import Random

import pytest

import vaectl
from tests.evaluation.test_results_file import result
from tests.fuzz.mutate import spoil_json
from tests.jobs import Listener
from vaectl.cli.comparison import show
from vaectl.cli.spelling import as_json
from vaectl.errors import UsageError
from vaectl.evaluation.outputs import WRITE


def use(here, content):
    """Do all that compare does with a file."""
    (here / "spoilt.json").write_bytes(content)
    comparison = vaectl.compare([here / "spoilt.json", result("b")], allow_missing=True, progress=Listener())
    as_json(comparison.as_json())
    with contextlib.redirect_stdout(io.StringIO()) as out:
        show(comparison)
    for kind, write in WRITE.items():
        write(here / kind, comparison)
    texts = [out.getvalue(), (here / "markdown").read_text(), (here / "latex").read_text()]
    assert not any(letter in text for text in texts for letter in "\x1b\0\r"), "a terminal would obey it"


def attempt(here, number):
    """Return why damaged result `number` is refused; "" if it can be used. Any other error is a fault."""
    rng = Random(f"{os.environ.get('VAECTL_FUZZ_SEED', '1')}/{number}")
    try:
        use(here, spoil_json(json.dumps(result("a").as_json()).encode(), rng))
    except UsageError as error:
        return str(error)
    return ""


def test_a_damaged_result_is_used_or_refused(tmp_path):
    said = [attempt(tmp_path, number) for number in range(40)]
    assert 5 < said.count("") < 35
    assert not [message for message in said if "\n" in message or len(message) > 2000]


@pytest.mark.fuzz
def test_thousands_of_damaged_results_are_used_or_refused(tmp_path):
    for number in range(5000):
        message = attempt(tmp_path, number)
        assert "\n" not in message
        assert len(message) < 2000
