"""A reader of event streams that hundreds can be of in one process: HTTP/1.1 by hand, no code of the package.

It behaves as a browser's page: it comes back after the `retry` that it was told, with `Last-Event-ID`, to whichever
server a load balancer gives it; a connection that is silent for too long it gives up, as the widget does; and now and
then its lid is closed for a while. It keeps the key of every event, by topic, in the order in which they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import re
import secrets
import sys
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlencode

from tests.e2e.client import Block, Parser

#: Keep-alives that may be missing before a connection counts as dead, as in livefeed.js, and seconds between them if
#: nothing was said yet.
SILENCE = 2.5
KEEPALIVE = 15.0
#: The share of drops after which a reader stays away for longer.
NAPS = 0.05
CHUNK = 65_536
REQUEST = (
    "GET /livefeed/?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (a test)\r\nSec-Fetch-Mode: cors\r\n{more}\r\n"
)


class Seen:
    """What one reader saw of one topic: the events' keys, and when each came (seconds, wall clock)."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.times = array("d")

    def add(self, key: str, at: float) -> None:
        self.keys.append(sys.intern(key))  # many readers see the same ones
        self.times.append(at)


class Dechunker:
    """The body of a response with `Transfer-Encoding: chunked`, piece by piece (RFC 9112, 7.1)."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""
        self._left = 0  # bytes of the chunk under way, with its CRLF

    def feed(self, data: bytes) -> bytes:
        self._rest += data
        body = []
        while self._rest and not self.ended:
            if not self._left and not self._begin():
                break
            piece, self._rest = self._rest[: self._left], self._rest[self._left :]
            body.append(piece[: max(self._left - 2, 0)])
            self._left -= len(piece)
        return b"".join(body)

    def _begin(self) -> bool:
        line, found, rest = self._rest.partition(b"\r\n")
        if found:
            size = int(line.partition(b";")[0], 16)
            self.ended = not size
            self._left, self._rest = size + 2, rest
        return bool(found)


class Counted:
    """The body of a response with `Content-Length`: a refusal has one. Without either it ends with the connection."""

    def __init__(self, length: float) -> None:
        self._left = length

    @property
    def ended(self) -> bool:
        return self._left <= 0

    def feed(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


def _body(head: str) -> Dechunker | Counted:
    if re.search(r"(?mi)^transfer-encoding: *chunked\r$", head):
        return Dechunker()
    length = re.search(r"(?mi)^content-length: *(\d+)\r$", head)
    return Counted(int(length[1]) if length else math.inf)


class Reader:
    """One reader of some topics through the proxy's `ports`. `ends` counts how its connections ended.

    After one drop of twenty it stays away for up to `nap` seconds more.
    """

    def __init__(
        self, name: str, topics: Sequence[str], ports: Sequence[int], rng: random.Random, *, nap: float = 0
    ) -> None:
        self.name = name
        self.topics = tuple(topics)
        self.seen = {topic: Seen() for topic in topics}
        self.opened = asyncio.Event()
        self.resets: list[str] = []
        self.trouble: list[str] = []
        self.ends: Counter[str] = Counter()
        self.deliveries = 0
        self.refusals = 0
        self._ports = ports
        self._rng = rng
        self._query = urlencode([*(("topic", topic) for topic in topics), ("client", secrets.token_urlsafe(12))])
        self._last_event_id = ""
        self._retry = 3.0
        self._keepalive = KEEPALIVE
        self._nap = nap
        self._reload = asyncio.Event()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            self.ends[await self._connection()] += 1
            nap = self._rng.uniform(0, self._nap) if self._rng.random() < NAPS else 0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reload.wait(), self._retry + nap)
            self._reload.clear()

    def reload(self) -> None:
        """Come back now, and not when it is time."""
        self._reload.set()

    async def _connection(self) -> str:
        patience = SILENCE * self._keepalive
        try:
            async with asyncio.timeout(patience):
                stream, writer = await asyncio.open_connection("127.0.0.1", self._rng.choice(self._ports))
        except TimeoutError:
            return "silent"
        except OSError:
            return "refused"
        try:
            more = f"Last-Event-ID: {self._last_event_id}\r\n" if self._last_event_id else ""
            writer.write(REQUEST.format(query=self._query, more=more).encode())
            return await self._read(stream)
        except TimeoutError:
            return "silent"
        except (OSError, asyncio.IncompleteReadError):
            return "broken"
        finally:
            writer.transport.abort()

    async def _read(self, stream: asyncio.StreamReader) -> str:
        async with asyncio.timeout(SILENCE * self._keepalive):
            head = (await stream.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = head.split(" ", 2)[1]
        if status != "200":
            # A browser's EventSource would never come back.
            self.trouble.append(f"an answer with status {status}")
            return f"status {status}"
        body, parser = _body(head), Parser(last_event_id=self._last_event_id)
        while not body.ended:
            async with asyncio.timeout(SILENCE * self._keepalive):
                data = await stream.read(CHUNK)
            if not data:
                return "broken"
            for block in parser.feed(body.feed(data)):
                self._take(block)
            self._last_event_id = parser.last_event_id
            self._retry = self._retry if parser.retry is None else parser.retry
        return "clean"

    def _take(self, block: Block) -> None:
        if not block.type.startswith("livefeed-"):
            self._take_event(block)
        elif block.type == "livefeed-open":
            self._keepalive = float(block.data["keepalive"])
            if set(block.data["topics"]) != set(self.topics):
                self.trouble.append(f"opened with the topics {block.data['topics']}")
            self.opened.set()
        elif block.type == "livefeed-refused":
            self.refusals += 1
        elif block.type == "livefeed-reset":
            self.resets.append(f"{time.strftime('%H:%M:%S')} {block.text}")

    def _take_event(self, block: Block) -> None:
        topic = block.topic or self.topics[0]
        data = json.loads(block.text)
        if topic not in self.seen:
            self.trouble.append(f"an event of {topic!r}, which was not asked for")
            return
        self.seen[topic].add(str(data.get("key") or data["title"]), block.at)
        self.deliveries += 1
