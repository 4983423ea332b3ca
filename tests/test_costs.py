"""What an event, a reader and a connect cost, in counts that are the same everywhere: messages, writes, wake-ups, jobs.

How long each takes is measured by hand (``make bench``); that there are no more of them than this is held here. What
the writer pays, in statements and commands, is in test_costs_of_writing.py.
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext
from channels.layers import InMemoryChannelLayer
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.core.asgi import get_asgi_application
from django.db import connection
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import AsyncClient

from livefeed import broker
from livefeed.asgi import wrap
from livefeed.events import Event
from livefeed.history import History, get_history
from livefeed.hub import Hub
from livefeed.outlets import Message, Rest
from livefeed.roster import Roster
from livefeed.streams import EventStream, place
from livefeed.tail import Subscription
from livefeed.testing import open_stream
from livefeed.threads import Threads
from livefeed.viewers import Viewer
from tests.reading import append, eventually, plain_encode, subscribe

pytest_plugins = ["tests.reading_fixtures"]

# -- messages ---------------------------------------------------------------------------------------------------------


class CountedLayer(InMemoryChannelLayer):
    """Counts what it is asked to send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self.sent += 1
        await super().group_send(group, message)


@pytest.mark.parametrize("readers", [1, 100])
async def test_an_event_is_one_message_of_the_layer_and_no_read_of_the_history_however_many_read(
    memory: History, monkeypatch: pytest.MonkeyPatch, readers: int
) -> None:
    layer = CountedLayer()
    monkeypatch.setattr(broker, "channel_layer", lambda: layer)
    reads: list[str] = []
    monkeypatch.setattr(get_history(), "read", lambda topic, *rest: reads.append(topic))
    hub = Hub(plain_encode)
    subscriptions = [await subscribe(hub, "t") for _ in range(readers)]
    (stretch,) = append("t", 1)
    broker.send(stretch)
    await eventually(lambda: all(each.take() for each in subscriptions), "everybody has it")
    assert (layer.sent, reads) == (1, [])
    await hub.stop()


# -- writes and wake-ups ----------------------------------------------------------------------------------------------


class Client:
    """The server's end of one connection: it counts what is written, by the flush or by the stream's own task."""

    def __init__(self, hub: Hub, subscription: Subscription) -> None:
        self.written: list[bytes] = []
        self.woken = 0
        self.stream = EventStream(
            hub, subscription, b"", viewer=Viewer(None, None, ""), names={}, lease="", on_end=lambda stream: None
        )
        self._task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for chunk in self.stream:
            self.woken += 1
            self.written.append(chunk)

    async def write(self, message: Message) -> None:
        self.written.append(message["body"])

    def wait_for(self, rest: Rest) -> Rest:
        return rest

    def fail(self) -> None:
        raise AssertionError("a write failed")

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.stream.aclose()


async def clients(hub: Hub, count: int, *, short: bool, topics: Sequence[str] = ("t",)) -> list[Client]:
    """Return clients who wait for events."""
    made = []
    for _ in range(count):
        subscription, _ = await place(hub, topics, None, garbage=False)
        made.append(Client(hub, subscription))
        if short:
            made[-1].stream.use(made[-1])
    await eventually(lambda: all(each.stream._subscription._waiter for each in made), "they wait")
    return made


@pytest.mark.parametrize("short", [True, False], ids=["the short way", "the long way"])
async def test_an_event_is_encoded_once_and_written_once_to_each_reader(hub: Hub, short: bool) -> None:
    encoded: list[Event] = []
    hub._encode = lambda event: encoded.append(event) or plain_encode(event)  # type: ignore[func-returns-value]
    readers = await clients(hub, 20, short=short)
    for n in range(3):
        hub.receive(*append("t", n))
        await eventually(lambda n=n: all(len(each.written) == n + 1 for each in readers), "everybody has it")
    assert len(encoded) == 3
    assert len({id(each.written[2]) for each in readers}) == 1
    assert {each.woken for each in readers} == {0 if short else 3}
    for each in readers:
        await each.leave()


@pytest.mark.parametrize("short", [True, False], ids=["the short way", "the long way"])
async def test_events_that_come_together_are_one_write_to_each_reader(hub: Hub, short: bool) -> None:
    readers = await clients(hub, 20, short=short)
    for stretch in append("t", *range(50)):
        hub.receive(stretch)
    await eventually(lambda: all(each.written for each in readers), "everybody has them")
    assert {len(each.written) for each in readers} == {1}
    assert {each.written[0].count(b"data: ") for each in readers} == {50}
    for each in readers:
        await each.leave()


@pytest.mark.parametrize(("topics", "calls"), [(["t"], 1), (["t", "u", "v"], 5)], ids=["alone", "of several topics"])
async def test_a_flush_calls_little_more_for_a_reader_in_step_than_what_writes_to_it(
    hub: Hub, topics: list[str], calls: int
) -> None:
    """Each call reads and writes memory that is the reader's alone, and not in the processor's cache."""

    async def counted(readers: list[Client]) -> int:
        """Return how many Python functions run, or go on, in the flush of one event."""
        seen: list[str] = []
        hub.receive(*append("t", 1))
        gc.collect()
        gc.disable()  # what it calls for the garbage of others is not the flush's
        sys.setprofile(lambda frame, event, _: seen.append(frame.f_code.co_name) if event == "call" else None)
        try:
            hub._flusher._flush()
        finally:
            sys.setprofile(None)
            gc.enable()
        assert all(len(each.written) == 1 for each in readers)
        return len(seen)

    few = await clients(hub, 10, short=True, topics=topics)
    of_few = await counted(few)
    for each in few:
        await each.leave()
    many = await clients(hub, 50, short=True, topics=topics)
    assert await counted(many) - of_few <= 40 * calls
    for each in many:
        await each.leave()


async def test_what_was_delivered_leaves_one_frame_behind_however_many_read(hub: Hub) -> None:
    readers = await clients(hub, 50, short=True)

    async def deliver(first: int, last: int) -> None:
        for n in range(first, last):
            hub.receive(*append("t", n))
            await eventually(lambda n=n: all(len(each.written) == n + 1 for each in readers), "everybody has it")

    await deliver(0, 5)
    gc.collect()
    before = len(gc.get_objects())
    await deliver(5, 15)
    gc.collect()
    assert len(gc.get_objects()) - before < 10 * 10  # an event, in the history too, its stretch and its frame
    for each in readers:
        await each.leave()


# -- connecting -------------------------------------------------------------------------------------------------------


#: What is there for a request, and must not be as long as a stream.
PASSING = (HttpRequest, HttpResponseBase, SessionBase, ThreadSensitiveContext)


def passing() -> Counter[type]:
    """Count what is there for requests, by its kind."""
    gc.collect()
    return Counter(kind for each in gc.get_objects() for kind in PASSING if issubclass(type(each), kind))


@contextmanager
def connecting_counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count jobs of threads, threads, digests, database connections and statements, whoever they are for."""
    counts: Counter[str] = Counter()
    submit, start, execute = Threads.submit, threading.Thread.start, CursorWrapper.execute

    def counted(name: str, original: Any) -> Any:
        def count(*args: Any, **kwargs: Any) -> Any:
            begins_or_ends = name == "statements" and str(args[1]).startswith(("BEGIN", "SAVEPOINT", "RELEASE"))
            counts[name] += not begins_or_ends
            return original(*args, **kwargs)

        return count

    def connected(**kwargs: Any) -> None:
        counts["connections"] += 1

    connection_created.connect(connected)
    with monkeypatch.context() as patched:
        patched.setattr(Threads, "submit", counted("jobs", submit))
        patched.setattr(hmac, "new", counted("digests", hmac.new))
        patched.setattr(threading.Thread, "start", counted("threads", start))
        patched.setattr(CursorWrapper, "execute", counted("statements", execute))
        yield counts
    connection_created.disconnect(connected)


async def test_to_connect_takes_two_jobs_no_new_thread_or_connection_and_few_statements(
    roster: Roster, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job answers, with the session's and the user's statement; one takes the lease: a look, and the writing.

    Two of the digests are Django's, of the session and its user, and two are ours, of the session and of the viewer.
    """
    settings.LIVEFEED_LOOK_INTERVAL = 3600.0
    settings.LIVEFEED_MAX_CONNECTIONS_PER_USER = settings.LIVEFEED_MAX_CONNECTIONS_PER_SESSION = 50
    monkeypatch.setattr("livefeed.threads.PATIENCE", 60.0)
    before = passing()
    application = wrap(get_asgi_application())
    client = AsyncClient()
    await client.aforce_login(await User.objects.acreate_user("ann"))
    cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
    async with AsyncExitStack() as stack:
        stack.callback(application._for_streams._answering._executor.shutdown)
        stack.callback(application._for_streams._closing._executor.shutdown)

        async def connect() -> None:
            opening = open_stream("plain", headers={"cookie": cookie}, application=application)
            assert (await (await stack.enter_async_context(opening)).next()).type == "livefeed-open"

        for _ in range(3):  # whatever is done only once
            await connect()
        with connecting_counted(monkeypatch) as counts:
            for _ in range(10):
                await connect()
        kept = passing() - before
    writing = 1 if connection.vendor == "postgresql" else 3
    assert counts["statements"] <= 10 * (3 + writing)
    assert counts == {"jobs": 20, "digests": 10 * 4, "statements": counts["statements"]}
    assert kept == {ThreadSensitiveContext: 13}, (
        "an open stream holds no more of Django's than its viewer and its handler"
    )
