"""A staged site for each test, and pages on it whose policy has stopped nothing in the end.

A plugin of its own: ``pytest_plugins = ["tests.e2e.staged_fixtures"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.staged_page import document, until
from tests.e2e.staged_site import Site, staged_site

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Window = Callable[..., Page]


@pytest.fixture
def site() -> Iterator[Site]:
    with staged_site() as site:
        yield site


@pytest.fixture
def live(site: Site, window: Window) -> Iterator[Callable[..., Page]]:
    """Return `live(body)`: a page with this body whose stream is open. In the end the policy has stopped nothing."""
    pages: list[Page] = []

    def open_page(body: str, **options: str) -> Page:
        site.pages["/"] = document(body, **options)
        page = window(site.url)
        pages.append(page)
        site.stream().open()
        until(page, "document.querySelector('live-feed').state === 'open'")
        return page

    yield open_page
    for page in pages:
        assert page.evaluate("violations") == []
