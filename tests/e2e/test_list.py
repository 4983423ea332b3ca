"""The list of a `<live-feed>`: order, what waits while somebody reads, focus, the server's HTML, what is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.e2e.staged_page import feed, item, keys, until, wait_for_keys
from tests.e2e.staged_site import STRICT, Site
from tests.e2e.staged_stream import block, created, cursor

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Window = Callable[..., Page]

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.e2e.staged_fixtures"]

TRUSTED_TYPES = f"{STRICT}; require-trusted-types-for 'script'; trusted-types livefeed"


def placed(key: int, at: str) -> str:
    return item(key, str(key)).replace("<article", f"<article data-order='[\"{at}\", {key}]'")


def test_an_item_goes_to_its_place_in_the_order_and_moves_when_that_changes(site: Site, live: Window) -> None:
    items = placed(5, "2026-01-05T00:00:00Z") + placed(3, "2026-01-03T00:00:00Z") + placed(1, "2026-01-01T00:00:00Z")
    page = live(feed(items, attributes='limit="4" insert="prepend" order="-at -pk"'))
    site.stream().send(created(4, "4", at="2026-01-03T00:00:00.5Z"))
    wait_for_keys(page, [5, 4, 3, 1])
    page.focus("[data-key='3'] a")
    page.evaluate("addEventListener('focusin', () => (window.moved = true))")
    site.stream().send(block("updated", {"pk": 3, "title": "3", "url": "/a/3", "at": "2026-01-06T00:00:00Z"}))
    wait_for_keys(page, [3, 5, 4, 1])
    assert page.evaluate("document.activeElement.closest('[data-key]').dataset.key") == "3"
    assert page.evaluate("window.moved") is None
    # One that was behind the limit: it comes in where it stands among those that are shown, and only there.
    site.stream().send(block("updated", {"pk": 9, "title": "9", "at": "2025-01-01T00:00:00Z"}))
    site.stream().send(block("updated", {"pk": 8, "title": "8", "at": "2026-01-02T00:00:00Z"}))
    wait_for_keys(page, [3, 5, 4, 8])
    site.stream().send(created(7, "7", at="2024-01-01T00:00:00Z") + created(6, "6: no place"))
    wait_for_keys(page, [6, 3, 5, 4])


def tall(count: int) -> str:
    return "".join(item(key, f"{key} " + "word " * 400) for key in range(count, 0, -1))


def test_new_items_wait_while_somebody_reads_further_down_and_nothing_jumps(site: Site, live: Window) -> None:
    page = live(feed(tall(6), attributes='limit="8" insert="prepend"'))
    page.evaluate("document.querySelector('[data-key=\"5\"]').scrollIntoView()")
    where = "document.querySelector('[data-key=\"5\"]').getBoundingClientRect().top"
    before = page.evaluate(where)
    button = page.locator("[data-live-new]")
    site.stream().send(created(7, "seven"))
    until(page, "document.querySelector('[data-live-new]').textContent === '1 new item'")
    assert button.is_visible()
    site.stream().send(created(8, "eight") + created(9, "nine") + created(10, "ten") + block("deleted", {"pk": 7}))
    site.stream().send(block("updated", {"pk": 8, "title": "EIGHT"}) + block("updated", {"pk": 2, "title": "TWO"}))
    until(page, "document.querySelector('[data-key=\"2\"]').textContent === 'TWO'")
    assert button.text_content() == "3 new items"
    assert keys(page) == ["6", "5", "4", "3", "2", "1"]
    assert page.evaluate(where) == before

    page.keyboard.press("Escape")
    button.click()
    wait_for_keys(page, [10, 9, 8, 6, 5, 4, 3, 2])
    assert button.is_hidden()
    assert page.evaluate("document.activeElement.dataset.key") == "10"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
    assert page.locator("[data-key='8']").text_content() == "EIGHT"
    site.stream().send(created(11, "eleven"))
    wait_for_keys(page, [11, 10, 9, 8, 6, 5, 4, 3])

    page.evaluate("document.querySelector('[data-key=\"5\"]').scrollIntoView()")
    site.stream().send(created(12, "twelve"))
    until(page, "!document.querySelector('[data-live-new]').hidden")
    page.focus("[data-live-new]")
    page.evaluate("scrollTo(0, 0)")
    site.stream().send(created(13, "thirteen"))
    wait_for_keys(page, [13, 12, 11, 10, 9, 8, 6, 5])
    assert button.is_hidden()
    assert page.evaluate("document.activeElement.dataset.key") == "13"  # the button took no focus along


def test_a_chat_follows_its_end_unless_somebody_reads_further_up(site: Site, live: Window) -> None:
    page = live(feed("".join(item(key, str(key)) for key in range(1, 31)), attributes='insert="append"'))
    page.evaluate("""() => {
      const { style } = (window.list = document.querySelector('[data-live-list]'));
      style.setProperty('overflow-y', 'auto');
      style.setProperty('height', '200px');
      list.scrollTop = 1e6;
    }""")
    site.stream().send(created(31, "31"))
    until(page, "list.lastElementChild.dataset.key === '31'")
    assert page.evaluate("list.scrollHeight - list.scrollTop - list.clientHeight") <= 1
    page.evaluate("list.scrollTop = 50")
    site.stream().send(created(32, "32"))
    until(page, "!document.querySelector('[data-live-new]').hidden")
    assert page.evaluate("[list.scrollTop, list.lastElementChild.dataset.key]") == [50, "31"]
    page.click("[data-live-new]")
    until(page, "document.activeElement.dataset.key === '32'")


HOSTILE = """<article data-key="1"><p><img src="/none" onerror="window.owned = 1" onload="window.owned = 2" alt="x">
  <script>window.owned = 3</script><a id="go" href=" java\nscript:window.owned = 4">{0}</a><input id="box">
  <svg onload="window.owned = 5"><a href="javascript:window.owned = 6"></a></svg>
  <iframe srcdoc="<script>parent.owned = 7</script>"></iframe><b>&lt;b&gt;</b></p></article>"""


@pytest.mark.parametrize("policy", ["default-src 'self' 'unsafe-inline'", TRUSTED_TYPES])
def test_html_of_the_server_is_shown_and_nothing_in_it_runs(site: Site, live: Window, policy: str) -> None:
    site.policy = policy
    page = live(feed(attributes='limit="4" insert="prepend" render="html"'))
    site.stream().send(block("created", {"pk": 1, "html": HOSTILE.format("one")}))
    wait_for_keys(page, [1])
    page.fill("#box", "typed")
    page.evaluate("window.box = document.getElementById('box')")
    site.stream().send(block("updated", {"pk": 1, "html": HOSTILE.format("ONE")}))
    until(page, "document.getElementById('go').textContent === 'ONE'")
    assert page.evaluate("[document.activeElement === box, box.value]") == [True, "typed"]
    page.locator("#go").click()
    assert page.locator("b").text_content() == "<b>"
    found = page.evaluate("document.querySelector('[data-live-list]').innerHTML.match(/script|onload|onerror|srcdoc/g)")
    assert [found, page.evaluate("window.owned")] == [None, None]
    # Where handlers are forbidden the policy says so of those that are parsed, though there they could not run.
    assert set(page.evaluate("violations.splice(0)")) <= {"script-src-attr inline"}


def test_the_focus_of_an_item_that_goes_is_not_lost(site: Site, live: Window) -> None:
    page = live(feed(item(3, "three") + item(2, "two") + item(1, "one")))
    page.focus("[data-key='2'] a")
    site.stream().send(block("deleted", {"pk": 2}))
    wait_for_keys(page, [3, 1])
    assert page.evaluate("document.activeElement.dataset.key") == "1"
    site.stream().send(block("deleted", {"pk": 1}) + block("deleted", {"pk": 3}))
    until(page, "document.activeElement.matches('[data-live-list][role=group]')")  # without articles it is no feed
    site.stream().send(created(4, "four"))
    until(page, "document.activeElement.matches('[role=feed]:has(> article)')")


def test_a_page_without_frames_is_kept_up_to_date_too(site: Site, live: Window) -> None:
    page = live(feed())
    page.evaluate("window.requestAnimationFrame = () => 0")  # as in a tab behind others
    site.stream().send(created(1, "one"))
    wait_for_keys(page, [1])


def test_what_a_snapshot_holds_already_is_not_written_over_it(site: Site, live: Window) -> None:
    page = live(feed(item(1, "one"), cursor=cursor(5)))
    site.snapshot = f'<div data-live-snapshot data-cursor="{cursor(60)}">{item(2, "newest")}</div>'
    reset = {"topic": "news.article", "reason": "trimmed", "cursor": cursor(50)}
    site.stream().send(block("livefeed-reset", reset, cursor(50)))
    wait_for_keys(page, [2])
    site.stream().send(block("updated", {"pk": 2, "title": "older"}, cursor(59)) + created(3, "three", cursor(61)))
    wait_for_keys(page, [3, 2])
    assert page.locator("[data-key='2']").text_content() == "newest"


NOTE = """() => {
  window.said = [];
  const region = document.querySelector('body > [role=status]');
  new MutationObserver(() => region.textContent && said.push(region.textContent)).observe(region, { childList: true });
}"""


def test_arrivals_are_said_as_a_number_and_a_log_reads_a_few_itself(site: Site, live: Window) -> None:
    body = feed(name="a") + feed(name="b", topic="chat", attributes='insert="append"')
    page = live(body)
    page.evaluate(NOTE)
    a, b = "news.article", "chat"
    site.stream().send(created(1, "one", topic=a) + created(2, "two", topic=a) + created(1, "one", topic=b))
    until(page, "said.join() === '2 new items'")
    assert page.locator("#b [data-live-list]").get_attribute("aria-live") is None
    site.stream().send("".join(created(key, "many", topic=b) for key in range(2, 6)))
    until(page, "document.querySelector('#b [data-live-list]').getAttribute('aria-live') === 'off'")
    until(page, "said.at(-1) === '4 new items'")
    assert page.locator("#b [data-live-list]").get_attribute("aria-live") is None
