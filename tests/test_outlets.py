"""The short way out: a flush writes for the streams that wait, and wakes only those whose clients don't keep up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from django.core.asgi import get_asgi_application

from livefeed import LiveFeed, apublish
from livefeed.asgi import wrap
from livefeed.outlets import begin
from livefeed.roster import Roster
from livefeed.streams import EventStream
from livefeed.tail import Subscription
from livefeed.testing import open_stream
from tests.reading import LIMIT, eventually

pytest_plugins = ["tests.reading_fixtures"]

Message = MutableMapping[str, Any]


# -- the rest of a coroutine -------------------------------------------------------------------------------------------


async def test_what_need_not_wait_is_done_at_once() -> None:
    done = []

    async def work() -> None:
        done.append(1)

    assert begin(work()) is None
    assert done == [1]


async def test_what_has_to_wait_goes_on_in_a_task() -> None:
    gates, passed = [asyncio.Event(), asyncio.Event()], []

    async def work() -> None:
        for gate in gates:
            await gate.wait()
            passed.append(gate)

    rest = begin(work())
    assert rest is not None
    task = asyncio.ensure_future(awaited(rest))
    for count, gate in enumerate(gates, 1):
        gate.set()
        await eventually(lambda count=count: len(passed) == count, "it passed the gate")
    await asyncio.wait_for(task, LIMIT)


async def awaited(rest: Any) -> None:
    await rest


async def test_a_rest_is_cancelled_with_its_task_and_fails_with_its_own_error() -> None:
    seen = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise LookupError("its own") from None

    task = asyncio.ensure_future(awaited(begin(work())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(LookupError, match="its own"):
        await task
    assert seen == ["cancelled"]


async def test_a_rest_that_nobody_waits_for_is_closed() -> None:
    seen = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("closed")

    rest = begin(work())
    assert rest is not None
    rest.close()
    assert seen == ["closed"]


# -- through the whole site --------------------------------------------------------------------------------------------


class Server:
    """What uvicorn is to an application: a `send` that waits only for a client that does not read."""

    __module__ = "uvicorn.protocols.http.of_these_tests"

    def __init__(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.error: Exception | None = None
        self.waiting = 0
        self.aborted = False
        self.transport = self

    def abort(self) -> None:
        self.aborted = True

    def application(self, inner: Any = None) -> Any:
        guarded = wrap(inner or get_asgi_application())

        async def application(scope: Any, receive: Any, send: Any) -> None:
            self._send = send
            await guarded(scope, receive, self.send)

        return application

    async def send(self, message: Message) -> None:
        if self.error is not None:
            raise self.error
        if not self.flowing.is_set():
            self.waiting += 1
            await self.flowing.wait()
            self.waiting -= 1
        await self._send(message)


class Steps:
    """Counts how often a stream's task was asked for its next chunk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        step = EventStream.__anext__

        async def counted(stream: EventStream) -> bytes:
            self.count += 1
            return await step(stream)

        monkeypatch.setattr(EventStream, "__anext__", counted)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def server() -> Server:
    return Server()


async def waits(roster: Roster) -> None:
    """Wait until every stream waits for events."""
    await eventually(lambda: all(s._subscription._waiter for s in roster._streams) and len(roster), "the streams wait")


async def test_events_are_written_without_waking_the_stream(roster: Roster, server: Server, steps: Steps) -> None:
    async with open_stream("plain", application=server.application()) as stream:
        await stream.next()
        await waits(roster)
        before = steps.count
        for n in range(5):
            await apublish("plain", n)
            assert (await stream.next()).json == n
        assert steps.count == before


@pytest.mark.parametrize("topics", [("plain",), ("plain", "plain:2")])
async def test_a_client_that_does_not_read_is_waited_for_by_its_own_task_and_misses_nothing(
    roster: Roster, server: Server, steps: Steps, topics: tuple[str, ...]
) -> None:
    async with open_stream(*topics, application=server.application()) as stream:
        await stream.next()
        await waits(roster)
        server.flowing.clear()
        for n in range(5):
            await apublish(topics[n % len(topics)], n)
        await eventually(lambda: server.waiting == 1, "the write waits")
        server.flowing.set()
        assert [(await stream.next()).json for _ in range(5)] == list(range(5))
        await waits(roster)
        before = steps.count
        await apublish("plain", 5)
        assert (await stream.next()).json == 5
        assert steps.count == before


async def test_a_client_that_never_reads_again_is_disconnected(roster: Roster, server: Server, settings: Any) -> None:
    settings.LIVEFEED_SEND_TIMEOUT = 0.05
    async with open_stream("plain", application=server.application()) as stream:
        await stream.next()
        await waits(roster)
        server.flowing.clear()
        await apublish("plain", 1)
        await eventually(lambda: server.aborted, "the connection is cut")
        server.flowing.set()


async def test_a_client_that_leaves_during_a_write_leaves_nothing_behind(roster: Roster, server: Server) -> None:
    async with open_stream("plain", application=server.application()) as stream:
        await stream.next()
        await waits(roster)
        server.flowing.clear()
        await apublish("plain", 1)
        await eventually(lambda: server.waiting == 1, "the write waits")
    await eventually(lambda: len(roster) == 0, "the stream has ended")


async def test_a_write_that_fails_cuts_its_connection_and_no_other(
    roster: Roster, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    other = Server()
    async with (
        open_stream("plain", application=server.application()) as broken,
        open_stream("plain", application=other.application()) as whole,
    ):
        await broken.next()
        await whole.next()
        await waits(roster)
        server.error = OSError("the server's own")
        await apublish("plain", 1)
        assert (await whole.next()).json == 1
        assert server.aborted
        assert not other.aborted
        assert "Writing to an event stream failed" in caplog.text
        server.error = None


@pytest.mark.parametrize("step", ["take", "follow"], ids=["by itself", "in step"])
async def test_a_stream_that_fails_in_a_flush_ends_and_every_other_reader_gets_what_comes(
    roster: Roster, server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    other = Server()
    if step == "take":
        monkeypatch.setattr(Subscription, "step_in", lambda self, write: None)
    async with (
        open_stream("plain", "plain:2", application=server.application()) as broken,
        open_stream("plain", "plain:2", application=other.application()) as whole,
    ):
        await broken.next()
        await whole.next()
        await waits(roster)
        subscription = next(iter(roster._streams))._subscription

        def fails(self: Subscription, *arguments: Any) -> bytes:
            if self is subscription:
                raise ZeroDivisionError("oops")
            return works(self, *arguments)

        works = getattr(Subscription, step)
        monkeypatch.setattr(Subscription, step, fails)
        for n in range(3):
            await apublish("plain", n)
            assert (await whole.next()).json == n
        with pytest.raises(EOFError):
            await broken.next()
        assert "A stream of plain, plain:2 failed" in caplog.text
        assert len(roster) == 1


async def test_keep_alives_are_written_without_waking_the_stream(
    roster: Roster, server: Server, steps: Steps, settings: Any
) -> None:
    settings.LIVEFEED_KEEPALIVE = 0.1
    async with open_stream("plain", application=server.application()) as stream:
        await stream.next()
        await waits(roster)
        before = steps.count
        assert await stream.portion() == b": keep-alive\n\n"
        assert steps.count == before


async def test_fleeting_events_and_goodbyes_come_as_ever(roster: Roster, server: Server) -> None:
    async with open_stream("plain", application=server.application()) as stream:
        await stream.next()
        await waits(roster)
        await apublish("plain", "hush", store=False)
        assert (await stream.next()).data == "hush"
        for each in roster._streams:
            each.say_goodbye("revoked")
        assert (await stream.next()).json == {"reason": "revoked"}


class Louder:
    """A middleware that changes what is streamed."""

    async_capable, sync_capable = True, False

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response

    async def __call__(self, request: Any) -> Any:
        response = await self._get_response(request)
        original = response.streaming_content

        async def louder() -> Any:
            async for part in original:
                yield part.upper()

        if response.streaming:
            response.streaming_content = louder()
        return response


async def test_nothing_goes_past_a_middleware(roster: Roster, server: Server, settings: Any) -> None:
    settings.MIDDLEWARE = [f"{__name__}.Louder"]
    async with open_stream("plain", application=server.application()) as stream:
        assert b"LIVEFEED-OPEN" in await stream.portion()
        await waits(roster)
        await apublish("plain", "quiet")
        assert (await stream.portion()).endswith(b"DATA: QUIET\n\n")


async def test_nothing_goes_past_what_stands_between_the_wrapper_and_django(
    roster: Roster, server: Server, steps: Steps
) -> None:
    django = get_asgi_application()
    seen: list[Message] = []

    async def between(scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Message) -> None:
            seen.append(message)
            await send(message)

        await django(scope, receive, noted)

    async with open_stream("plain", application=server.application(between)) as stream:
        await stream.next()
        await waits(roster)
        await apublish("plain", 1)
        await stream.next()
        assert seen[-1]["body"].endswith(b"data: 1\n\n")


async def test_a_send_that_nobody_knows_is_called_in_the_streams_own_task(
    roster: Roster, server: Server, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "__module__", "somebody.elses")
    async with open_stream("plain", application=server.application()) as stream:
        await stream.next()
        await waits(roster)
        before = steps.count
        await apublish("plain", 1)
        await stream.next()
        await eventually(lambda: steps.count > before, "the stream was woken")


async def test_streams_that_differ_by_viewer_go_the_long_way(
    roster: Roster, server: Server, steps: Steps, with_feed: Callable[[type[LiveFeed]], None]
) -> None:
    class Own(LiveFeed):
        name = "own"
        public = True

        def get_data_for(self, user: Any, event: Any) -> Any:
            return {"for": str(user)}

    with_feed(Own)
    async with open_stream("own", application=server.application()) as stream:
        await stream.next()
        await waits(roster)
        before = steps.count
        await apublish("own", 1)
        assert (await stream.next()).json == {"for": "AnonymousUser"}
        await eventually(lambda: steps.count > before, "the stream was woken")
