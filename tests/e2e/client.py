"""An event stream's client as a browser is one: it reconnects after `retry`, with `Last-Event-ID`, and forgets nothing.

Plain asyncio and httpx, no code of the package: what it accepts is what the standard says (WHATWG HTML 9.2).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

CONNECT_SECONDS = 30.0
LIMIT = 60.0


@dataclass(frozen=True)
class Block:
    """One dispatched event: what the block said, the last event id after it, and when it came (seconds, wall clock)."""

    type: str
    text: str
    id: str
    topic: str
    at: float

    @property
    def data(self) -> Any:
        return json.loads(self.text)


@dataclass
class Parser:
    """Bytes in, blocks out (WHATWG HTML 9.2.6), with the reconnection time and the last event id as they change."""

    last_event_id: str = ""
    retry: float | None = None
    comments: int = 0
    _id: str = ""
    _rest: bytes = b""
    _fields: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._id = self.last_event_id

    def feed(self, data: bytes) -> list[Block]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [block for line in lines if (block := self._line(line.removesuffix(b"\r").decode()))]

    def _line(self, line: str) -> Block | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments += 1
        elif name == "retry":
            self.retry = int(value) / 1000
        elif name == "id":
            self._id = value
        else:
            self._fields.setdefault(name, []).append(value)
        return None

    def _dispatch(self) -> Block | None:
        """End a block. Only here its id counts: that of a block cut off before its end is never sent back."""
        self.last_event_id = self._id
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        return Block(
            type=fields.get("event", ["message"])[-1],
            text="\n".join(fields["data"]),
            id=self.last_event_id,
            topic=fields.get("topic", [""])[-1],
            at=time.time(),
        )


class EventStream:
    """One reader of `url`/livefeed/ for some topics, as an async context manager.

    `blocks` holds everything that was dispatched, `events` what isn't livefeed's own, and `ends` how each connection
    ended: "clean", "broken" (cut off in the middle), "refused" (no connection), or the number of an HTTP status.
    """

    def __init__(
        self,
        url: str,
        topics: Sequence[str],
        *,
        since: str = "",
        cookies: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        reconnect: bool = True,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self.url = f"{url}/livefeed/"
        self.params = [("topic", topic) for topic in topics]
        self.headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache", **(headers or {})}
        if cookies:
            self.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        self.reconnect = reconnect
        self.blocks: list[Block] = []
        self.ends: list[str] = []
        self.response_headers = httpx.Headers()
        self.http_version = ""
        self.comments = 0
        self.retry = 3.0
        self.last_event_id = since
        self._client = client
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def events(self) -> list[Block]:
        return [block for block in self.blocks if not block.type.startswith("livefeed-")]

    def own(self, name: str) -> list[Block]:
        """Return livefeed's own events of one type: `own("open")` are the `livefeed-open` blocks."""
        return [block for block in self.blocks if block.type == f"livefeed-{name}"]

    async def until(self, condition: Callable[[], object], *, what: str, limit: float = LIMIT) -> None:
        """Wait until the condition holds; it is asked again whenever something came in or a connection ended."""
        try:
            async with asyncio.timeout(limit), self._changed:
                await self._changed.wait_for(lambda: bool(condition()))
        except TimeoutError:
            raise AssertionError(
                f"After {limit:g} s still not so: {what}. "
                f"Events: {len(self.events)}, ends: {self.ends}, last blocks: {self.blocks[-3:]}"
            ) from None

    async def opened(self) -> Self:
        """Wait for the first `livefeed-open`."""
        await self.until(lambda: self.own("open"), what=f"{self.url} is open")
        return self

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and error is None:
            self._task.result()

    async def _run(self) -> None:
        if self._client is not None:
            await self._connections(self._client)
            return
        async with new_client() as client:
            await self._connections(client)

    async def _connections(self, client: httpx.AsyncClient) -> None:
        while True:
            self.ends.append(await self._connection(client))
            await self._notify()
            if not self.reconnect:
                return
            await asyncio.sleep(self.retry)

    async def _connection(self, client: httpx.AsyncClient) -> str:
        headers = dict(self.headers)
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        try:
            async with client.stream("GET", self.url, params=self.params, headers=headers) as response:
                self.response_headers = response.headers
                self.http_version = response.http_version
                if response.status_code != httpx.codes.OK:
                    return str(response.status_code)
                await self._read(response)
        except httpx.ConnectError:
            return "refused"
        except httpx.TransportError:
            return "broken"
        return "clean"

    async def _read(self, response: httpx.Response) -> None:
        parser = Parser(last_event_id=self.last_event_id)
        before = self.comments
        async for data in response.aiter_bytes():
            self.blocks += parser.feed(data)
            self.last_event_id = parser.last_event_id
            self.comments = before + parser.comments
            self.retry = self.retry if parser.retry is None else parser.retry
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def new_client(*, http2: bool = False, verify: bool = True) -> httpx.AsyncClient:
    """Return an HTTP client that opens as many connections as it is asked for and waits as long as a stream lasts."""
    return httpx.AsyncClient(
        http2=http2,
        verify=verify,
        trust_env=False,
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
    )
