"""Content security policies, Trusted Types and static files on another origin: what each allows, and what is left then.

Two tabs of one person share a connection where a policy lets a worker run, and have one each where it does not. Nothing
else is lost, and what a policy stops is what the page's author forbade: the worker, and nothing besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.e2e.staged_page import document, feed, item, until, wait_for_keys
from tests.e2e.staged_site import STRICT, Site, staged_site
from tests.e2e.staged_stream import TOPIC, block, cursor

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.e2e.engines import Tab

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.e2e.staged_fixtures"]

FEED = "document.querySelector('live-feed')"
BARE = "default-src 'none'; connect-src 'self'; style-src 'self'; img-src 'self'"
ENFORCED = "require-trusted-types-for 'script'"


class Case(NamedTuple):
    policy: str
    streams: int = 1
    stopped: set[str] = set()


CASES = {
    "self": Case(STRICT),
    "scripts of one's own and nothing else": Case(f"{BARE}; script-src 'self'"),
    "nonce and strict-dynamic": Case(f"{BARE}; script-src 'nonce-abc' 'strict-dynamic'"),
    "nonce and self, as Django 6 writes it": Case("default-src 'self'; script-src 'self' 'nonce-abc'"),
    "nonce, and workers of one's own": Case(f"{BARE}; script-src 'nonce-abc'; worker-src 'self'"),
    "nonce alone": Case(f"{BARE}; script-src 'nonce-abc'", 2, {"worker-src"}),
    "no workers": Case(f"{STRICT}; worker-src 'none'", 2, {"worker-src"}),
    "trusted types": Case(f"{STRICT}; {ENFORCED}; trusted-types livefeed"),
    "trusted types, none allowed": Case(f"{STRICT}; {ENFORCED}; trusted-types 'none'", 2, {"trusted-types"}),
}


@pytest.fixture
def person(browser: Browser, site: Site) -> Iterator[Callable[[], Page]]:
    """Return `open()`: one more tab of the same person."""
    context = browser.new_context()

    def open_tab() -> Page:
        page = context.new_page()
        page.goto(site.url)
        return page

    yield open_tab
    context.close()


def is_open(tab: Tab) -> None:
    until(tab, f"{FEED}.getAttribute('state') === 'open'")


def two_tabs_live(site: Site, person: Callable[[], Page], *, streams: int) -> list[Page]:
    """Open two tabs, let an event come and see that both have it over so many streams."""
    site.automatic = site.crowded = True
    tabs = [person(), person()]
    for tab in tabs:
        is_open(tab)
    assert len(site.open_streams) == streams
    site.publish("one")
    for tab in tabs:
        wait_for_keys(tab, [1])
    return tabs


@pytest.mark.parametrize("name", CASES)
def test_two_tabs_live_under_a_policy(site: Site, person: Callable[[], Page], name: str) -> None:
    policy, streams, stopped = CASES[name]
    site.policy = policy
    site.pages["/"] = document(feed(cursor=cursor(0), viewer="alice"), nonce="abc")
    for tab in two_tabs_live(site, person, streams=streams):
        assert {violation.split()[0] for violation in tab.evaluate("violations")} == stopped


def test_a_snapshot_passes_where_trusted_types_are_enforced(site: Site, person: Callable[[], Page]) -> None:
    site.policy = CASES["trusted types"].policy
    site.pages["/"] = document(feed(item(1, "one"), cursor=cursor(0), viewer="alice"))
    site.snapshot = f'<div data-live-snapshot data-cursor="{cursor(7)}">{item(7, "seven")}</div>'
    page = person()
    site.stream().open()
    is_open(page)
    reset = {"topic": TOPIC, "reason": "trimmed", "cursor": cursor(6)}
    site.stream().send(block("livefeed-reset", reset, cursor(6)))
    wait_for_keys(page, [7])
    assert page.evaluate("violations") == []


@pytest.mark.parametrize(("worker", "streams"), [("/static/livefeed.js", 1), ("", 2)], ids=["worker", "no worker"])
def test_static_files_on_another_origin(site: Site, person: Callable[[], Page], worker: str, streams: int) -> None:
    with staged_site() as static:
        static.static_headers = {"Access-Control-Allow-Origin": site.url}
        own = f"'self' {static.url}"
        site.policy = f"default-src 'self'; script-src {own}; style-src {own}"
        attributes = f'worker="{worker}"' if worker else ""
        body = feed(cursor=cursor(0), viewer="alice", attributes=attributes)
        site.pages["/"] = document(body, static=f"{static.url}/static/")
        for tab in two_tabs_live(site, person, streams=streams):
            assert tab.evaluate("violations") == []
