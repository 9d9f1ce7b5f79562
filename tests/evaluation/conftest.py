"""One browser for all tests of pages: it takes a second to start."""

from collections.abc import Iterator

import pytest

from tests.evaluation.browser import Browser, chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab
