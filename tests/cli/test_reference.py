"""docs/cli.md: as the options are now, whole, and true."""

from __future__ import annotations

import re

from tests.conftest import ROOT
from vaectl.cli.app import COMMANDS
from vaectl.cli.reference import reference
from vaectl.options import cli_name, options_of

PAGE = ROOT / "docs" / "cli.md"


def test_the_page_is_current():
    assert PAGE.read_text() == reference(), "run: python -m vaectl.cli.reference > docs/cli.md"


def test_every_option_that_is_not_hidden_has_a_row():
    sections = re.split(r"^## vaectl ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert len(sections) == len(COMMANDS)
    for section, (_, model, _) in zip(sections, COMMANDS, strict=True):
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        options = {field: option for field, option in options_of(model()).items() if not option.hidden}
        assert len(rows) == len(options)
        for row, (field, option) in zip(rows, sorted_by_panel(options), strict=True):
            name = option.metavar if option.positional else cli_name(field)
            assert re.findall(r"`([^`]+)`", row.split(" | ")[0]) == [name]
            assert row.count(" | ") == 2, "a | in a help text would make a column of its own"


def sorted_by_panel(options):
    panels = list(dict.fromkeys(option.panel for option in options.values()))
    return sorted(options.items(), key=lambda item: panels.index(item[1].panel))
