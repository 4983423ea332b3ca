"""The examples of docs/javascript.md as they stand there, in Chromium, on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.servers import Server, site_env
from tests.e2e.watched import Watcher
from tests.processes import ROOT
from tests.test_docs import blocks

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Window = Callable[..., Page]

pytestmark = pytest.mark.browser

LIMIT = 30_000  # milliseconds
SOURCE, CONNECT, TOKEN, PARSER = (text for _, text in blocks(ROOT / "docs" / "javascript.md", "html"))


@pytest.fixture(scope="module")
def site(_prepared_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = site_env(database_url=f"sqlite:///{_prepared_sqlite}")
    directory = tmp_path_factory.mktemp("javascript")
    with Server("uvicorn", directory, env=env, application="tests.e2e.refused_site:application") as site:
        yield site
        assert site.trouble() == []


def serve(page: Page, url: str, answer: Callable[[], str]) -> None:
    """Answer this URL in the server's place."""
    page.route(url, lambda route: route.fulfill(body=answer(), content_type="text/html"))


@pytest.fixture
def show(site: Server, window: Window) -> Callable[..., Page]:
    """Return `show(body, token)`: a page of the site with this body; `token()` is what is under /token/."""

    def show(body: str, token: Callable[[], str] = str) -> Page:
        page = window("about:blank")
        text = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Test</title><body>{body}</body></html>'
        serve(page, f"{site.url}/page/", lambda: text)
        serve(page, f"{site.url}/token/", token)
        page.goto(f"{site.url}/page/")
        return page

    return show


def publish(site: Server, title: str) -> None:
    Watcher(site, site.url).publish("news.article", {"pk": 1, "title": title}, "created")


SHOWS = "([where, text]) => document.querySelector(where).innerText.includes(text)"


def until(page: Page, text: str, where: str = "body") -> None:
    page.wait_for_function(SHOWS, arg=[where, text], timeout=LIMIT)


def test_a_live_event_source_shows_its_state_and_its_events(site: Server, show: Callable[..., Page]) -> None:
    page = show(SOURCE)
    until(page, "open", "#status")
    publish(site, "<b>One</b>")
    until(page, "<b>One</b>", "#news")


def test_a_connection_is_paused_goes_on_and_begins_where_the_page_was(site: Server, show: Callable[..., Page]) -> None:
    page = show(CONNECT)
    until(page, "open (open)", "#status")
    publish(site, "One")
    until(page, 'created: {"pk":1,"title":"One"}', "#news")
    page.get_by_role("button", name="Pause").click()
    until(page, "paused (user)", "#status")
    publish(site, "Two")
    page.get_by_role("button", name="Go on").click()
    until(page, "Two", "#news")
    page.get_by_role("button", name="Pause").click()
    publish(site, "Three")
    page.reload()
    until(page, "Three", "#news")
    assert "Two" not in page.inner_text("#news")


def test_a_token_goes_with_the_request_and_a_new_one_is_got_where_it_does_not_hold(
    site: Server, show: Callable[..., Page]
) -> None:
    watcher = Watcher(site, site.url)
    token = watcher.run("import livefeed; answer = livefeed.create_token(None, ['news.article'], max_age=600)")
    expired = "livefeed_expired"
    page = show(TOKEN, lambda: token if f"Bearer {expired}" in bearers(watcher) else expired)
    page.wait_for_function("document.title === 'Live'", timeout=LIMIT)
    publish(site, "Secret")
    until(page, "Secret", "#news")
    assert bearers(watcher) == [f"Bearer {expired}", f"Bearer {token}"]


def bearers(watcher: Watcher) -> list[str]:
    """Return the tokens that came with requests for streams."""
    return [request["authorization"] for request in watcher.asked() if "authorization" in request]


def test_the_parser_reads_a_response(site: Server, show: Callable[..., Page]) -> None:
    page = show(PARSER)
    until(page, "livefeed-open", "#log")
    publish(site, "One")
    until(page, 'created {"pk":1,"title":"One"}', "#log")
