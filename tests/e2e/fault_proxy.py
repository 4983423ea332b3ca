"""A TCP proxy before several servers, whose connections fail one by one as those of a network do.

`tests.e2e.wire.Wire` pulls one cable; this one carries hundreds of connections on the event loop that it is started on,
and lets some of them break with a reset, fall silent (neither side is told, as when a phone leaves its network), or
hang for a while and go on.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Self

NO_LINGER = struct.pack("ii", 1, 0)


class Proxy:
    """Carries each connection to one of its `ports` on to the server of the same index, as an async context manager."""

    def __init__(self, targets: Sequence[int]) -> None:
        self.targets = list(targets)
        self.ports: list[int] = []
        self.links: set[Link] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for target in self.targets:
            listener = await loop.create_server(partial(self._accept, target), "127.0.0.1", 0)
            self._stack.callback(listener.close)
            self.ports.append(listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *error: object) -> None:
        for link in list(self.links):
            link.cut()
        await self._stack.aclose()

    def _accept(self, target: int) -> End:
        link = Link(self.links, target)
        return link.client

    def some(self, share: float, rng: random.Random) -> list[Link]:
        """Return a share (0 to 1) of the connections that flow, at least one if there is any."""
        flowing = sorted((link for link in self.links if link.flows), key=lambda link: link.number)
        return rng.sample(flowing, min(len(flowing), max(1, round(len(flowing) * share))))


class Link:
    """One connection: a client's end and a server's end, and what passes between them."""

    _count = 0

    def __init__(self, links: set[Link], target: int) -> None:
        Link._count += 1
        self.number = Link._count
        self.flows = False
        self.client, self.server = End(self), End(self)
        self._links = links
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def made(self, end: End) -> None:
        """Connect to the server when the client has connected; nothing is read from a client before."""
        if end is self.client:
            self._links.add(self)
            end.hold()
            self._task = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: self.server, "127.0.0.1", self._target)
        except OSError:
            self.cut()
            return
        if self in self._links:
            self.flows = True
            self.client.go_on()
        else:
            self.cut()  # the client's end was cut in the meantime

    def carry(self, source: End, data: bytes) -> None:
        self._other(source).write(data)

    def lost(self, end: End, error: Exception | None) -> None:
        """Tell the other end how this one ended: by a reset as a reset."""
        if error is not None:
            self.cut()
        else:
            self._links.discard(self)
            self._other(end).close()

    def cut(self) -> None:
        """Break the connection: both sides get a reset."""
        self._links.discard(self)
        self.flows = False
        for end in (self.client, self.server):
            end.reset()

    def silence(self, seconds: float) -> None:
        """Let nothing pass any more, and tell nobody, not even that the other one has left; cut after `seconds`."""
        self._stop()
        self._loop.call_later(seconds, self.cut)

    def delay(self, seconds: float) -> None:
        """Let nothing pass for some seconds, then everything that has come."""
        self._stop()
        self._loop.call_later(seconds, self._go_on)

    def hold(self, end: End) -> None:
        """Read no more for an end whose buffer is full."""
        self._other(end).hold()

    def release(self, end: End) -> None:
        if self.flows:
            self._other(end).go_on()

    def _stop(self) -> None:
        self.flows = False
        self.client.hold()
        self.server.hold()

    def _go_on(self) -> None:
        if self in self._links:
            self.flows = True
            self.client.go_on()
            self.server.go_on()

    def _other(self, end: End) -> End:
        return self.server if end is self.client else self.client


class End(asyncio.Protocol):
    """One side of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._link.made(self)

    def data_received(self, data: bytes) -> None:
        self._link.carry(self, data)

    def pause_writing(self) -> None:
        self._link.hold(self)

    def resume_writing(self) -> None:
        self._link.release(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._link.lost(self, error)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def hold(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            sock = transport.get_extra_info("socket")
            if sock is not None and sock.fileno() != -1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            transport.abort()
