"""One connection for all tabs of one person: who shares it, who never does, and what becomes of it when tabs die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.engines import Engine, Tab, in_every_engine
from tests.e2e.raw_tabs import RawTabs
from tests.e2e.staged_page import LIMIT, document, feed, until, wait_for_keys
from tests.e2e.staged_site import Site
from tests.e2e.staged_stream import cursor

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest_plugins = ["tests.e2e.engine_fixtures", "tests.e2e.staged_fixtures"]

FEED = "document.querySelector('live-feed')"
TITLES = "seen.filter(e => e.name === 'message').map(e => e.data.title)"


def page_of(viewer: str = "alice", share: str = "auto", after: int = 0) -> str:
    attributes = f'limit="99" insert="prepend" share="{share}"'
    return document(feed(cursor=cursor(after), viewer=viewer, attributes=attributes))


def is_open(tab: Tab) -> None:
    until(tab, f"{FEED}.getAttribute('state') === 'open'")


def has(tab: Tab, titles: list[str]) -> None:
    """Wait until the tab has been told these, each once and in this order, and nothing else."""
    until(tab, f"{TITLES}.length >= argument", len(titles))
    assert tab.evaluate(TITLES) == titles


@pytest.fixture
def raw_tabs(browser: Browser) -> Iterator[RawTabs]:
    tabs = RawTabs(browser)
    yield tabs
    tabs.close()


@in_every_engine()
def test_two_users_of_one_browser_never_share_nor_do_pages_for_nobody(site: Site, engine: Engine) -> None:
    site.automatic = site.crowded = True
    rendered_for = {"/alice": "alice", "/bob": "bob", "/nobody": ""}
    site.pages = {path: page_of(viewer) for path, viewer in rendered_for.items()}

    tabs: dict[str, list[Tab]] = {path: [] for path in rendered_for}
    for path, number in {"/alice": 1, "/bob": 2, "/nobody": 4}.items():
        for _ in range(2):
            tabs[path].append(engine.tab(site.url + path))
            is_open(tabs[path][-1])
        assert len(site.streams) == number
    for stream, title in zip(site.streams, ["alice's", "bob's", "first's", "second's"], strict=True):
        stream.send(f'id: {cursor(1)}\nevent: created\ndata: {{"pk": 1, "title": "{title}"}}\n\n')
    for path, titles in {"/alice": ["alice's"] * 2, "/bob": ["bob's"] * 2, "/nobody": ["first's", "second's"]}.items():
        for page, title in zip(tabs[path], titles, strict=True):
            has(page, [title])


@in_every_engine()
def test_one_attribute_turns_sharing_off(site: Site, engine: Engine) -> None:
    site.automatic = site.crowded = True
    site.pages["/"] = page_of(share="none")
    tabs = [engine.tab(site.url), engine.tab(site.url)]
    for page in tabs:
        is_open(page)
    assert len({stream.client for stream in site.open_streams}) == 2


@pytest.mark.browser
def test_a_tab_that_opened_the_connection_and_crashes_costs_the_others_nothing(site: Site, raw_tabs: RawTabs) -> None:
    site.automatic = True
    site.pages["/"] = page_of()
    opener = raw_tabs.tab(site.url)
    is_open(opener)
    others = [raw_tabs.tab(site.url), raw_tabs.tab(site.url)]
    for tab in others:
        is_open(tab)
    assert site.asked == 1
    site.publish("before")
    for tab in others:
        has(tab, ["before"])
    opener.crash()
    site.publish("after")
    for tab in others:
        has(tab, ["before", "after"])
    assert len(site.open_streams) == 1


@pytest.mark.browser
def test_a_tab_that_opened_the_connection_and_freezes_holds_up_nobody_and_catches_up(
    site: Site, raw_tabs: RawTabs
) -> None:
    site.automatic = True
    site.pages["/"] = page_of()
    opener = raw_tabs.tab(site.url)
    is_open(opener)
    other = raw_tabs.tab(site.url)
    is_open(other)
    site.publish("before")
    has(opener, ["before"])
    other.show()
    opener.become("frozen")
    titles = ["before", *(f"number {number}" for number in range(20))]
    for title in titles[1:]:
        site.publish(title)
    has(other, titles)
    opener.become("active")
    opener.show()
    has(opener, titles)
    site.publish("after")
    for tab in (opener, other):
        has(tab, [*titles, "after"])
    assert site.most_open == 1


@in_every_engine()
def test_the_back_forward_cache_gives_a_sharing_page_back_whole(site: Site, engine: Engine) -> None:
    site.automatic = True
    for number in range(3):
        site.pages[f"/{number}"] = page_of()
    page = engine.tab(f"{site.url}/0")
    is_open(page)
    for number in (1, 2):
        page.goto(f"{site.url}/{number}")
        is_open(page)
    site.publish("while away")
    has(page, ["while away"])
    for path in ("/1", "/0"):
        page.go_back(wait_until="commit")
        until(page, f"location.pathname === '{path}' && 'restored' in window")
        is_open(page)
        has(page, ["while away"])
        assert page.evaluate("restored") or engine.name != "chromium"
    assert site.most_open == 1


@in_every_engine()
def test_the_connection_ends_soon_after_the_last_tab_and_not_before(site: Site, engine: Engine) -> None:
    site.automatic = True
    site.pages = {"/": page_of(), "/late": page_of(after=1)}
    page = engine.tab(site.url)
    is_open(page)
    other = engine.tab(site.url)
    is_open(other)
    page.close()
    site.publish("one is left")
    wait_for_keys(other, [1])
    other.close()
    late = engine.tab(f"{site.url}/late")  # within the seconds that the connection waits
    is_open(late)
    if engine.name == "chromium":  # elsewhere the worker goes with its last tab, and the connection with it
        assert site.asked == 1
    late.close()
    for stream in site.streams:
        assert stream.ended.wait(LIMIT)
    assert site.most_open == 1
