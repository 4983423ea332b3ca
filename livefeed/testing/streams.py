"""Reading a stream in the process of the test, through the whole site, as a client does."""

from __future__ import annotations

import asyncio
import json
import re
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

from asgiref.testing import ApplicationCommunicator as _Communicator
from django.core.asgi import get_asgi_application
from django.test import AsyncClient

from ..links import stream_url
from ..roster import close_roster, rosters

_LINE_END = re.compile(r"\r\n|\r|\n")
_DIGITS = re.compile(r"[0-9]+")
# asgiref's class has no annotations.
ApplicationCommunicator: Any = _Communicator


class ServerSentEvent(NamedTuple):
    """One event as a client gets it. ``id`` is the last event id, as EventSource's ``lastEventId``."""

    type: str
    data: str
    id: str
    topic: str = ""

    @property
    def json(self) -> Any:
        """The data, decoded from JSON."""
        return json.loads(self.data)


class EventStreamParser:
    """The parser of WHATWG HTML, section 9.2.6 "Interpreting an event stream", fed with bytes in any portions.

    ``retry`` is the reconnection time in milliseconds, once the server named one; ``comments`` counts comment lines.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.retry: int | None = None
        self.comments = 0
        self.last_event_id = last_event_id
        self._id = last_event_id
        self._decoder = getincrementaldecoder("utf-8-sig")("replace")
        self._line = ""
        self._after_cr = False
        self._type = ""
        self._topic = ""
        self._data: list[str] = []

    def push(self, portion: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the events that they complete."""
        text = self._decoder.decode(portion)
        if not text:
            return []
        if self._after_cr:
            text = text.removeprefix("\n")  # the second half of a CR LF: the line has ended with the first
        self._after_cr = portion.endswith(b"\r")
        *lines, self._line = _LINE_END.split(self._line + text)
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        self._field(name, value.removeprefix(" "))
        return None

    def _field(self, name: str, value: str) -> None:
        if not name:
            self.comments += 1
        elif name == "event":
            self._type = value
        elif name == "topic":
            self._topic = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and _DIGITS.fullmatch(value):
            self.retry = int(value[:18])

    def _dispatch(self) -> ServerSentEvent | None:
        self.last_event_id = self._id  # of a block without data as well, but not of one that was cut off
        data, type, topic = self._data, self._type, self._topic
        self._data, self._type, self._topic = [], "", ""
        return ServerSentEvent(type or "message", "\n".join(data), self.last_event_id, topic) if data else None


class EventStreamClient:
    """A stream, read through the site's whole ASGI application in this process; made by :func:`open_stream`.

    ``timeout`` is in seconds, for each wait, and may be changed at any time.
    """

    def __init__(self, communicator: Any, timeout: float) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.parser = EventStreamParser()
        self.ended = False
        self._communicator = communicator
        self.timeout = timeout
        self._waiting: list[ServerSentEvent] = []

    async def start(self) -> None:
        """Wait for the status and the headers."""
        start = await self._message()
        self.status = start["status"]
        self.headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in start["headers"]}

    async def _message(self) -> dict[str, Any]:
        """Return what the application sends next; raise what it raises. A wait in vain does no harm to the stream."""
        message = asyncio.ensure_future(self._communicator.output_queue.get())
        try:
            async with asyncio.timeout(self.timeout):
                await asyncio.wait([message, self._communicator.future], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not message.done():
                message.cancel()
        if message.cancelled() or not message.done():
            self._communicator.future.result()
            raise EOFError("The application ended without a word.")
        sent: dict[str, Any] = message.result()
        return sent

    async def next(self) -> ServerSentEvent:
        """Return the next event. Raises TimeoutError, and EOFError where the stream ended."""
        while not self._waiting:
            self._waiting += self.parser.push(await self.portion())
        return self._waiting.pop(0)

    async def take(self, count: int) -> list[ServerSentEvent]:
        """Return the next ``count`` events."""
        return [await self.next() for _ in range(count)]

    async def portion(self) -> bytes:
        """Return what the server writes next, as it is."""
        if self.ended:
            raise EOFError("The stream has ended.")
        message = await self._message()
        self.ended = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def body(self) -> bytes:
        """Return all that the server writes until it ends."""
        portions = []
        while not self.ended:
            portions.append(await self.portion())
        return b"".join(portions)

    async def close(self) -> None:
        """Leave, as a client does that closes its connection."""
        if not self.ended:
            await self._communicator.send_input({"type": "http.disconnect"})
        await self._communicator.wait(self.timeout)


@asynccontextmanager
async def open_stream(
    *topics: str,
    user: Any = None,
    cursor: str = "",
    headers: dict[str, str] | None = None,
    query: Sequence[tuple[str, str]] = (),
    application: Any = None,
    timeout: float = 5.0,  # noqa: ASYNC109 - of each wait, not of the whole
) -> AsyncIterator[EventStreamClient]:
    """Connect to the site's streams as a user, in this process, and leave at the end of the block::

        async with open_stream("news.article", user=reader) as stream:
            opening = await stream.next()
            await Article.objects.acreate(title="Hello")
            event = await stream.next()
        assert event.json["title"] == "Hello"

    ``cursor`` is sent as Last-Event-ID; ``timeout`` is in seconds, for each wait; ``application`` is the ASGI
    application to talk to, by default Django's own.
    """
    client = AsyncClient()
    if user is not None:
        await client.aforce_login(user)
    sent = {"accept": "text/event-stream", "host": "testserver", **({"last-event-id": cursor} if cursor else {})}
    sent["cookie"] = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": stream_url(),
        "query_string": urlencode([("topic", topic) for topic in topics] + list(query)).encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in {**sent, **(headers or {})}.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("testserver", 80),
    }
    first = asyncio.get_running_loop() not in dict(rosters())
    communicator = ApplicationCommunicator(application or get_asgi_application(), scope)
    await communicator.send_input({"type": "http.request", "body": b"", "more_body": False})
    stream = EventStreamClient(communicator, timeout)
    try:
        await stream.start()
        yield stream
    finally:
        await stream.close()
        if first:  # a test's event loop ends with the test, and what serves its streams must not outlive it
            await close_roster()
