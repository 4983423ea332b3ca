"""The wire between a client and a server, as a TCP proxy that can be cut, mended and made to swallow everything.

Playwright's `set_offline` leaves an open stream alone; pulling this wire does what a tunnel or a lost network does.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from tests.processes import free_port

CHUNK = 65536
LIMIT = 10.0


class Wire:
    """A TCP proxy from a free port to `target`, with an event loop in a thread of its own."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()  # which no connection gets as its own while the wire is cut
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"wire to {target}")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stalled = False
        self._flows: set[asyncio.Event] = set()  # one for each connection: whether it carries anything
        self._used: set[asyncio.Event] = set()
        self._lost: set[asyncio.Event] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection with a reset, and refuse new ones until `mend()`."""
        self._call(self._cut)

    def mend(self) -> None:
        """Take connections again, on the same port, and let bytes pass."""
        self._call(self._listen)

    def stall(self) -> None:
        """Keep the connections but let nothing pass, in either direction, until `mend()`: a half-open connection."""
        self._call(self._stall)

    def lose(self) -> None:
        """Let nothing pass any more where something has passed, for ever, and tell nobody; new connections are whole.

        Those that a browser has opened beforehand, for later, are new.
        """
        self._call(self._lose)

    def __enter__(self) -> Self:
        self._thread.start()
        self.mend()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(step(), self._loop)
        future.result(LIMIT)

    async def _listen(self) -> None:
        self._let(self._flows)
        if self._server is None:
            self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)

    async def _stall(self) -> None:
        self._stalled = True
        for flow in self._flows:
            flow.clear()

    async def _lose(self) -> None:
        for flow in self._used:
            flow.clear()
        self._lost |= self._used
        self._flows -= self._used
        self._used.clear()

    def _let(self, flows: set[asyncio.Event]) -> None:
        self._stalled = False
        for flow in flows:
            flow.set()

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            _reset(writer)
        self._let(self._flows | self._lost)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _close(self) -> None:
        await self._cut()

    async def _join(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Carry bytes both ways until either side ends."""
        task = asyncio.current_task()
        assert task is not None
        flow = asyncio.Event()
        self._flows.add(flow)
        if not self._stalled:
            flow.set()
        self._tasks.add(task)
        self._writers.add(client)
        try:
            server_reader, server = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(server)
            await asyncio.gather(self._carry(client_reader, server, flow), self._carry(server_reader, client, flow))
            self._writers.discard(server)
        except OSError:
            _reset(client)
        finally:
            self._writers.discard(client)
            self._tasks.discard(task)
            for flows in (self._flows, self._used, self._lost):
                flows.discard(flow)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flow: asyncio.Event) -> None:
        try:
            while data := await source.read(CHUNK):
                self._used |= {flow} - self._lost
                await flow.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a reset, as a network does that has gone away under it."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() != -1:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
