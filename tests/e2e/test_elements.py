"""`<live-value>`, `<live-counter>` and `<live-toasts>` in a real browser, several on one page with one connection."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.staged_page import document, feed, item, until
from tests.e2e.staged_site import STRICT, Site
from tests.e2e.staged_stream import block, created, cursor

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Window = Callable[..., Page]

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.e2e.staged_fixtures"]

TRUSTED_TYPES = f"{STRICT}; require-trusted-types-for 'script'; trusted-types livefeed"
EVIL = '<img src=x onerror="window.owned=1"><script>window.owned=2</script>'


def element(name: str, topic: str, inside: str, **attributes: object) -> str:
    """Return a live element as the tags write it; its id is its topic's."""
    given = {"id": topic, "src": "/livefeed/", "topic": topic, "cursor": cursor(0, topic), **attributes}
    text = " ".join(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in given.items())
    return f"<{name} {text}>{inside}</{name}>"


def open_page(site: Site, window: Window, *elements: str, lang: str = "en", policy: str = TRUSTED_TYPES) -> Page:
    site.policy = policy
    site.automatic = True
    site.pages["/"] = document("<button id='here'>Here</button>" + "".join(elements), lang=lang)
    page = window(site.url)
    until(page, "!document.querySelector(':is(live-value, live-counter, live-toasts)[src]:not([state=open])')")
    return page


def text(page: Page, selector: str) -> str:
    return (page.locator(selector).text_content() or "").replace("\xa0", " ").strip()


def wait_for_text(page: Page, selector: str, wanted: str) -> None:
    condition = "document.querySelector(argument[0])?.textContent.replace(/\\s+/g, ' ').trim() === argument[1]"
    until(page, condition, [selector, wanted])


BUILD = """<progress max="100" data-attr-value="percent"></progress> <b data-field="percent"></b>%
  <a data-attr-href="log" data-field="log"></a><script type="text/plain" data-field="percent"></script>
  <time data-attr-datetime="at" data-field="at" data-format="relative"></time>"""


def test_a_value_fills_what_is_inside_at_once_and_with_each_event(site: Site, window: Window) -> None:
    first = {"percent": 70, "log": "/log/1", "at": (datetime.now(UTC) - timedelta(days=3)).isoformat()}
    page = open_page(
        site,
        window,
        element("live-value", "build", BUILD, value=json.dumps(first)),
        element("live-value", "news.article", '<b data-field="title">not yet</b>', key="7"),
        element("live-value", "plain", '<b data-field=""></b>'),
        lang="de",
    )
    assert page.locator("#build progress").get_attribute("value") == "70"
    assert text(page, "#build b") == "70"
    assert text(page, "#build time") == "vor 3 Tagen"
    assert text(page, "[id='news.article'] b") == "not yet"
    assert text(page, "#build script") == ""
    site.stream().send(block("progress", {"percent": 71}, topic="build"))
    site.stream().send(block("progress", {"percent": EVIL, "log": "javascript:owned=3"}, topic="build"))
    site.stream().send(created(8, "another", topic="news.article") + created(7, EVIL, topic="news.article"))
    site.stream().send(block("message", 42, topic="plain"))
    wait_for_text(page, "#build b", EVIL)
    assert page.locator("#build a").get_attribute("href") is None
    assert text(page, "#build a") == "javascript:owned=3"
    wait_for_text(page, "[id='news.article'] b", EVIL)
    wait_for_text(page, "#plain b", "42")
    assert page.evaluate("build.value.percent") == EVIL
    site.stream().send(block("deleted", {"pk": 7}, topic="news.article"))
    wait_for_text(page, "[id='news.article'] b", "")

    answer = html.escape(json.dumps({"percent": 99}))
    site.snapshot = f"<div data-live-snapshot data-cursor='{cursor(9, 'build')}' data-value='{answer}'></div>"
    reset = {"topic": "build", "reason": "trimmed", "cursor": cursor(8, "build")}
    others = cursor(0, "news.article", "plain")
    site.stream().send(block("livefeed-reset", reset, f"{cursor(8, 'build')}.{others}", "build"))
    wait_for_text(page, "#build b", "99")
    site.stream().send(block("progress", {"percent": 98}, f"{cursor(9, 'build')}.{others}", "build"))  # is in there
    site.stream().send(block("progress", {"percent": 100}, topic="build"))  # is fleeting
    wait_for_text(page, "#build b", "100")
    assert site.snapshot_requests[0].path == "/livefeed/?show=value&topic=build"
    assert page.evaluate("[window.owned, violations]") == [None, []]
    assert len(site.streams) == 1


def test_a_counter_counts_and_a_snapshot_is_counted_on_from_its_cursor(site: Site, window: Window) -> None:
    page = open_page(site, window, element("live-counter", "news.article", "999", value="999"), lang="de")
    assert page.locator("live-counter").get_attribute("aria-live") is None
    site.stream().send(created(1, "", cursor(1)) + created(2, "", cursor(2)) + block("updated", {"pk": 1}, cursor(3)))
    wait_for_text(page, "live-counter", "1.001")
    site.stream().send(block("deleted", {"pk": 1}, cursor(4)))
    wait_for_text(page, "live-counter", "1.000")

    site.snapshot_may_leave.clear()
    site.snapshot = f'<div data-live-snapshot data-cursor="{cursor(22)}" data-value="500"></div>'
    reset = {"topic": "news.article", "reason": "trimmed", "cursor": cursor(20)}
    site.stream().send(block("livefeed-reset", reset, cursor(20)))
    site.wait_until(lambda: bool(site.snapshot_requests), "a request for the snapshot")
    assert site.snapshot_requests[0].path == "/livefeed/?show=count&topic=news.article"
    for seq in (21, 22, 23):  # the snapshot has the first two
        site.stream().send(created(seq, "", cursor(seq)))
    wait_for_text(page, "live-counter", "1.003")
    site.snapshot_may_leave.set()
    wait_for_text(page, "live-counter", "501")
    assert page.evaluate("document.querySelector('live-counter').getAttribute('value')") == "501"


TOAST = """<div data-live-list role="status" aria-atomic="false"></div>
  <template><div data-live-toast><b data-field="text"></b>
    <button data-live-dismiss aria-label="Dismiss">×</button></div></template>"""


def test_toasts_come_as_text_stay_while_somebody_is_at_them_and_go_when_dismissed(site: Site, window: Window) -> None:
    own = element("live-toasts", "own", TOAST, seconds=0, limit=3)
    page = open_page(site, window, own, element("live-toasts", "brief", TOAST, seconds=1, limit=3))

    site.stream().send("".join(block("notice", {"text": f"{n} {EVIL}"}, topic="own") for n in range(1, 5)))
    wait_for_text(page, "#own [data-live-toast] b", f"2 {EVIL}")
    assert page.locator("#own [data-live-toast]").count() == 3
    page.focus("#here")
    page.keyboard.press("Tab")
    site.stream().send(block("notice", {"text": "5"}, topic="own"))
    wait_for_text(page, "#own [data-live-toast]:last-child b", "5")
    shown = page.locator("#own [data-live-toast] b").all_text_contents()
    assert shown == [f"2 {EVIL}", f"4 {EVIL}", "5"]  # somebody is at the oldest, so another went
    page.keyboard.press("Enter")
    until(page, "document.activeElement.querySelector('b')?.textContent === argument", f"4 {EVIL}")  # the next one
    for _ in range(2):
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#own [data-live-toast]').length === 0")
    assert page.evaluate("document.activeElement.matches('#own [data-live-list]')")

    page.clock.install()
    site.stream().send(block("message", {"text": EVIL}, topic="brief"))
    wait_for_text(page, "#brief [data-live-toast] b", EVIL)
    page.hover("#brief [data-live-toast]", timeout=5000)
    page.clock.fast_forward(5000)
    assert page.locator("#brief [data-live-toast]").count() == 1
    page.hover("#here")
    until(page, "document.querySelectorAll('#brief [data-live-toast]').length === 0")
    assert page.evaluate("[window.owned, violations]") == [None, []]


NESTED = """<article data-key="1"><b data-field="title">one</b>
  <live-value id="inner" value='{"title": "inner"}'><i data-field="title"></i></live-value></article>"""


@pytest.mark.needs("npm")
def test_axe_finds_nothing_and_each_element_keeps_to_its_own_content(site: Site, window: Window, npm: Path) -> None:
    page = open_page(
        site,
        window,
        "<main><h1>News</h1>",
        feed(NESTED, template=NESTED, cursor=cursor(0)),
        feed(item(2, "two " * 2000), name="chat", topic="chat", cursor=cursor(0, "chat"), attributes='insert="append"'),
        "<p>", element("live-counter", "count", "3", value="3"), "</p>",
        "<p>", element("live-value", "build", "<b data-field='percent'></b>%", value='{"percent": 70}'), "</p>",
        element("live-toasts", "notice", TOAST, seconds=0),
        "</main>",
    )  # fmt: skip
    assert text(page, "#inner i") == "inner"
    site.stream().send(block("updated", {"pk": 1, "title": "ONE"}, topic="news.article"))
    site.stream().send(created(3, "three", topic="chat") + block("notice", {"text": "Hear"}, topic="notice"))
    until(page, "document.querySelector('#notice button') && !document.querySelector('#chat [data-live-new]').hidden")
    assert [text(page, "article > b"), text(page, "#inner i")] == ["ONE", "inner"]
    page.evaluate((npm / "axe-core" / "axe.min.js").read_text())
    found = page.evaluate(
        "axe.run().then(({ violations }) => violations.map((v) => [v.id, v.nodes.map((n) => n.html)]))"
    )
    assert found == []


WIDGET = Path(__file__).parents[2] / "docs" / "widget.md"


def documented(language: str, mark: str) -> str:
    """Return the block of the widget's page that has this mark."""
    found = re.search(rf"<!-- {mark} -->\n```{language}\n(.*?)```", WIDGET.read_text(), re.DOTALL)
    assert found, mark
    return found[1]


def test_the_markup_and_the_script_that_the_documentation_shows_do_what_it_says(site: Site, window: Window) -> None:
    script = documented("js", "runs in that page")
    page = window("about:blank")
    page.route("**/static/example.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    site.pages["/"] = document(
        documented("html", "in a page") + '<script type="module" src="/static/example.js"></script>', lang="de"
    )
    page.goto(site.url)
    site.stream().open()
    author = {"author": {"name": EVIL}, "price": "9.50 €", "public": True}
    site.stream().send(created(1, "one", section="sport") + created(2, "two", **author) + created(3, "three"))
    until(page, "document.querySelectorAll('live-feed article').length === 2")
    assert page.title() == "three (news)"
    two = page.locator("[data-key='2']")
    assert (two.locator("span").text_content(), text(page, "[data-key='2'] b")) == (EVIL, "9.50 €")
    assert two.locator("[data-attr-hidden]").is_hidden()
    assert page.locator("[data-key='3'] [data-attr-hidden]").is_visible()
    assert text(page, "[data-key='3'] b") == ""
    site.stream().end()
    until(page, "document.body.classList.contains('behind')")
    assert page.evaluate("violations") == []
