"""Each browser engine in turn: a module names this in its ``pytest_plugins``, and `in_every_engine()` is its mark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.engines import Chromium, Engine
from tests.e2e.firefox import run_firefox
from tests.e2e.webkit import run_webkit


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "chromium":
        yield Chromium(request.getfixturevalue("browser"))
    else:
        run = {"firefox": run_firefox, "webkit": run_webkit}[request.param]
        with run(tmp_path_factory.mktemp(request.param)) as engine:
            yield engine


@pytest.fixture
def engine(started: Engine) -> Iterator[Engine]:
    """One engine, without a tab."""
    yield started
    started.close_tabs()
