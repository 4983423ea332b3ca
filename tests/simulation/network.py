"""Connections between readers and servers: bytes take their time, get stuck, are cut off in the middle, or vanish."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from livefeed.access import Grant
from livefeed.cursors import Cursor, parse_cursor
from livefeed.exceptions import InvalidCursor, LimitReached
from livefeed.outlets import Message, Rest
from livefeed.streams import EventStream
from livefeed.viewers import Viewer

if TYPE_CHECKING:
    from .world import Process, World

#: Chunks on the way to a reader that does not read, before the server has to wait.
WINDOW = 3
#: Seconds until a server hears at the latest that a client has left, and that one has left without a word.
HEARS, REAPS = 0.5, 40.0


class Client(Protocol):
    """What a connection needs of a reader."""

    topics: list[str]
    viewer: Viewer
    stalled: bool
    #: How probable it is that a chunk is cut off in the middle, and the connection with it.
    flakiness: float

    def data(self, connection: Connection, data: bytes) -> None: ...
    def ended(self, connection: Connection) -> None: ...


class Connection:
    """One request for a stream, and its response."""

    def __init__(self, world: World, process: Process, client: Client, cursor: str) -> None:
        self._world = world
        self._client = client
        self._pipe: deque[bytes] = deque()
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._process = process
        self._over = False
        self._finished = False
        self.silent = False
        process.loop.call_soon(self._accept, cursor)
        process.on_death.append(self.cut)

    # -- the server's end -----------------------------------------------------------------------------------------

    def _accept(self, cursor: str) -> None:
        self._task = self._process.loop.create_task(self._serve(cursor))

    async def _serve(self, cursor: str) -> None:
        """Answer as the view does, then send as Django's handler does."""
        assert self._process.roster is not None
        granted = Grant(dict.fromkeys(self._client.topics, ""), [])
        try:
            parsed, garbage = _parsed(cursor)
            stream = await self._process.roster.open(self._client.viewer, "", granted, parsed, garbage=garbage)
        except LimitReached as limit:
            self._finish(f"refused: {limit}")
            return
        except Exception as error:
            self._finish(f"refused: {error!r}")
            return
        try:
            await self._send_all(stream)
        finally:
            await stream.aclose()
        self._finish("a clean end")

    async def _send_all(self, stream: EventStream) -> None:
        if self._world.chance(0.5):
            stream.use(self)
        async for chunk in stream:
            await self._send(chunk)

    async def _send(self, chunk: bytes) -> None:
        self._pipe.append(chunk)
        self._world.after(self._world.random.uniform(0, 0.01), self.flow)
        while len(self._pipe) > WINDOW:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def write(self, message: Message) -> None:
        """Take a part of the body as a server does whose ``send`` may be started outside of a task."""
        await self._send(message["body"])

    def wait_for(self, rest: Rest) -> Rest:
        """Leave the writes that have to wait to themselves."""
        return rest

    def fail(self) -> None:
        """Refuse: nothing fails here."""
        raise AssertionError("a write failed")

    def _finish(self, how: str) -> None:
        self._finished = True
        self._world.tell(f"{self._client}: {how}")
        self._world.after(self._world.random.uniform(0, 0.01), self.flow)

    def _hang_up(self) -> None:
        """Let the server know that the client has left: Django cancels the response."""
        if self._process.alive and self._task is not None:
            self._process.loop.call_soon(self._task.cancel)

    # -- the wire -------------------------------------------------------------------------------------------------

    def flow(self) -> None:
        """Deliver what is on the way, if the client reads."""
        while self._pipe and not self._over and not self.silent and not self._client.stalled:
            if self._world.chance(self._client.flakiness):
                self.cut()
            else:
                self._client.data(self, self._pipe.popleft())
        if self._room is not None and not self._room.done() and len(self._pipe) <= WINDOW:
            self._room.set_result(None)
        if self._finished and not self._pipe:
            self._end()

    def cut(self) -> None:
        """Cut the connection, perhaps in the middle of a chunk."""
        if not self._over:
            if self._pipe and not self.silent and not self._client.stalled:
                part = self._pipe.popleft()
                self._client.data(self, part[: self._world.random.randint(0, len(part))])
            self._world.after(self._world.random.uniform(0, HEARS), self._hang_up)
            self._end()

    def go_silent(self) -> None:
        """Lose every packet from now on; the server gives up after a while, the client by its watchdog."""
        self.silent = True
        self._world.after(REAPS, self._hang_up)

    def leave(self) -> None:
        """Let the client close the connection."""
        if not self._over:
            self._over = True
            self._world.after(self._world.random.uniform(0, HEARS), self._hang_up)

    def _end(self) -> None:
        if not self._over and not self.silent:
            self._over = True
            self._client.ended(self)


def _parsed(cursor: str) -> tuple[Cursor | None, bool]:
    try:
        return (parse_cursor(cursor) if cursor else None), False
    except InvalidCursor:
        return None, True
