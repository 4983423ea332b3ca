"""Tabs of real pages on a real server: one connection for a person's tabs, and every event once wherever they join."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.pages import Editor
from tests.e2e.servers import Server, holders, site_env
from tests.e2e.staged_page import until
from tests.e2e.watched import Watcher
from tests.e2e.wire import Wire
from tests.processes import poll

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

LIMIT = 30.0
STATE = "document.querySelector('live-feed').getAttribute('state')"
TOPICS = ["news.article:1", "news.article:2", "news.article:3"]
EVENTS = 200

# Publishes on all topics in turn, in a thread of the server's process, as a view would.
FLOW = f"""
import threading, time, livefeed

def flow():
    for n in range(1, {EVENTS} + 1):
        for topic in {TOPICS}:
            livefeed.publish(topic, {{"n": n}}, type="tick")
        time.sleep(0.005)

threading.Thread(target=flow).start()
"""

# Readers that come and go: each goes on from where its last source was, and must be told every number once, in order.
# One reads on without a break, one begins late from the very beginning.
READERS = """async ([topics, cursors, last, seed]) => {
  const { LiveEventSource } = await import('/static/livefeed/livefeed.js');
  const viewer = document.querySelector('live-feed').getAttribute('viewer');
  let state = seed;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  const pause = (most) => new Promise((resolve) => setTimeout(resolve, random() * most));
  window.told = {};
  const read = async (name, topic, rest) => {
    const numbers = (told[name] = []);
    let cursor = cursors[topic];
    while (numbers.at(-1) !== last) {
      const query = new URLSearchParams({ topic, viewer, since: cursor });
      const source = new LiveEventSource(`/livefeed/?${query}`);
      source.addEventListener('tick', (event) => numbers.push(JSON.parse(event.data).n));
      source.addEventListener('livefeed-reset', (event) => numbers.push(event.data));
      do await pause(400); while (!rest && numbers.at(-1) !== last);
      cursor = source.cursor;
      source.close();
      await pause(rest);
    }
  };
  window.reading = Promise.all([
    ...topics.map((topic) => read(`${topic} with breaks`, topic, 150)),
    read(`${topics[0]} without a break`, topics[0], 0),
    pause(1500).then(() => read(`${topics[1]} late`, topics[1], 0)),
  ]).then(() => (window.done = true));
}"""


class Site(Server):
    """Daphne, and the database of its leases."""

    def __init__(self, directory: Path, database_url: str) -> None:
        env = site_env(database_url=database_url)
        super().__init__("daphne", directory, env=env, application="tests.e2e.refused_site:application")
        self.database_url = database_url
        self.watcher = Watcher(self, self.url)

    def holders(self) -> list[str]:
        return holders(self.database_url)


@pytest.fixture(scope="module")
def site(_prepared_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("tabs")
    database = directory / "site.sqlite3"
    database.write_bytes(_prepared_sqlite.read_bytes())
    with Site(directory, f"sqlite:///{database}") as site:
        yield site
    assert site.trouble() == []


@pytest.fixture
def person(browser: Browser, site: Site) -> Iterator[Callable[[str], Page]]:
    """Return `open(url)`: one more tab of the same person. When the test is over, no connection is left."""
    context = browser.new_context()

    def open_tab(url: str) -> Page:
        page = context.new_page()
        page.goto(url)
        return page

    yield open_tab
    context.close()
    poll(lambda: not site.holders(), limit=LIMIT, what="the leases are given back")


def is_in(page: Page, state: str) -> None:
    until(page, f"{STATE} === argument", state)


def test_twelve_tabs_of_one_person_hold_one_lease(site: Site, person: Callable[[str], Page]) -> None:
    tabs = [person(site.url) for _ in range(12)]
    for tab in tabs:
        is_in(tab, "open")
    assert len(site.holders()) == 1


def test_tabs_join_and_leave_topics_while_events_flow_and_each_is_told_all_of_them_once(
    site: Site, person: Callable[[str], Page]
) -> None:
    tabs = [person(site.url) for _ in range(4)]
    cursors = {}
    for topic in TOPICS:
        ask = "topic => fetch(`/livefeed/?topic=${topic}`, { headers: { Accept: 'application/json' } })"
        cursors[topic] = tabs[0].evaluate(f"topic => ({ask})(topic).then((answer) => answer.json())", topic)["cursor"]
    for seed, tab in enumerate(tabs, 1):
        tab.evaluate(READERS, [TOPICS, cursors, EVENTS, seed])
    site.watcher.run(FLOW)
    for tab in tabs:
        until(tab, "window.done === true")
        for name, numbers in tab.evaluate("told").items():
            assert numbers == list(range(1, EVENTS + 1)), name
    assert len(site.holders()) == 1


def test_who_signs_in_in_another_tab_is_another_person(site: Site, person: Callable[[str], Page]) -> None:
    with Wire(site.port) as wire:
        guest = person(wire.url)
        is_in(guest, "open")
        other = person(wire.url)
        Editor(other, wire.url).sign_in("editor", "livefeed")
        other.goto(wire.url)
        is_in(other, "open")
        viewers = [tab.evaluate("document.querySelector('live-feed').getAttribute('viewer')") for tab in (guest, other)]
        assert len(set(viewers)) == 2
        assert len(set(site.holders())) == len(site.holders()) == 2
        assert guest.evaluate(STATE) == "open"  # as the guest that it was rendered for

        wire.cut()
        wire.mend()
        is_in(other, "open")
        is_in(guest, "denied")  # its cookies are the editor's by now, and its page is not
        poll(lambda: len(site.holders()) == 1, limit=LIMIT, what="the editor's is the one connection")
        (editor,) = site.holders()
        other.get_by_role("button", name="Sign out").click()
        until(other, "document.querySelector('live-feed')?.getAttribute('viewer') === argument", viewers[0])
        is_in(other, "open")
        poll(lambda: editor not in site.holders(), limit=LIMIT, what="the editor's connection has ended")
