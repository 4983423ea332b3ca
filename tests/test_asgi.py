"""The wrapper around the ASGI application: it guards event streams, and touches nothing else."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from types import FrameType
from typing import Any

import pytest
from daphne.http_protocol import WebRequest

from livefeed import LiveFeed, apublish, goodbyes, guard
from livefeed.asgi import Wrapped, wrap
from livefeed.goodbyes import say_goodbye_on_signals
from livefeed.guard import Guard, Reaper, reaper
from livefeed.roster import Roster
from livefeed.streams import EventStream
from livefeed.testing import open_stream
from tests.asgi import application as site
from tests.reading import LIMIT, eventually, parse

pytest_plugins = ["tests.reading_fixtures"]

Message = MutableMapping[str, Any]
HTTP: dict[str, Any] = {"type": "http", "path": "/"}
START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"Content-Type", b"text/event-stream")],
}
PAGE: Message = {**START, "headers": [(b"content-type", b"text/html")]}


def chunk(body: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def receive() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("nothing comes")


class Server:
    """What a server offers: a `send` that may make an application wait."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def send(self, message: Message) -> None:
        await self.flowing.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class Transport(asyncio.Transport):
    """A transport that only notes that it was aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = asyncio.Event()

    def abort(self) -> None:
        self.aborted.set()


class UvicornServer(Server):
    """A server whose `send` is a method of what has the transport, as uvicorn's is; a stalled write ends by abort."""

    def __init__(self) -> None:
        super().__init__()
        self.transport = Transport()

    async def send(self, message: Message) -> None:
        if not self.flowing.is_set():
            await self.transport.aborted.wait()
            raise OSError("the client is gone")
        self.sent.append(message)


@pytest.fixture(autouse=True)
def _own_goodbyes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the signals of the test run alone, but for tests that ask for them."""
    monkeypatch.setattr(goodbyes, "_goodbyes", {0: None})
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


# -- what is none of its business -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_anything_but_http_passes_untouched(kind: str) -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([scope, receive, send])

    scope, server = {"type": kind}, Server()
    await wrap(application)(scope, receive, server.send)
    assert seen == [scope, receive, server.send]


async def test_an_ordinary_response_passes_untouched() -> None:
    messages = [PAGE, chunk(b"one"), chunk(b"two", more=False)]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    server = Server()
    await wrap(application)(HTTP, receive, server.send)
    assert server.sent == messages


@pytest.mark.parametrize("start", [None, PAGE])
async def test_errors_of_ordinary_responses_are_the_server_s(start: Message | None) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if start:
            await send(start)
        raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError):
        await wrap(application)(HTTP, receive, UvicornServer().send)


async def test_the_site_s_streams_come_through(roster: Roster) -> None:
    assert isinstance(site, Wrapped)
    async with open_stream("plain", application=site) as stream:
        await stream.next()
        await apublish("plain", {"n": 1})
        assert (await stream.next()).json == {"n": 1}


# -- containment ------------------------------------------------------------------------------------------------------


async def test_an_error_after_the_first_byte_is_contained_and_the_connection_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(chunk(b"data: 1\n\n"))
        raise ZeroDivisionError("oops")

    server = UvicornServer()
    await wrap(application)(HTTP, receive, server.send)
    assert server.transport.aborted.is_set()
    assert "failed after its first byte" in caplog.text


async def test_an_application_that_returns_without_an_end_has_its_connection_cut() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(chunk(b"data: 1\n\n"))

    server = UvicornServer()
    await wrap(application)(HTTP, receive, server.send)
    assert server.transport.aborted.is_set()


async def test_a_stream_that_ended_properly_keeps_its_connection() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(chunk(b"data: 1\n\n"))
        await send(chunk(b"", more=False))

    server = UvicornServer()
    await wrap(application)(HTTP, receive, server.send)
    assert not server.transport.aborted.is_set()


async def test_an_application_that_is_cancelled_says_goodbye_in_its_place() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(chunk(b"data: 1\n\n"))
        await asyncio.Event().wait()

    server = Server()
    task = asyncio.ensure_future(wrap(application)(HTTP, receive, server.send))
    await eventually(lambda: len(server.sent) == 2, "the stream has begun")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event.type for event in parse(server.body)] == ["message", "livefeed-closing"]
    assert server.sent[-1]["more_body"] is False


async def test_an_application_that_is_cancelled_before_its_stream_says_nothing() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    server = Server()
    task = asyncio.ensure_future(wrap(application)(HTTP, receive, server.send))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.sent == []


# -- a client that does not read --------------------------------------------------------------------------------------


async def flood(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    while True:
        await send(chunk(b"data: 1\n\n"))
        await asyncio.sleep(0)


@pytest.fixture
def quick_reaper(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(guard, "REAP_EVERY", 0.01)
    settings.LIVEFEED_SEND_TIMEOUT = 0.05


async def test_a_write_that_waits_too_long_ends_in_an_abort(quick_reaper: None) -> None:
    server = UvicornServer()
    task = asyncio.ensure_future(wrap(flood)(HTTP, receive, server.send))
    await eventually(lambda: len(server.sent) > 5, "the stream flows")
    server.flowing.clear()
    await asyncio.wait_for(task, LIMIT)
    assert server.transport.aborted.is_set()


async def test_where_nothing_can_be_aborted_the_application_is_cancelled(quick_reaper: None) -> None:
    server = Server()
    task = asyncio.ensure_future(wrap(flood)(HTTP, receive, server.send))
    await eventually(lambda: len(server.sent) > 5, "the stream flows")
    server.flowing.clear()
    await asyncio.wait([task], timeout=LIMIT)
    assert task.done()
    assert not task.cancelled()


async def test_a_stream_that_is_idle_is_no_write_that_waits(quick_reaper: None, settings: Any) -> None:
    ended = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(chunk(b"data: 1\n\n"))
        await ended.wait()
        await send(chunk(b"", more=False))

    server = UvicornServer()
    task = asyncio.ensure_future(wrap(application)(HTTP, receive, server.send))
    looks = reaper()
    await eventually(lambda: looks._guards, "the stream is watched")
    for _ in range(3):  # three looks of the reaper, well after the time-out
        await asyncio.sleep(settings.LIVEFEED_SEND_TIMEOUT)
    assert not task.done()
    ended.set()
    await task
    assert not server.transport.aborted.is_set()
    assert not looks._guards


async def test_without_a_time_out_nobody_is_disconnected(quick_reaper: None, settings: Any) -> None:
    settings.LIVEFEED_SEND_TIMEOUT = 0.0
    server = UvicornServer()
    task = asyncio.ensure_future(wrap(flood)(HTTP, receive, server.send))
    await eventually(lambda: len(server.sent) > 5, "the stream flows")
    assert reaper()._timer is None
    task.cancel()
    await asyncio.wait([task])


async def test_the_reaper_rests_when_no_stream_is_open(quick_reaper: None) -> None:
    server = UvicornServer()
    task = asyncio.ensure_future(wrap(flood)(HTTP, receive, server.send))
    await eventually(lambda: reaper()._timer, "the reaper looks")
    task.cancel()
    await asyncio.wait([task])
    await eventually(lambda: reaper()._timer is None, "the reaper rests")


async def test_each_loop_has_a_reaper_of_its_own() -> None:
    async def own() -> Reaper:
        return reaper()

    assert reaper() is reaper()
    assert await asyncio.to_thread(asyncio.run, own()) is not reaper()


# -- Daphne -----------------------------------------------------------------------------------------------------------


class Protocol:
    """Daphne's side of a response: a protocol that buffers whatever it is given, as Twisted's transport does."""

    def __init__(self) -> None:
        self.producer: Any = None
        self.log: list[str] = []
        self.buffered = b""
        self.high_water = 1000
        self.transport = self
        self.aborted = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = producer
        self.log.append("register")

    def unregisterProducer(self) -> None:
        self.producer = None
        self.log.append("unregister")

    def abortConnection(self) -> None:
        self.aborted = True

    def write(self, data: bytes) -> None:
        self.log.append("write")
        self.buffered += data
        if self.producer and len(self.buffered) > self.high_water:
            self.producer.pauseProducing()

    def drain(self) -> None:
        self.buffered = b""
        if self.producer:
            self.producer.resumeProducing()


Protocol.__module__ = "daphne.http_protocol"


async def handle_reply(protocol: Protocol, message: Message) -> None:
    """Daphne's: it never waits."""
    if message["type"] == "http.response.body":
        protocol.write(message["body"])


def daphne_send(protocol: Protocol) -> Callable[[Message], Any]:
    return partial(handle_reply, protocol)


def test_daphne_s_requests_have_what_flow_control_needs() -> None:
    assert WebRequest.__module__ == "daphne.http_protocol"
    for name in ("registerProducer", "unregisterProducer"):
        assert callable(getattr(WebRequest, name))


async def test_under_daphne_a_client_that_does_not_read_stops_the_stream() -> None:
    protocol = Protocol()
    task = asyncio.ensure_future(wrap(flood)(HTTP, receive, daphne_send(protocol)))
    await eventually(lambda: len(protocol.buffered) > protocol.high_water, "the buffer is full")
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(protocol.buffered) < protocol.high_water + 100
    protocol.drain()
    await eventually(lambda: len(protocol.buffered) > protocol.high_water, "the buffer is full again")
    task.cancel()
    await asyncio.wait([task])


async def test_under_daphne_the_producer_is_gone_before_the_last_write() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(chunk(b"data: 1\n\n"))
        await send(chunk(b"", more=False))

    protocol = Protocol()
    await wrap(application)(HTTP, receive, daphne_send(protocol))
    assert protocol.log == ["register", "write", "unregister", "write"]
    assert not protocol.aborted


async def test_under_daphne_an_ordinary_response_has_no_producer() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(PAGE)
        await send(chunk(b"x" * 5000))
        await send(chunk(b"", more=False))

    protocol = Protocol()
    await wrap(application)(HTTP, receive, daphne_send(protocol))
    assert protocol.log == ["write", "write"]


async def test_under_daphne_an_error_cuts_the_connection_and_never_reaches_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(chunk(b"data: 1\n\n"))
        raise ZeroDivisionError("oops")

    protocol = Protocol()
    await wrap(application)(HTTP, receive, daphne_send(protocol))
    assert protocol.aborted
    assert protocol.producer is None


async def test_under_daphne_a_client_that_never_reads_is_disconnected(quick_reaper: None) -> None:
    protocol = Protocol()
    task = asyncio.ensure_future(wrap(flood)(HTTP, receive, daphne_send(protocol)))
    await eventually(lambda: protocol.aborted, "the connection is cut")
    task.cancel()
    await asyncio.wait([task])
    assert protocol.producer is None


async def test_under_daphne_a_client_that_goes_wakes_a_write_that_waits() -> None:
    protocol = Protocol()
    task = asyncio.ensure_future(wrap(flood)(HTTP, receive, daphne_send(protocol)))
    await eventually(lambda: len(protocol.buffered) > protocol.high_water, "the buffer is full")
    before = len(protocol.buffered)
    protocol.producer.stopProducing()
    await eventually(lambda: len(protocol.buffered) > before, "the stream went on")
    task.cancel()
    await asyncio.wait([task])


# -- signals ----------------------------------------------------------------------------------------------------------


class Handler:
    """A server's own signal handler."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.called = asyncio.Event()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.calls.append(number)
        self.called.set()


@pytest.fixture
async def server_handler(monkeypatch: pytest.MonkeyPatch) -> Handler:
    """A server's handler of SIGTERM, and nobody of ours in front of it yet."""
    monkeypatch.setattr(goodbyes, "_goodbyes", {})
    handler = Handler()
    signal.signal(signal.SIGTERM, handler)
    return handler


async def test_a_signal_says_goodbye_first_and_then_goes_its_own_way(roster: Roster, server_handler: Handler) -> None:
    async with open_stream("plain", application=site) as stream:
        await stream.next()
        signal.raise_signal(signal.SIGTERM)
        closing = await stream.next()
        assert (closing.type, closing.json) == ("livefeed-closing", {"reason": "shutdown"})
    await asyncio.wait_for(server_handler.called.wait(), LIMIT)
    assert server_handler.calls == [signal.SIGTERM]
    assert roster.draining


async def test_a_signal_before_the_first_stream_has_begun_is_heard_too(
    roster: Roster, server_handler: Handler, with_feed: Callable[[type[LiveFeed]], None]
) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow(LiveFeed):
        name = "slow"

        async def has_view_permission(self, user: Any, topic: str) -> bool:
            asked.set()
            return await go.wait()

    async def connect() -> int:
        async with open_stream("slow", application=site) as stream:
            return stream.status

    with_feed(Slow)
    connecting = asyncio.create_task(connect())
    await asked.wait()
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(server_handler.called.wait(), LIMIT)
    go.set()
    assert await asyncio.wait_for(connecting, LIMIT) == 503


async def test_a_second_signal_goes_straight_to_the_server(
    roster: Roster, server_handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_stream("plain", application=site) as stream:
        await stream.next()
        monkeypatch.setattr(EventStream, "say_goodbye", lambda stream, reason: None)
        signal.raise_signal(signal.SIGTERM)
        await eventually(lambda: roster.draining, "the roster drains")
        assert server_handler.calls == []
        signal.raise_signal(signal.SIGTERM)
        await eventually(lambda: server_handler.calls == [signal.SIGTERM], "the server heard it")


async def test_signals_are_chained_once(roster: Roster, server_handler: Handler) -> None:
    for _ in range(2):
        async with open_stream("plain", application=site) as stream:
            await stream.next()
    installed = signal.getsignal(signal.SIGTERM)
    say_goodbye_on_signals()
    assert signal.getsignal(signal.SIGTERM) is installed
    assert installed is not server_handler


async def test_signals_are_left_alone_without_time_to_drain(server_handler: Handler, settings: Any) -> None:
    settings.LIVEFEED_DRAIN_SECONDS = 0.0
    say_goodbye_on_signals()
    assert signal.getsignal(signal.SIGTERM) is server_handler


async def test_signals_are_left_alone_outside_of_the_main_thread(server_handler: Handler) -> None:
    async def elsewhere() -> bool:
        say_goodbye_on_signals()
        return threading.current_thread() is threading.main_thread()

    assert not await asyncio.to_thread(asyncio.run, elsewhere())
    assert signal.getsignal(signal.SIGTERM) is server_handler


async def test_a_signal_that_would_simply_kill_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goodbyes, "_goodbyes", {})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    say_goodbye_on_signals()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_transport_that_is_no_asyncio_transport_is_cut_as_well() -> None:
    """uvloop's is none."""
    cut: list[bool] = []

    class Transport:
        def abort(self) -> None:
            cut.append(True)

    class Cycle:
        transport = Transport()

        async def send(self, message: Any) -> None: ...

    assert Guard(Cycle().send).abort()
    assert cut == [True]
