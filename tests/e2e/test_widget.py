"""The `<live-feed>` element in a real browser, against a server that does what the test tells it to, also badly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import pytest

from tests.e2e.staged_page import LIMIT, document, feed, item, keys, until, wait_for_keys
from tests.e2e.staged_site import STRICT, Site, retry_after
from tests.e2e.staged_stream import EPOCH, block, created, cursor

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Window = Callable[..., Page]

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.e2e.staged_fixtures"]

TRUSTED_TYPES = f"{STRICT}; require-trusted-types-for 'script'; trusted-types livefeed"


def test_items_are_created_updated_deleted_and_trimmed_by_key(site: Site, live: Window) -> None:
    page = live(feed(item(3, "three") + item(2, "two") + item(1, "one")))
    assert site.stream().cursor == cursor(0)
    assert site.stream().topics == ["news.article"]
    page.evaluate("window.two = document.querySelector('[data-key=\"2\"]')")

    site.stream().send(created(4, "four", cursor(1)) + created(5, "five", cursor(2)))
    wait_for_keys(page, [5, 4, 3, 2])
    site.stream().send(block("updated", {"pk": 2, "title": "TWO", "url": None}, cursor(3)))
    site.stream().send(
        block("updated", {"pk": 99, "title": "unknown"}, cursor(4)) + block("deleted", {"pk": 4}, cursor(5))
    )
    site.stream().send(created(5, "FIVE", cursor(6)))
    wait_for_keys(page, [5, 3, 2])
    until(page, "document.querySelector('[data-key=\"5\"]').textContent === 'FIVE'")
    assert page.evaluate("two.isConnected && two.innerHTML") == (
        '<a data-attr-href="url"><span data-field="title">TWO</span></a>'
    )
    assert page.locator("[data-key='5'] a").get_attribute("href") == "/a/5"
    assert page.evaluate("document.querySelector('live-feed').cursor") == cursor(6)


def test_append_trims_at_the_beginning_but_not_where_somebody_is(site: Site, live: Window) -> None:
    page = live(feed(item(1, "one") + item(2, "two"), attributes='limit="2" insert="append"'))
    page.focus("[data-key='1'] a")
    site.stream().send(created(3, "three", cursor(1)))
    wait_for_keys(page, [1, 3])
    site.stream().send(created(4, "four", cursor(2)))
    wait_for_keys(page, [1, 4])
    page.evaluate("document.activeElement.blur()")
    site.stream().send(created(5, "five", cursor(3)))
    wait_for_keys(page, [4, 5])


BOUND = """<article data-key="" data-attr-onclick="js" data-attr-style="css" data-attr-id="id" data-attr-class="kind"
  data-attr-data-mood="mood" data-attr-aria-current="now" data-attr-hidden="secret"><a data-attr-href="url"
  data-attr-title="title"><b data-field="title"></b><i data-field="author.name"></i><img data-attr-src="image"
  data-attr-alt="title"><iframe data-attr-srcdoc="title" data-attr-src="url"></iframe></a></article>"""


def test_text_is_text_and_only_listed_attributes_are_set(site: Site, live: Window) -> None:
    page = live(feed(template=BOUND))
    evil = '<img src=x onerror="window.owned=1"><script>window.owned=2</script>'
    shared = {"title": evil, "js": "owned=3", "css": "color:red", "id": "x", "author": {"name": evil}}
    for key, url in enumerate(["javascript:owned=4", " java\nscript:owned=4", "data:text/html,x", "vbscript:x", "x:/"]):
        data = {"pk": key, **shared, "url": url, "image": url, "mood": True, "now": False, "secret": True, "kind": None}
        site.stream().send(block("created", data, f"c{key}"))
    wait_for_keys(page, [4, 3, 2, 1])
    for key in ("4", "3", "2", "1"):
        found = page.locator(f"[data-key='{key}']")
        assert found.locator("b").text_content() == found.locator("i").text_content() == evil
        assert found.locator("a").get_attribute("title") == evil
        names = found.evaluate("e => [e, ...e.querySelectorAll('*')].flatMap(e => e.getAttributeNames())")
        bindings = [name for name in names if not name.startswith("data-")]
        assert sorted(bindings) == ["alt", "aria-current", "hidden", "title"]
        assert found.get_attribute("data-mood") == "true"
        assert found.get_attribute("aria-current") == "false"
    assert page.evaluate("window.owned") is None


@pytest.mark.parametrize("url", ["/a/1", "?page=2", "https://example.org/x", "mailto:a@example.org", "//example.org/"])
def test_a_good_address_is_set_as_it_is(site: Site, live: Window, url: str) -> None:
    page = live(feed())
    site.stream().send(created(1, "one", cursor(1), url=url))
    wait_for_keys(page, [1])
    assert page.locator("[data-key='1'] a").get_attribute("href") == url


TIME = """<li data-key="{0}">
  <time data-attr-datetime="at" data-field="at" data-format="relative" datetime="{1}">{1}</time></li>"""


@pytest.mark.parametrize(
    ("lang", "ago"),
    [("de", ["vor 5 Minuten", "vor 2 Stunden"]), ("en_US", ["5 minutes ago", "2 hours ago"])],
)
def test_how_long_ago_it_was_is_said_in_the_language_of_the_page_and_kept_current(
    site: Site, window: Window, lang: str, ago: list[str]
) -> None:
    now = datetime.now(UTC)
    five, two = ((now - timedelta(**ago)).isoformat() for ago in ({"minutes": 5, "seconds": 9}, {"hours": 2}))
    body = feed(TIME.format(1, five) + TIME.format(2, "no date"), template=TIME.format("", ""))
    site.pages["/"] = document(body, lang=lang)
    page = window("about:blank", locale="en-US")
    page.clock.install(time=now)
    page.goto(site.url)
    site.stream().open()
    until(page, "document.querySelector('[data-key=\"1\"] time').textContent === argument", ago[0])
    assert page.locator("[data-key='2'] time").text_content() == "no date"
    site.stream().send(block("created", {"pk": 3, "at": two}, cursor(1)))
    page.clock.run_for(100)
    wait_for_keys(page, [3, 1, 2])
    assert page.locator("[data-key='3'] time").text_content() == ago[1]
    assert page.locator("[data-key='3'] time").get_attribute("datetime") == two
    page.clock.run_for(60_000)
    until(page, "document.querySelector('[data-key=\"1\"] time').textContent === argument", ago[0].replace("5", "6"))


@pytest.mark.parametrize("policy", [STRICT, TRUSTED_TYPES, f"{STRICT}; connect-src 'self'; style-src 'self'"])
def test_a_strict_policy_finds_nothing_to_stop(site: Site, live: Window, policy: str) -> None:
    site.policy = policy
    site.snapshot = f'<div data-live-snapshot data-cursor="{cursor(7)}">{item(7, "seven")}</div>'
    page = live(feed(item(1, "one")))
    site.stream().send(created(2, "two", cursor(1)))
    wait_for_keys(page, [2, 1])
    site.stream().send(
        block("livefeed-reset", {"topic": "news.article", "reason": "epoch", "cursor": cursor(6)}, cursor(6))
    )
    wait_for_keys(page, [7])


def test_a_page_in_the_back_forward_cache_holds_no_stream(site: Site, window: Window) -> None:
    site.automatic = True
    for number in range(9):
        site.pages[f"/{number}"] = document(feed(item(number, str(number)), cursor=cursor(number)))
    page = window(f"{site.url}/0")
    for number in range(1, 9):
        page.goto(f"{site.url}/{number}", timeout=LIMIT * 1000)
        until(page, "document.querySelector('live-feed').state === 'open'")
    assert site.most_open == 1

    client = site.streams[-1].client
    site.streams[-1].send(created(10, "ten", cursor(100)))
    wait_for_keys(page, [10, 8])
    page.evaluate("""() => {
      window.shown = [];
      const line = document.querySelector('[data-live-status]');
      new MutationObserver(() => shown.push(line.textContent)).observe(line, { childList: true, attributes: true });
    }""")
    page.go_back(wait_until="commit")
    until(page, "location.pathname === '/7' && window.restored && document.querySelector('live-feed').state === 'open'")
    page.go_forward(wait_until="commit")
    until(page, "location.pathname === '/8' && window.restored && document.querySelector('live-feed').state === 'open'")
    assert page.evaluate("[loads, shown]") == [2, []]  # nobody saw that it was paused meanwhile
    assert site.streams[-1].cursor == cursor(100)
    assert site.streams[-1].client == client
    site.streams[-1].send(created(11, "eleven", cursor(101)))
    wait_for_keys(page, [11, 10, 8])
    assert site.most_open == 1


@pytest.mark.parametrize("move", ["append", "moveBefore"])
def test_moving_the_element_keeps_the_stream(site: Site, live: Window, move: str) -> None:
    page = live(feed(item(1, "one")) + "<main></main>")
    page.evaluate("move => document.querySelector('main')[move](document.querySelector('live-feed'), null)", move)
    page.evaluate("document.querySelector('main > live-feed').lastChild.remove?.()")
    site.stream().send(created(2, "two", cursor(1)))
    wait_for_keys(page, [2, 1])
    assert len(site.streams) == 1
    assert page.evaluate("seen.filter(e => e.name === 'state').map(e => e.state)") == ["connecting", "open"]


def test_an_element_that_left_closes_and_comes_back_from_where_it_was(site: Site, live: Window) -> None:
    page = live(feed(item(1, "one")))
    site.stream().send(created(2, "two", cursor(5)))
    wait_for_keys(page, [2, 1])
    page.evaluate("(window.away = document.querySelector('live-feed')).remove()")
    assert site.stream().ended.wait(LIMIT)
    page.evaluate("document.body.append(away)")
    assert site.stream(2).cursor == cursor(5)


def test_elements_of_one_page_share_a_connection(site: Site, live: Window) -> None:
    news, chat, sport = ((lambda seq, topic=topic: cursor(seq, topic)) for topic in ("news", "chat", "sport"))
    two = feed(name="a", topic="news~1~x", cursor=news(1)) + feed(name="b", topic="chat~1~y", cursor=chat(1))
    page = live(two)
    assert site.stream().topics == ["news~1~x", "chat~1~y"]
    assert site.stream().cursor == f"{news(1)}.{chat(1)}"
    site.stream().send(created(1, "n", f"{news(2)}.{chat(1)}", "news"))
    site.stream().send(created(2, "h", f"{news(2)}.{chat(2)}", "chat"))
    wait_for_keys(page, [1], "a")
    wait_for_keys(page, [2], "b")

    page.evaluate(
        "text => document.body.append(document.createRange().createContextualFragment(text))",
        feed(name="c", topic="sport", cursor=sport(1)),
    )
    second = site.stream(2).open()
    assert second.topics == ["news~1~x", "chat~1~y", "sport"]
    assert second.cursor == f"{news(2)}.{chat(2)}.{sport(1)}"
    assert second.client == site.stream(1).client
    second.send(created(3, "s", f"{news(2)}.{chat(2)}.{sport(2)}", "sport"))
    wait_for_keys(page, [3], "c")

    page.evaluate("for (const name of ['a', 'c']) document.getElementById(name).remove()")
    third = site.stream(3).open()
    assert third.topics == ["chat~1~y"]
    third.send(created(4, "alone: no topic said", chat(3)))
    wait_for_keys(page, [4, 2], "b")
    assert site.most_open == 1
    assert page.evaluate("seen.filter(e => e.name === 'message').map(e => [e.id, e.topic, e.data.pk])") == [
        [news(2), "news", 1],
        [chat(2), "chat", 2],
        [sport(2), "sport", 3],
        [chat(3), "chat", 4],
    ]


def test_a_refused_topic_is_denied_and_the_others_live(site: Site, window: Window) -> None:
    site.pages["/"] = document(feed(name="a", topic="open") + feed(name="b", topic="secret~1~old"))
    page = window(site.url)
    site.stream().open(topics=["open"], refused=["secret~1~old"])
    until(page, "a.state === 'open' && b.state === 'denied'")
    site.stream().send(created(1, "one granted topic, so none is said", cursor(1, "open")))
    wait_for_keys(page, [1], "a")
    assert keys(page, "b") == []


def joins(page: Page, seq: int, epoch: str) -> None:
    """Let another element come to the page, with a cursor of its own."""
    text = feed(item(2, "two"), name="b", cursor=cursor(seq, epoch=epoch))
    page.evaluate("text => document.body.append(document.createRange().createContextualFragment(text))", text)


def test_who_joins_from_further_back_gets_what_it_lacks_and_nobody_gets_it_twice(site: Site, live: Window) -> None:
    page = live(feed(item(1, "one"), name="a", cursor=cursor(5)))
    site.stream().send(created(6, "six", cursor(6)))
    wait_for_keys(page, [6, 1], "a")
    joins(page, 4, EPOCH)
    second = site.stream(2)
    assert second.cursor == cursor(4)
    second.open()
    for seq in (5, 6, 7, 8):
        second.send(created(seq, str(seq), cursor(seq)))
    wait_for_keys(page, [8, 7, 6, 5], "b")
    wait_for_keys(page, [8, 7, 6, 1], "a")
    got = page.evaluate("seen.filter(e => e.name === 'message').map(e => e.feed + e.data.pk)")
    assert got == ["a6", "b5", "b6", "a7", "b7", "a8", "b8"]


def test_who_joins_with_a_cursor_of_another_epoch_reloads_instead_of_guessing(site: Site, live: Window) -> None:
    site.snapshot = f'<div data-live-snapshot data-cursor="{cursor(6)}">{item(9, "nine")}</div>'
    page = live(feed(item(1, "one"), name="a", cursor=cursor(5)))
    joins(page, 5, "before")
    wait_for_keys(page, [9], "b")
    assert keys(page, "a") == ["1"]
    assert len(site.streams) == 1


RESET = block("livefeed-reset", {"topic": "news.article", "reason": "trimmed", "cursor": cursor(50)}, cursor(50))


def test_a_reset_reloads_without_doubles_losses_or_flicker(site: Site, live: Window) -> None:
    hostile = "<script>window.owned = 1</script>"
    page = live(feed(item(3, "three") + item(2, "two") + item(1, "one")))
    site.stream().send(created(4, "four", cursor(1)))
    wait_for_keys(page, [4, 3, 2, 1])
    page.evaluate("""() => {
      window.kept = [...document.querySelectorAll('[data-key="4"], [data-key="2"]')];
      window.removals = 0;
      new MutationObserver((records) => records.forEach((r) => window.removals += r.removedNodes.length))
        .observe(document.querySelector('[data-live-list]'), { childList: true });
    }""")

    site.snapshot_may_leave.clear()
    fresh = item(6, "six") + item(4, "four") + item(3, "THREE") + item(2, "two") + hostile
    site.snapshot = f'<div data-live-snapshot data-cursor="{cursor(51)}">{fresh}</div>'
    site.stream().send(RESET)
    site.wait_until(lambda: bool(site.snapshot_requests), "a request for the snapshot")
    assert site.snapshot_requests[0].path == "/livefeed/?show=items&limit=4&insert=prepend&topic=news.article"
    # 6 is in the snapshot, 7 is not yet
    site.stream().send(created(6, "six", cursor(51)) + created(7, "seven", cursor(52)))
    wait_for_keys(page, [7, 6, 4, 3])  # live also while it waits
    site.snapshot_may_leave.set()

    until(page, "document.querySelector('[data-key=\"3\"]')?.textContent === 'THREE'")
    assert keys(page) == ["7", "6", "4", "3"]
    assert page.evaluate("kept.map((e) => e.isConnected)") == [True, False]
    assert page.evaluate("document.querySelector('live-feed').getAttribute('cursor')") == cursor(51)
    assert page.evaluate("seen.filter(e => e.name === 'message').map(e => e.data.pk)") == [4, 6, 7]
    assert page.evaluate("seen.filter(e => e.name === 'gap')") == [
        {"name": "gap", "feed": "feed", "topic": "news.article", "reason": "trimmed", "cursor": cursor(50)}
    ]
    assert page.evaluate("window.owned") is None
    assert len(site.streams) == 1
    site.stream().send(created(8, "eight", cursor(53)))
    wait_for_keys(page, [8, 7, 6, 4])


def test_a_snapshot_that_changes_nothing_touches_nothing(site: Site, live: Window) -> None:
    items = item(2, "two") + item(1, "one")
    page = live(feed(items))
    page.evaluate("""() => {
      window.records = [];
      new MutationObserver((list) => records.push(...list.map((r) => r.type)))
        .observe(document.querySelector('[data-live-list]'), { childList: true, subtree: true, characterData: true });
    }""")
    page.focus("[data-key='1'] a")
    site.snapshot = f'<div data-live-snapshot data-cursor="{cursor(60)}">{items}</div>'
    site.stream().send(RESET)
    until(page, "document.querySelector('live-feed').getAttribute('cursor') === argument", cursor(60))
    assert page.evaluate("records") == []
    assert page.evaluate("document.activeElement.textContent") == "one"


def test_a_snapshot_that_fails_is_asked_for_again(site: Site, live: Window) -> None:
    page = live(feed(item(1, "one")))
    failures = [500]
    site.refuse = lambda handler: failures.pop() if failures and handler.headers["Accept"] == "text/html" else None
    site.snapshot = f'<template data-live-snapshot data-cursor="{cursor(60)}">{item(2, "two")}</template>'
    site.stream().send(RESET)
    wait_for_keys(page, [2])


def test_configure_sends_authorization_and_gets_a_fresh_token(site: Site, window: Window) -> None:
    def refuse(handler: BaseHTTPRequestHandler) -> int | None:
        return None if handler.headers["Authorization"] == "Bearer 2" else 401

    site.refuse = refuse
    site.snapshot = f'<div data-live-snapshot data-cursor="{cursor(9)}">{item(9, "nine")}</div>'
    site.pages["/"] = document(feed(item(1, "one")))
    page = window(site.url)
    until(page, "document.querySelector('live-feed').state === 'denied'")
    page.evaluate("""async () => {
      const { configure } = await import('/static/livefeed.js');
      let fresh = 1;
      configure({ headers: async ({ status }) => ({ Authorization: `Bearer ${status ? ++fresh : fresh}` }) });
    }""")
    assert site.stream().headers["Authorization"] == "Bearer 2"
    site.stream().open().send(RESET)
    wait_for_keys(page, [9])
    assert page.evaluate("violations") == []


# Notes what a line says, and what assistive technology is told.
LISTEN = """() => {
  window.texts = [];
  window.said = [];
  const note = (where, list) => new MutationObserver(() => where.textContent && list.push(where.textContent))
    .observe(where, { childList: true });
  note(document.querySelector('[data-live-status]'), texts);
  note(document.querySelector('body > [role=status]'), said);
}"""


def test_the_state_is_shown_when_it_lasts_and_said_when_it_lasts_longer(site: Site, live: Window) -> None:
    page = live(feed())
    status = page.locator("[data-live-status]")
    until(page, "document.querySelector('[data-live-status]').textContent === 'Live'")
    assert status.is_visible()
    page.evaluate(LISTEN)
    site.stream().end()  # a blip: retry is half a second
    site.stream(2).open()
    until(page, "document.querySelector('live-feed').state === 'open'")
    assert page.evaluate("[texts, said]") == [[], []]

    site.answers = [retry_after(503, "7")]
    site.streams[-1].end()
    until(page, "document.querySelector('live-feed[state=waiting]')")
    until(page, "texts.at(-1) === 'Trying again'")
    assert page.evaluate("said") == []
    until(page, "said.join() === 'Trying again'")
    site.stream(3).open()
    until(page, "said.length === 2")
    assert page.evaluate("[texts.at(-1), said.at(-1)]") == ["Live", "Live"]

    site.answers = [404]
    site.streams[-1].end()
    until(page, "document.querySelector('live-feed[state=denied]')")
    until(page, "texts.at(-1) === 'Stopped'")
    assert page.locator("[data-live-pause]").text_content() == "Resume"
    page.click("[data-live-pause]")
    site.stream(4).open()
    until(page, "document.querySelector('live-feed').state === 'open'")
    assert page.locator("[data-live-pause]").text_content() == "Pause"


def test_being_refused_is_told_with_the_limit(site: Site, window: Window) -> None:
    site.pages["/"] = document(feed())
    page = window(site.url)
    site.stream().send("retry: 20000\n" + block("livefeed-refused", {"reason": "limit", "limit": 3, "retry": 20000}))
    until(page, "document.querySelector('live-feed[state=limited]')")
    (told,) = page.evaluate("seen.filter(e => e.name === 'limit')")
    assert told["limit"] == 3
    assert 20_000 <= told["retryIn"] <= 21_000
    assert "open" not in page.evaluate("seen.map(e => e.state)")


def test_another_topic_is_loaded_and_followed(site: Site, live: Window) -> None:
    page = live(feed(item(1, "one")))
    site.snapshot = f'<div data-live-snapshot data-cursor="{cursor(4, "sport")}">{item(40, "forty")}</div>'
    page.evaluate("document.querySelector('live-feed').setAttribute('topic', 'sport')")
    second = site.stream(2)
    assert (second.topics, second.cursor, site.snapshot_requests) == (["sport"], "", [])
    second.open()  # only now, so that nothing is missed between the snapshot and the stream
    wait_for_keys(page, [40])
    second.send(created(41, "one more", cursor(5, "sport")))
    wait_for_keys(page, [41, 40])
    assert site.most_open == 1


def test_a_page_may_render_by_itself_and_reads_messages(site: Site, live: Window) -> None:
    page = live(feed(item(1, "one")))
    page.evaluate("""() => {
      window.plain = [];
      const feed = document.querySelector('live-feed');
      feed.addEventListener('message', (e) => plain.push([e.data, e.lastEventId, e.bubbles]));
      feed.addEventListener('livefeed:message', (e) => e.detail.data.pk === 2 && e.preventDefault());
    }""")
    site.stream().send(
        created(2, "two", cursor(1)) + f"id: {cursor(2)}\ndata: <turbo-stream>\n\n" + created(3, "three", cursor(3))
    )
    wait_for_keys(page, [3, 1])
    assert page.evaluate("plain") == [["<turbo-stream>", cursor(2), False]]
    assert page.evaluate("seen.filter(e => e.name === 'message').map(e => e.data.pk ?? e.data)") == [
        2,
        "<turbo-stream>",
        3,
    ]


def test_pause_closes_and_resume_goes_on(site: Site, live: Window) -> None:
    page = live(feed(item(1, "one")))
    site.stream().send(created(2, "two", cursor(5)))
    wait_for_keys(page, [2, 1])
    page.click("[data-live-pause]")
    assert site.stream().ended.wait(LIMIT)
    assert page.locator("live-feed").get_attribute("state") == "paused"
    assert page.locator("[data-live-pause]").text_content() == "Resume"
    page.evaluate("document.querySelector('live-feed').resume()")
    assert site.stream(2).cursor == cursor(5)


def test_a_batch_is_marked_as_busy(site: Site, live: Window) -> None:
    page = live(feed())
    page.evaluate("""() => {
      window.busy = [];
      const list = document.querySelector('[data-live-list]');
      new MutationObserver(() => busy.push(list.getAttribute('aria-busy')))
        .observe(list, { attributes: true, attributeFilter: ['aria-busy'] });
    }""")
    site.stream().send(created(1, "one", cursor(1)))
    wait_for_keys(page, [1])
    assert page.evaluate("busy") == []
    site.stream().send(created(2, "two", cursor(2)) + created(3, "three", cursor(3)))
    until(page, "busy.join() === 'true,'")
