"""One browser for all tests of pages: it takes a second to start."""

from collections.abc import Iterator

import pytest

from tests.evaluation.browser import Browser, chromium, find_program


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_program()
    if program is None:
        pytest.skip("report in a browser: no Chromium; install one with: apt install chromium")
    with chromium(program, tmp_path_factory.mktemp("chromium")) as tab:
        yield tab
