"""The demo's data on a database of the test's own, and Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import django
import pytest

from tests.e2e.servers import manage, site_env
from tests.services import chromium, fresh_postgres

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Error, Page

# Django has a policy of its own from 6.0 on.
collect_ignore = [] if django.VERSION >= (6,) else ["test_django_policy.py"]

CHROMIUM_OPTIONS = [
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGE_LIMIT = 30_000  # milliseconds


@pytest.fixture(scope="session")
def _prepared_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "demo.sqlite3"
    manage("demo", env=site_env(database_url=f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(_prepared_sqlite: Path, tmp_path: Path) -> str:
    """The URL of a SQLite file with the demo's data."""
    return f"sqlite:///{shutil.copy(_prepared_sqlite, tmp_path / 'site.sqlite3')}"


@pytest.fixture(scope="session")
def _prepared_postgres() -> Iterator[str]:
    with fresh_postgres() as url:
        manage("demo", env=site_env(database_url=url))
        yield url


@pytest.fixture
def demo_postgres_url(_prepared_postgres: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with the demo's data."""
    with fresh_postgres(template=_prepared_postgres) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, with the back/forward cache that people have and Playwright takes away.

    One for each module, and not for the session: while Playwright's synchronous interface is in use, asyncio takes
    its loop for running, so a module with browsers can't have asynchronous tests, and those after it must.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=CHROMIUM_OPTIONS,
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield browser
        browser.close()


@pytest.fixture
def window(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return `window(url, **context_options)`: a page of its own, as of another person, with nothing shared.

    An exception that no script of the page handled fails the test at its end.
    """
    contexts: list[BrowserContext] = []
    errors: list[Error] = []

    def open_window(url: str, **options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(PAGE_LIMIT)
        context.on("weberror", lambda web_error: errors.append(web_error.error))
        contexts.append(context)
        page = context.new_page()
        page.goto(url)
        return page

    yield open_window
    for context in contexts:
        context.close()
    assert not errors, errors


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """The directory for pictures to look at: LIVEFEED_TEST_SCREENSHOTS, else the test's own."""
    directory = Path(os.environ.get("LIVEFEED_TEST_SCREENSHOTS", tmp_path / "screenshots"))
    directory.mkdir(parents=True, exist_ok=True)
    return directory
