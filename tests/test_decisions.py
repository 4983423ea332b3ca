"""The five decisions of the design that facts about Django, Daphne and Channels force; each with the fact it answers.

What a real server has to show is in tests/e2e/test_decisions.py.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.db import connections, transaction

from livefeed import apublish, broker, publish
from livefeed.exceptions import WrongContext
from livefeed.history import acursor, get_history
from livefeed.hub import Hub
from livefeed.pool import THREADS
from livefeed.responses import EventStreamResponse
from livefeed.roster import Roster
from livefeed.streams import EventStream
from livefeed.testing import open_stream
from tests.reading import LIMIT, append, eventually, numbers, parse, pool_threads, subscribe
from tests.testapp.models import Article

pytest_plugins = ["tests.reading_fixtures"]

PLAIN = "plain"


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Let nothing be cleaned up by chance."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Connection:
    """One request to the site, by hand: a server's side of ASGI, whose writes can be made to fail or to wait."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.error: Exception | None = None
        self.writing = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": "/livefeed/",
            "query_string": b"topic=plain",
            "headers": [(b"host", b"testserver"), (b"accept", b"text/event-stream")],
            "client": ("127.0.0.1", 50_000),
            "server": ("testserver", 80),
        }
        self.left = asyncio.Event()
        self._asked = False
        self.task = asyncio.ensure_future(get_asgi_application()(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if self._asked:
            await self.left.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        if self.error:
            raise self.error
        self.writing.set()
        await self.may_write.wait()
        self.writing.clear()
        self.sent.append(message.get("body", b""))


# -- 1. The stream is an object ---------------------------------------------------------------------------------------


async def test_1_the_stream_is_an_object_that_the_response_hands_out_itself(roster: Roster) -> None:
    async with open_stream(PLAIN) as stream:
        await stream.next()
        (inside,) = roster._streams
        assert isinstance(inside, EventStream)
        assert not inspect.isasyncgen(inside)
        assert callable(inside.__anext__)
        assert callable(inside.aclose)
        assert aiter(EventStreamResponse(inside)) is inside


# Django never closes the response of a write that failed, nor the file of its request's body.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_1_a_write_that_fails_ends_the_stream_without_a_garbage_collection(roster: Roster) -> None:
    async def fail() -> None:
        connection = Connection()
        await eventually(lambda: len(connection.sent) >= 2, "the stream has begun")
        connection.error = OSError("the client is gone")
        await apublish(PLAIN, {"n": 1})
        await asyncio.wait([connection.task], timeout=LIMIT)
        assert str(connection.task.exception()) == "the client is gone"

    with no_garbage_collection():
        await fail()
        assert len(roster) == 0
        assert not any(tail.readers for tail in roster.hub.tails.values())
    gc.collect()


async def test_1_a_client_that_goes_while_a_write_waits_for_it_ends_the_stream_without_a_garbage_collection(
    roster: Roster,
) -> None:
    connection = Connection()
    await eventually(lambda: len(connection.sent) >= 2, "the stream has begun")
    with no_garbage_collection():
        connection.may_write.clear()
        await apublish(PLAIN, {"n": 1})
        await asyncio.wait_for(connection.writing.wait(), LIMIT)
        connection.left.set()
        await asyncio.wait_for(connection.task, LIMIT)
        assert len(roster) == 0
        assert not any(tail.readers for tail in roster.hub.tails.values())


async def test_1_an_error_inside_ends_the_stream_as_a_whole_response(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stream(PLAIN) as stream:
        await stream.next()
        (inside,) = roster._streams

        def broken(stream: EventStream) -> bytes:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr(type(inside), "_take_fleeting", broken)
        await apublish(PLAIN, {"typing": True}, store=False)
        with pytest.raises(EOFError):
            await stream.next()
    assert len(roster) == 0


# -- 2. It gives back the request's thread and connections; a small pool does what blocks -----------------------------


async def test_2_many_streams_that_need_the_history_at_once_share_a_few_threads(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 0
    cursors = []
    for n in range(30):
        cursors.append(await acursor(PLAIN))
        await apublish(PLAIN, {"n": n})
    roster.hub._budget.limit = 1  # nothing is kept in memory
    most: list[int] = []
    read = get_history().read

    async def catch_up(n: int) -> list[int]:
        async with open_stream(PLAIN, cursor=cursors[n]) as stream:
            await stream.next()
            return numbers(await stream.take(30 - n))

    def noted(*args: Any) -> Any:
        most.append(len(pool_threads()))
        assert threading.current_thread() in pool_threads()
        return read(*args)

    get_history().read = noted  # type: ignore[method-assign]
    try:
        found = await asyncio.gather(*(catch_up(n) for n in range(30)))
    finally:
        del get_history().read
    assert found == [list(range(n, 30)) for n in range(30)]
    assert 0 < max(most) <= THREADS


# -- 3. The hub flushes adaptively ------------------------------------------------------------------------------------


async def test_3_an_idle_hub_wakes_its_readers_in_the_next_turn_of_the_loop(hub: Hub) -> None:
    reader = await subscribe(hub, "t")
    waiting = asyncio.ensure_future(reader.wait())
    await asyncio.sleep(0)
    for stretch in append("t", 1):
        hub.receive(stretch)
    for _ in range(3):
        await asyncio.sleep(0)
    assert waiting.done()


async def test_3_while_a_flush_keeps_the_loop_busy_events_gather_into_the_next(hub: Hub) -> None:
    """Each reader's chunk keeps the loop busy; a thousand events come meanwhile, one each turn."""
    reader = await subscribe(hub, "t")
    found: list[int] = []
    chunks = [0]

    async def read() -> None:
        while len(found) < 1000:
            while chunk := reader.take():
                found.extend(numbers(parse(chunk)))
                chunks[0] += 1
                deadline = asyncio.get_running_loop().time() + 0.005
                while asyncio.get_running_loop().time() < deadline:
                    pass
            await reader.wait()

    reading = asyncio.ensure_future(read())
    for n in range(1000):
        for stretch in append("t", n):
            hub.receive(stretch)
        await asyncio.sleep(0)
    await eventually(lambda: len(found) == 1000, "everything has arrived")
    reading.cancel()
    assert found == list(range(1000))
    assert chunks[0] < 250


# -- 4. livefeed.asgi.wrap: see tests/test_asgi.py, and tests/e2e/test_decisions.py for real servers -------------------


# -- 5. Publishing ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sent_from(layer: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, asyncio.AbstractEventLoop]]:
    """Note from which thread and loop each message goes to the layer."""
    noted: list[tuple[str, asyncio.AbstractEventLoop]] = []
    group_send = layer.group_send

    async def note(group: str, message: Any) -> None:
        noted.append((threading.current_thread().name, asyncio.get_running_loop()))
        await group_send(group, message)

    monkeypatch.setattr(layer, "group_send", note)
    monkeypatch.setattr(broker, "_outboxes", broker._Outboxes())
    return noted


async def test_5_a_thread_publishes_over_the_loop_that_serves_streams(
    roster: Roster, sent_from: list[tuple[str, asyncio.AbstractEventLoop]]
) -> None:
    async with open_stream(PLAIN) as stream:
        await stream.next()
        await asyncio.to_thread(_publish_in_thread, 1)
        assert (await stream.next()).json == {"n": 1}
    assert {loop for _, loop in sent_from} == {asyncio.get_running_loop()}


def _publish_in_thread(n: int) -> None:
    publish(PLAIN, {"n": n})
    connections.close_all()


@pytest.mark.django_db(transaction=True)
def test_5_a_process_without_streams_keeps_one_background_loop(
    sent_from: list[tuple[str, asyncio.AbstractEventLoop]],
) -> None:
    threads = [threading.Thread(target=_publish_in_thread, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    publish(PLAIN, {"n": 4})
    broker._outboxes.flush(LIMIT)
    assert {name for name, _ in sent_from} == {"livefeed-broker"}
    assert len({loop for _, loop in sent_from}) == 1


@pytest.mark.django_db(transaction=True)
def test_5_a_commit_is_numbered_once_however_many_saves_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    numbered: list[set[str]] = []
    number = get_history().number

    def note(topics: Any) -> Any:
        numbered.append(set(topics))
        return number(topics)

    monkeypatch.setattr(get_history(), "number", note)
    with transaction.atomic():
        for n in range(10):
            Article.objects.create(title=str(n))
            publish(PLAIN, {"n": n})
    assert numbered == [{"testapp.article", "detail", PLAIN}]


@pytest.mark.django_db(transaction=True)
def test_5_what_fails_after_the_commit_fails_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(stretch: Any) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(broker, "send", away)
    ran: list[str] = []
    with transaction.atomic():
        transaction.on_commit(lambda: ran.append("before"))
        publish(PLAIN, {"n": 1})
        transaction.on_commit(lambda: ran.append("after"))
    assert ran == ["before", "after"]


async def test_5_inside_a_running_loop_publish_says_what_to_use() -> None:
    with pytest.raises(WrongContext, match="apublish"):
        publish(PLAIN, {"n": 1})


async def test_5_apublish_may_be_called_from_many_tasks_at_once(roster: Roster) -> None:
    async with open_stream(PLAIN) as stream:
        await stream.next()
        await asyncio.gather(*(apublish(PLAIN, {"n": n}) for n in range(20)))
        assert sorted(numbers(await stream.take(20))) == list(range(20))
    await sync_to_async(connections.close_all)()
