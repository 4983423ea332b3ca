"""Every state of a connection and every way into it, on the staged site, with the shipped file, in every engine."""

from __future__ import annotations

import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.engines import Engine, Tab, in_every_engine
from tests.e2e.staged_page import document, feed, item, keys, until, wait_for_keys
from tests.e2e.staged_site import DROPPED, LOGIN_REDIRECT, NO_CONTENT, WRONG_TYPE, Answer, Site, retry_after
from tests.e2e.staged_stream import block, created, cursor
from tests.e2e.wire import Wire

pytestmark = in_every_engine()
pytest_plugins = ["tests.e2e.engine_fixtures", "tests.e2e.staged_fixtures"]

FEED = "document.querySelector('live-feed')"
AFTER = cursor(1)


def is_in(page: Tab, state: str) -> None:
    until(page, f"{FEED}.getAttribute('state') === argument", state)


def told(page: Tab, name: str = "feed") -> list[dict[str, Any]]:
    """Return what `livefeed:state` has told of an element so far."""
    found: list[dict[str, Any]] = page.evaluate("name => seen.filter(e => e.name === 'state' && e.feed === name)", name)
    return found


def page_of(*, share: str = "auto", viewer: str = "alice", after: str = AFTER) -> str:
    attributes = f'limit="9" insert="prepend" share="{share}"'
    return document(feed(item(1, "one"), cursor=after, viewer=viewer, attributes=attributes))


# What answers a request for a stream: the state that follows, the reason, and the wait that was named (seconds).
ANSWERS: dict[str, tuple[Answer | int, str, str, float | None]] = {
    "no-content": (NO_CONTENT, "closed", "http-204", None),
    "bad-request": (400, "failed", "http-400", None),
    "unauthorized": (401, "denied", "http-401", None),
    "forbidden": (403, "denied", "http-403", None),
    "not-found": (404, "denied", "http-404", None),
    "gone": (410, "failed", "http-410", None),
    "another-type": (WRONG_TYPE, "failed", "type", None),
    "login-page": (LOGIN_REDIRECT, "denied", "login", None),
    "too-many": (retry_after(429, "30"), "limited", "http-429", 30),
    "error": (500, "waiting", "http-500", None),
    "bad-gateway": (502, "waiting", "http-502", None),
    "unavailable": (retry_after(503, formatdate(time.time() + 3600, usegmt=True)), "waiting", "http-503", 3600),
    "hung-up": (DROPPED, "waiting", "network", None),
}


def case_of(handler: BaseHTTPRequestHandler) -> str:
    return parse_qs(urlsplit(handler.path).query)["case"][0]


def test_every_answer_leads_to_its_state(site: Site, engine: Engine) -> None:
    asked: Counter[str] = Counter()

    def refuse(handler: BaseHTTPRequestHandler) -> Answer | int | None:
        asked[case_of(handler)] += 1
        return ANSWERS[case_of(handler)][0]

    site.refuse = refuse
    site.pages["/"] = document(
        "".join(
            feed(name=name, src=f"/livefeed/?case={name}", cursor=AFTER, attributes='share="none"') for name in ANSWERS
        )
    )
    page = engine.tab(site.url)
    for name, (_, state, reason, wait) in ANSWERS.items():
        until(page, "document.getElementById(argument[0]).getAttribute('state') === argument[1]", [name, state])
        change = next(change for change in told(page, name) if change["state"] == state)
        assert change["reason"] == reason
        if wait is not None:
            # The date was written when this module was loaded: by now it may be a good deal nearer.
            assert wait * 500 <= change["retryIn"] <= (wait + 1) * 1000
        elif state == "waiting":
            assert 0 < change["retryIn"] <= 3000
    until_asked_again = [name for name, case in ANSWERS.items() if case[1] == "waiting" and case[3] is None]
    for name in until_asked_again:
        until(page, "seen.filter(e => e.feed === argument && e.attempt > 1).length > 0", name)
    assert {name for name, times in asked.items() if times == 1} == set(ANSWERS) - set(until_asked_again)

    site.refuse = lambda handler: None
    site.automatic = site.crowded = True
    for name in ("forbidden", "another-type", "too-many"):
        page.evaluate("name => document.getElementById(name).reconnect()", name)
        until(page, "document.getElementById(argument).getAttribute('state') === 'open'", name)
    assert page.evaluate("violations") == []


@pytest.mark.parametrize("share", ["auto", "none"])
def test_the_way_of_a_connection_through_its_states(site: Site, engine: Engine, share: str) -> None:
    site.pages["/"] = page_of(share=share)
    page = engine.tab(site.url)
    first = site.stream()
    is_in(page, "connecting")
    first.open()
    is_in(page, "open")

    first.end()
    is_in(page, "waiting")
    waiting = told(page)[-1]
    assert waiting["reason"] == "end"
    assert 0 < waiting["retryIn"] <= 500
    assert abs(waiting["at"] - page.evaluate("Date.now()")) < 5000
    second = site.stream(2).open(head=cursor(3))
    is_in(page, "catching-up")
    second.send(created(2, "two", cursor(2)))
    wait_for_keys(page, [2, 1])
    is_in(page, "catching-up")
    second.send(created(3, "three", cursor(3)))
    is_in(page, "open")
    wait_for_keys(page, [3, 2, 1])

    second.send(block("livefeed-closing", {"reason": "shutdown"})).end()
    until(page, "seen.at(-1).reason === 'shutdown' || seen.at(-2).reason === 'shutdown'")
    refused = {"reason": "limit", "of": "user", "limit": 3, "retry": 600}
    site.stream(3).send("retry: 600\n" + block("livefeed-refused", refused)).end()
    is_in(page, "limited")
    (limit,) = page.evaluate("seen.filter(e => e.name === 'limit')")
    assert limit["limit"] == 3
    assert 600 <= limit["retryIn"] <= 1600
    fourth = site.stream(4).open()
    assert fourth.cursor == cursor(3)
    is_in(page, "open")

    page.evaluate(f"{FEED}.pause()")
    is_in(page, "paused")
    assert fourth.ended.wait(20)
    page.evaluate(f"{FEED}.resume()")
    fifth = site.stream(5).open()
    assert fifth.cursor == cursor(3)
    is_in(page, "open")
    fifth.send(created(4, "four", cursor(4)))
    wait_for_keys(page, [4, 3, 2, 1])
    site.answers = [NO_CONTENT]
    fifth.end()
    is_in(page, "closed")
    assert page.evaluate("violations") == []


@pytest.mark.parametrize("share", ["auto", "none"])
def test_a_stream_for_somebody_else_is_denied_and_brings_nothing(site: Site, engine: Engine, share: str) -> None:
    site.pages["/"] = page_of(share=share)
    page = engine.tab(site.url)
    first = site.stream().open(viewer="alice")
    is_in(page, "open")
    first.end()
    site.stream(2).open(viewer="bob").send(created(2, "bob's", cursor(2)))  # somebody has signed in meanwhile
    is_in(page, "denied")
    assert told(page)[-1]["reason"] == "viewer"
    assert site.stream(2).ended.wait(20)
    assert keys(page) == ["1"]
    assert page.evaluate("seen.filter(e => e.name === 'message')") == []


@pytest.mark.parametrize("share", ["auto", "none"])
def test_a_refused_token_is_asked_for_again_once(site: Site, engine: Engine, share: str) -> None:
    tokens: list[str | None] = []

    def refuse(handler: BaseHTTPRequestHandler) -> int | None:
        tokens.append(handler.headers["Authorization"])
        return None if handler.headers["Authorization"] == "Bearer 3" else 401

    site.refuse = refuse
    site.pages["/"] = document("")
    page = engine.tab(site.url)
    page.evaluate("""async () => {
      const { configure } = await import('/static/livefeed.js');
      window.statuses = [];
      configure({ headers: async ({ status }) => {
        statuses.push(status);
        return { Authorization: `Bearer ${statuses.length}` };
      }});
    }""")
    page.evaluate(
        "text => document.body.append(document.createRange().createContextualFragment(text))",
        feed(cursor=AFTER, viewer="alice", attributes=f'share="{share}"'),
    )
    is_in(page, "denied")
    assert tokens == ["Bearer 1", "Bearer 2"]
    assert page.evaluate("statuses") == [None, 401]
    page.evaluate(f"{FEED}.reconnect()")
    site.stream().open()
    is_in(page, "open")
    assert page.evaluate("statuses") == [None, 401, None]


@pytest.mark.parametrize("share", ["auto", "none"])
def test_a_connection_that_dies_without_a_word_is_noticed(site: Site, engine: Engine, share: str) -> None:
    site.pages["/"] = page_of(share=share)
    with Wire(site.server_port) as wire:
        page = engine.tab(wire.url)
        site.stream().open(keepalive=0.3)
        is_in(page, "open")
        wire.lose()
        site.stream().send(created(2, "two", cursor(2)))  # into the hole
        second = site.stream(2).open()
        assert second.cursor == AFTER
        second.send(created(2, "two", cursor(2)))
        wait_for_keys(page, [2, 1])
        assert "timeout" in [change["reason"] for change in told(page)]
        wire.cut()


@pytest.mark.parametrize("share", ["auto", "none"])
def test_the_browsers_own_event_source_brings_the_same(site: Site, engine: Engine, share: str) -> None:
    attributes = f'limit="9" insert="prepend" transport="native" share="{share}"'
    site.pages["/"] = document(feed(item(1, "one"), cursor=AFTER, viewer="alice", attributes=attributes))
    page = engine.tab(site.url)
    first = site.stream().open()
    assert "since=" in first.path
    is_in(page, "open")
    first.send(created(2, "two", cursor(2)) + block("updated", {"pk": 1, "title": "ONE"}, cursor(3)))
    wait_for_keys(page, [2, 1])
    site.answers = [503]  # which an EventSource doesn't survive
    first.end()
    second = site.stream(2).open(head=cursor(4))
    assert second.cursor == cursor(3)
    is_in(page, "catching-up")
    second.send(created(4, "four", cursor(4)))
    is_in(page, "open")
    wait_for_keys(page, [4, 2, 1])
    assert [change["reason"] for change in told(page) if change["state"] == "waiting"] == ["network", "network"]


def test_a_lost_network_is_waited_for_and_its_return_cuts_the_wait_short(site: Site, engine: Engine) -> None:
    site.pages["/"] = page_of(share="none")
    with Wire(site.server_port) as wire:
        page = engine.tab(wire.url)
        site.stream().open().send("retry: 60000\n\n")
        is_in(page, "open")
        wire.cut()
        is_in(page, "waiting")
        assert told(page)[-1]["retryIn"] >= 30_000
        wire.mend()
        page.evaluate("dispatchEvent(new Event('online'))")
        site.stream(2).open()
        is_in(page, "open")


# Ten seconds of the page take one: by its clock and its timers, but for those by which WebKit's driver limits a script.
FAST = """const { now } = Date, real = setTimeout, start = now();
Date.now = () => start + (now() - start) * 10;
window.setTimeout = (callback, delay, ...rest) => real(callback, delay > 20000 ? delay : delay / 10, ...rest);"""


@pytest.mark.parametrize("held", ["headers", "body"])
def test_where_a_proxy_holds_the_stream_back_pages_are_read_until_it_does_not(
    site: Site, engine: Engine, held: Literal["headers", "body"]
) -> None:
    site.held = held
    site.automatic = site.crowded = True
    event = {"topic": "news.article", "seq": 2, "type": "created", "data": {"pk": 2, "title": "two", "url": "/a/2"}}
    site.json_pages = [{"events": [event], "cursor": cursor(2), "more": False}]
    site.endpoints = {"/fast.js": lambda handler: handler.answer(Answer(200, "text/javascript", FAST))}
    body = feed(item(1, "one"), cursor=AFTER, attributes='share="none"')
    site.pages["/"] = document(body, head='<script src="/fast.js"></script>')
    page = engine.tab(site.url)
    is_in(page, "polling")
    assert told(page)[-1]["reason"] == "held"
    wait_for_keys(page, [2, 1])
    assert site.json_requests[0] == AFTER
    event = event | {"seq": 3, "data": {"pk": 3, "title": "three"}}
    site.json_pages = [{"events": [event], "cursor": cursor(3), "more": False}]
    wait_for_keys(page, [3, 2, 1])

    site.held = ""
    is_in(page, "open")
    assert site.streams[-1].cursor == cursor(3)
    site.streams[-1].send(created(4, "four", cursor(4)))
    wait_for_keys(page, [4, 3, 2, 1])
    assert page.evaluate("seen.filter(e => e.name === 'message').map(e => e.data.pk)") == [2, 3, 4]
