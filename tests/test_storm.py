"""A thousand clients that come back in the same moment, and replays while much is happening: the real hub, place()
and streams, on a history whose reads are counted.
"""

from __future__ import annotations

import asyncio
import datetime
import random
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from livefeed import broker
from livefeed import hub as hub_module
from livefeed.announcing import announce
from livefeed.cursors import Cursor, Position, entry, join, parse_cursor
from livefeed.events import new_event
from livefeed.history import History, Page, get_history
from livefeed.hub import Hub
from livefeed.pool import THREADS
from livefeed.streams import EventStream, place
from livefeed.viewers import Viewer
from tests.reading import LIMIT, append, eventually

pytest_plugins = ["tests.reading_fixtures"]

CLIENTS = 1_000
LONG = 3 * LIMIT
#: An event made by :func:`append`, with its topic where the connection has several.
_EVENT = re.compile(rb'(?:topic: (\S+)\n)?data: {"n":(\d+)}|event: livefeed-reset')


class CountedReads:
    """The reads of a history: which, how many at a time, and whether they may come back."""

    def __init__(self, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, int]] = []
        self.running = 0
        self.most = 0
        self.may_return = threading.Event()
        self.may_return.set()
        self._lock = threading.Lock()
        self._read = history.read
        monkeypatch.setattr(history, "read", self.read)

    def read(self, topic: str, after: int, *limits: int) -> Page:
        with self._lock:
            self.asked.append((topic, after))
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            assert self.may_return.wait(LIMIT)
            return self._read(topic, after, *limits)
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture
def reads(memory: History, monkeypatch: pytest.MonkeyPatch) -> CountedReads:
    return CountedReads(memory, monkeypatch)


def cursor_at(**seqs: int) -> Cursor:
    """Return the cursor of a client that has seen this many events of each topic."""
    heads = get_history().heads(seqs)
    return parse_cursor(join(entry(topic, Position(heads[topic].epoch, seq)) for topic, seq in seqs.items()))


async def come_back(hub: Hub, topics: Sequence[str], cursor: Cursor, last: int) -> list[tuple[str, int]]:
    """Come back with a cursor; read until the event ``last`` came on each topic; return all, with their topics."""
    subscription, reasons = await place(hub, topics, cursor, garbage=False)
    assert not reasons
    names = {topic: topic for topic in topics}
    viewer = Viewer(None, None, "127.0.0.1")
    stream = EventStream(hub, subscription, b": open\n\n", viewer=viewer, names=names, lease="", on_end=lambda _: None)
    found: list[tuple[str, int]] = []
    missing = set(topics)
    async with asyncio.timeout(LONG):
        while missing:
            for match in _EVENT.finditer(await anext(stream)):
                assert match[2], "a reset"
                topic, n = (match[1] or topics[0].encode()).decode(), int(match[2])
                found.append((topic, n))
                if n == last:
                    missing.remove(topic)
    await stream.aclose()
    return found


def seen(found: Sequence[tuple[str, int]], topic: str = "t") -> list[int]:
    return [n for name, n in found if name == topic]


# -- a thousand at once -----------------------------------------------------------------------------------------------


async def test_a_thousand_who_come_back_within_the_tail_cause_no_read_of_the_history(
    hub: Hub, reads: CountedReads
) -> None:
    await hub.open(["t"])
    for stretch in append("t", *range(100)):
        hub.receive(stretch)
    await eventually(lambda: hub.tails["t"].head == 100, "the tail has them all")
    starts = [random.randrange(100) for _ in range(CLIENTS)]
    found = await asyncio.gather(*(come_back(hub, ["t"], cursor_at(t=start), 99) for start in starts))
    assert [seen(one) for one in found] == [list(range(start, 100)) for start in starts]
    assert reads.asked == []


async def test_those_of_a_thousand_who_ask_for_the_same_stretch_share_its_read(hub: Hub, reads: CountedReads) -> None:
    append("t", *range(400))
    await hub.open(["t"])
    starts = [40 * (number % 10) for number in range(CLIENTS)]
    found = await asyncio.gather(*(come_back(hub, ["t"], cursor_at(t=start), 399) for start in starts))
    assert [seen(one) for one in found] == [list(range(start, 400)) for start in starts]
    pages = [("t", after) for start in set(starts) for after in range(start, 400, hub_module.PAGE_EVENTS)]
    assert set(reads.asked) == set(pages)
    assert len(reads.asked) <= len(pages), "one read of each page for all who came back at one place"


async def test_however_many_come_back_only_a_few_reads_run_at_a_time(hub: Hub, reads: CountedReads) -> None:
    append("t", *range(100))
    await hub.open(["t"])
    reads.may_return.clear()
    starts = [number % 100 for number in range(CLIENTS)]
    storm = asyncio.gather(*(come_back(hub, ["t"], cursor_at(t=start), 99) for start in starts))
    try:
        await eventually(lambda: reads.running == THREADS, "every thread reads")
    finally:
        reads.may_return.set()
    found = await storm
    assert [seen(one) for one in found] == [list(range(start, 100)) for start in starts]
    assert reads.most == THREADS
    assert sorted(reads.asked) == [("t", after) for after in range(100)]


async def test_those_who_open_a_topic_that_nobody_here_reads_share_one_look_at_its_end(
    hub: Hub, memory: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    append("t", *range(10))
    heads, asked = memory.heads, []

    def counted(topics: Any) -> Any:
        asked.append(list(topics))
        return heads(topics)

    cursor = cursor_at(t=10)
    monkeypatch.setattr(memory, "heads", counted)
    places = await asyncio.gather(*(place(hub, ["t"], cursor, garbage=False) for _ in range(CLIENTS)))
    assert asked == [["t"]]
    assert len({id(subscription.tails[0]) for subscription, _ in places}) == 1


# -- while much is happening ------------------------------------------------------------------------------------------


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """Pages and tails so small that a replay has many hand-overs, and that a burst drives readers out of the tails."""
    monkeypatch.setattr(hub_module, "PAGE_EVENTS", 20)
    settings.LIVEFEED_TAIL_BYTES = 64 * 1024


def publish_in_a_thread(topics: Sequence[str], ns: Sequence[int]) -> asyncio.Future[None]:
    """Publish in another thread, over the real layer, while this one reads."""

    def work() -> None:
        for n in ns:
            announce(get_history().append([new_event(topic, {"n": n}, "message") for topic in topics]))

    return asyncio.ensure_future(asyncio.to_thread(work))


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("topics", [["t"], ["t", "u", "v"]])
async def test_a_replay_during_a_burst_goes_over_into_what_happens_without_a_hole_or_a_double(
    memory: History, settings: Any, new_hub: Callable[..., Hub], topics: list[str]
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.05
    for topic in topics:
        append(topic, *range(200))
    hub = new_hub()
    await hub.open(topics)
    broker.serve_from(asyncio.get_running_loop())
    starts = [random.randrange(200) for _ in range(50)]
    burst = publish_in_a_thread(topics, range(200, 500))
    cursors = [cursor_at(**dict.fromkeys(topics, start)) for start in starts]
    found = await asyncio.gather(*(come_back(hub, topics, cursor, 499) for cursor in cursors))
    await burst
    for start, one in zip(starts, found, strict=True):
        for topic in topics:
            assert seen(one, topic) == list(range(start, 500))


@pytest.mark.parametrize("source", ["tail", "history"])
async def test_what_was_missed_on_several_topics_comes_in_the_order_of_publishing(hub: Hub, source: str) -> None:
    topics = ["t", "u", "v"]
    order = [*enumerate(random.choices(topics, k=300)), *((999, topic) for topic in topics)]
    now = datetime.datetime.now(datetime.UTC)
    events = [
        replace(new_event(topic, {"n": n}, "message"), created_at=now + datetime.timedelta(milliseconds=count))
        for count, (n, topic) in enumerate(order)
    ]
    if source == "tail":
        await hub.open(topics)
    for stretch in get_history().append(events):
        hub.receive(stretch)
    cursor = cursor_at(t=0, u=0, v=0)
    found = await asyncio.gather(*(come_back(hub, topics, cursor, 999) for _ in range(20)))
    for one in found:
        assert one == [(topic, n) for n, topic in order]
