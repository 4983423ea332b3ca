"""What must hold in every engine that Debian has: Chromium, Firefox and WebKitGTK, each as it is installed.

The full set runs in Chromium; this is the core of it, where engines differ: sockets, workers, caches, policies.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.engines import Engine, Tab, in_every_engine
from tests.e2e.staged_page import LIMIT, document, feed, item, until, wait_for_keys
from tests.e2e.staged_site import STRICT, Answer, Handler, Site
from tests.e2e.staged_stream import block, created, cursor

pytestmark = in_every_engine()
pytest_plugins = ["tests.e2e.engine_fixtures", "tests.e2e.staged_fixtures"]

FEED = "document.querySelector('live-feed')"


# The same bytes through the browser's own EventSource and through ours. Each case is a whole response; at its end the
# browser comes back and is told what it sent as Last-Event-ID, which ours must send too.
SOON = b"retry: 10\n\n"
CASES = {
    "lines-end-in-three-ways": SOON + b"data: a\r\ndata: b\rdata: c\n\r\nid: 1\rdata\r\r",
    "one-byte-order-mark": b"\xef\xbb\xbf" + SOON + b"data: a\n\n",
    "two-byte-order-marks": b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n" + SOON + b"data: b\n\n",
    "other-separators-end-no-line": SOON + "data: a\u2028b\u0085c\x0bd\x0ce\n\n".encode(),
    "one-space-is-removed": SOON + b"data:  a\n\ndata:\tb\n\ndata : c\n\ndata:d\n\n",
    "empty-data": SOON + b"data\n\ndata:\n\ndata\ndata\n\nevent: add\n\n",
    "names-are-case-sensitive": SOON + b"Data: a\nDATA: b\ndata: c\n\n",
    "comments-and-unknown-fields": SOON + b": hello\n:\ntopic: news\nfoo: bar\ndata: a\n:data: b\n\n",
    "types": SOON + b"event: add\ndata: a\n\nevent\ndata: b\n\nevent: add\nevent:\ndata: c\n\ndata: d\n\n",
    "ids-stay": SOON + b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\nid: 2\ndata: d\n\n",
    "an-id-with-nul-is-ignored": SOON + b"id: 1\ndata: a\n\nid: 2\x003\ndata: b\n\nid: 4\ndata: c\n\n",
    "an-id-without-data": SOON + b"id: 1\ndata: a\n\nid: 2\n\n",
    "an-unfinished-block": SOON + b"id: 1\ndata: a\n\nid: 2\ndata: b\n",
    "an-unfinished-line": SOON + b"id: 1\ndata: a\n\nid: 2\ndata: b",
    "bytes-that-are-no-text": SOON + b"data: a\xffb\xc3\xa9c\xe2\x82\n\n",
    "a-character-in-two-chunks": SOON + "data: \U0001f6a2\n\n".encode(),
}

# docs/javascript.md tells of these. The standard is on the parser's side in each.
KNOWN_DIFFERENCES: dict[tuple[str, str], dict[str, Any]] = {
    ("firefox", "an-id-with-nul-is-ignored"): {"events": [["message", "a", "1"], ["message", "c", "4"]]},
    ("firefox", "an-id-without-data"): {"sent": "1"},
    ("webkit", "an-id-without-data"): {"sent": "1"},
}

BOTH = """async (names) => {
  const { EventStreamParser } = await import('/static/livefeed.js');
  const native = (name) => new Promise((resolve) => {
    const events = [];
    const source = new EventSource(`/bytes/${name}`);
    for (const type of ['message', 'add']) {
      source.addEventListener(type, (e) => events.push([e.type, e.data, e.lastEventId]));
    }
    source.addEventListener('sent', (e) => { source.close(); resolve({ events, sent: JSON.parse(e.data) }); });
  });
  const ours = async (name) => {
    const bytes = new Uint8Array(await (await fetch(`/bytes/${name}?whole`)).arrayBuffer());
    const events = [];
    const onEvent = ({ type, data, lastEventId }) => events.push([type, data, lastEventId]);
    const parser = new EventStreamParser({ onEvent });
    for (const byte of bytes) parser.push(new Uint8Array([byte]));
    parser.end();
    return { events, sent: parser.lastEventId || null };
  };
  return Promise.all(names.map(async (name) => [name, await native(name), await ours(name)]));
}"""


def serve_bytes(site: Site) -> None:
    """Serve each case once; to who comes back, tell with what id it did."""
    served: set[str] = set()

    def answer(handler: Handler) -> None:
        path, _, whole = handler.path.partition("?")
        name = path.rpartition("/")[2]
        if whole or name not in served:
            text = CASES[name].decode("latin-1")
            served.update([] if whole else [name])
        else:
            text = "retry: 100000\n" + block("sent", handler.headers["Last-Event-ID"])
        handler.answer(Answer(200, "text/event-stream", text, encoding="latin-1"))

    site.endpoints = {f"/bytes/{name}": answer for name in CASES}


def test_the_same_bytes_make_the_same_events_in_the_browser_and_in_the_parser(site: Site, engine: Engine) -> None:
    serve_bytes(site)
    site.pages["/"] = document("")
    tab = engine.tab(site.url)
    for name, native, ours in tab.evaluate(BOTH, list(CASES)):
        assert native == ours | KNOWN_DIFFERENCES.get((engine.name, name), {}), name


def page_of(viewer: str = "alice", body: str = "") -> str:
    return document(feed(item(1, "one"), cursor=cursor(1), viewer=viewer) + body)


def is_open(tab: Tab) -> None:
    until(tab, f"{FEED}.state === 'open'")


def test_a_cut_an_error_and_a_silence_cost_nothing_and_markup_stays_text(site: Site, engine: Engine) -> None:
    markup = '<img src=x onerror="window.owned = 1"><script>window.owned = 2</script>'
    site.pages["/"] = page_of()
    tab = engine.tab(site.url)
    first = site.stream().open()
    is_open(tab)
    assert first.cursor == cursor(1)
    first.send(created(2, markup, cursor(2)))
    wait_for_keys(tab, [2, 1])

    site.answers = [503]
    first.send("id: " + cursor(3) + "\nevent: created\nda").cut()  # half a block is none
    second = site.stream(2).open(keepalive=0.2)
    assert second.cursor == cursor(2)
    second.send(created(3, "three", cursor(3)))
    wait_for_keys(tab, [3, 2, 1])
    third = site.stream(3).open()  # nothing has come from the second for longer than it had promised
    assert third.cursor == cursor(3)
    third.send(created(4, "four", cursor(4)))
    wait_for_keys(tab, [4, 3, 2, 1])

    states = tab.evaluate("seen.filter(e => e.name === 'state').map(e => e.state)")
    assert [state for state in states if state != "connecting"] == [
        "open",
        "waiting",
        "waiting",
        "open",
        "waiting",
        "open",
    ]
    assert tab.evaluate("document.querySelector('[data-key=\"2\"]').textContent") == markup
    assert tab.evaluate("[window.owned, violations]") == [None, []]


def test_twelve_tabs_have_one_connection_which_ends_soon_after_the_last(site: Site, engine: Engine) -> None:
    site.automatic = True
    site.pages["/"] = document(feed(cursor=cursor(0), viewer="alice"))
    tabs = [engine.tab(site.url) for _ in range(12)]
    for tab in tabs:
        is_open(tab)
    assert site.asked == 1
    tabs.pop(0).close()  # the one that opened it; WebKit's worker goes with it, and another takes its place
    site.publish("one")
    for tab in tabs:
        wait_for_keys(tab, [1])
        assert tab.evaluate("seen.filter(e => e.name === 'message').length") == 1
    while tabs:
        tabs.pop().close()
    for stream in site.streams:
        assert stream.ended.wait(LIMIT)
    assert site.most_open == 1


def test_nine_pages_in_one_tab_never_hang(site: Site, engine: Engine) -> None:
    site.automatic = True
    for number in range(9):
        site.pages[f"/{number}"] = page_of()
    tab = engine.tab(f"{site.url}/0")
    for number in range(9):
        tab.goto(f"{site.url}/{number}")
        is_open(tab)
    assert site.most_open == 1
    site.open_streams[-1].send(created(2, "two", cursor(2)))
    wait_for_keys(tab, [2, 1])


NONCE = "script-src 'nonce-abc'; connect-src 'self'; style-src 'self'; default-src 'none'; img-src 'self'"


@pytest.mark.parametrize(("policy", "streams"), [(STRICT, 1), (NONCE, 2)], ids=["self", "nonce"])
def test_two_tabs_live_under_a_strict_policy(site: Site, engine: Engine, policy: str, streams: int) -> None:
    site.automatic = site.crowded = True
    site.policy = policy
    site.pages["/"] = document(feed(cursor=cursor(0), viewer="alice"), nonce="abc")
    tabs = [engine.tab(site.url), engine.tab(site.url)]
    for tab in tabs:
        is_open(tab)
    assert len(site.open_streams) == streams
    for stream in site.open_streams:
        stream.send(created(1, "one", cursor(1)))
    for tab in tabs:
        wait_for_keys(tab, [1])
        stopped = {violation.split()[0] for violation in tab.evaluate("violations")}
        assert stopped <= (set() if streams == 1 else {"worker-src"})


def long_list() -> str:
    """A list of ten items that are taller than a window together, in their order."""
    items = (item(key, "word " * 300) for key in range(10, 0, -1))
    return "".join(text.replace("<article", f"<article data-order='[{10 - at}]'") for at, text in enumerate(items))


CARD = '<article data-key="1"><b onclick="window.owned = 1">{}</b><input id="box"></article>'
TOP = "document.querySelector('#feed [data-key=\"5\"]').getBoundingClientRect().top"
CARDS_TEXT = "document.querySelector('#cards b')?.textContent"


def test_nothing_that_somebody_reads_or_writes_is_moved_or_lost(site: Site, engine: Engine) -> None:
    site.automatic = True
    news = feed(long_list(), attributes='insert="prepend" order="-pk"', cursor=cursor(0))
    attributes = 'insert="append" render="html"'
    site.pages["/"] = document(
        feed(name="cards", topic="cards", attributes=attributes, cursor=cursor(0, "cards")) + news
    )
    tab = engine.tab(site.url)
    until(tab, "[...document.querySelectorAll('live-feed')].every((feed) => feed.state === 'open')")
    stream = site.open_streams[-1]
    stream.send(block("created", {"pk": 1, "html": CARD.format("one")}, topic="cards"))
    until(tab, f"{CARDS_TEXT} === 'one'")
    tab.evaluate("box.value = 'typed', box.focus({ preventScroll: true })")
    tab.evaluate("document.querySelector('#feed [data-key=\"5\"]').scrollIntoView()")
    before = tab.evaluate(TOP)

    stream.send(block("updated", {"pk": 1, "html": CARD.format("ONE")}, topic="cards"))
    stream.send(block("deleted", {"pk": 1}, topic="news.article") + created(11, "new", topic="news.article"))
    until(tab, "document.querySelector('#feed [data-live-new]').textContent === '1 new item'")
    until(tab, f"{CARDS_TEXT} === 'ONE'")
    assert abs(tab.evaluate(TOP) - before) < 1
    assert tab.evaluate("document.activeElement.value") == "typed"
    assert tab.evaluate("document.querySelector('#cards b').hasAttribute('onclick')") is False

    tab.evaluate("document.querySelector('#feed [data-live-new]').click()")
    wait_for_keys(tab, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2])
    assert tab.evaluate("document.activeElement.dataset.key") == "11"
    stream.send(created(1, "back", topic="news.article") + block("updated", {"pk": 11}, topic="news.article"))
    wait_for_keys(tab, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    assert tab.evaluate("document.activeElement.dataset.key") == "11"
