"""What stands between Django and the server while an event stream is sent.

* Flow control under Daphne, whose ``send()`` never waits: without it a client that does not read fills the memory.
* A limit on how long one write may wait for a client, and the kernel for its word (LIVEFEED_SEND_TIMEOUT).
* The last words of a stream whose application was cancelled, and the end of a connection that can't go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from typing import Any

from . import sse
from .conf import settings
from .daphne import DaphneFlow, daphne_requests
from .door import Passage
from .goodbyes import say_goodbye_on_signals
from .loops import OnePerLoop
from .outlets import Message, Rest, Write, begin
from .sockets import give_up_after
from .streams import own_block

logger = logging.getLogger("livefeed.asgi")

#: Seconds between two looks for writes that wait too long.
REAP_EVERY = 0.5


class Guard:
    """Stands between Django and the server for one request; does nothing until an event stream starts."""

    __slots__ = ("_flow", "_send", "_task", "daphne", "finished", "passage", "sending_since", "streaming", "timed_out")

    def __init__(self, send: Write) -> None:
        self._send = send
        self.daphne = DaphneFlow.of(send)
        self.passage: Passage | None = None  #: through the door, where it came to one
        self._flow: DaphneFlow | None = None
        self._task: asyncio.Task[Any] | None = None
        self.streaming = False
        self.finished = False
        self.timed_out = False
        self.sending_since: float | None = None

    def begin(self) -> None:
        """Let it be known that this request is under way."""
        if self.daphne is not None:
            daphne_requests().begin(self.daphne)

    def _leave_the_door(self) -> None:
        passage, self.passage = self.passage, None
        if passage is not None:
            passage.leave()

    async def send(self, message: Message) -> None:
        """Pass a message on, and come back when the client can take more."""
        if not self.streaming:
            if message["type"] == "http.response.start":
                self._leave_the_door()
                if _is_event_stream(message):
                    self._begin()
            await self._send(message)
            return
        self.finished = not message.get("more_body", False)
        await self._watched(self.write(message))

    @property
    def write(self) -> Write:
        """What hands a message to the server, also in the place of the application while that waits."""
        return self._send if self._flow is None else self._flow.write

    def wait_for(self, rest: Rest) -> Rest | None:
        """Watch a write that has to wait for its client; return what is left to wait for."""
        return begin(self._watched(rest))

    async def _watched(self, writing: Awaitable[None]) -> None:
        self.sending_since = asyncio.get_running_loop().time()
        try:
            await writing
        finally:
            self.sending_since = None

    def fail(self) -> None:
        """Cut the connection, because of the exception that is handled."""
        logger.exception("Writing to an event stream failed; the connection is closed.")
        self.abort()

    def _begin(self) -> None:
        self.streaming = True
        self._task = asyncio.current_task()
        self._flow = self.daphne
        give_up_after(self._connection(), settings.SEND_TIMEOUT)
        reaper().watch(self)
        say_goodbye_on_signals()

    def _connection(self) -> Any:
        """Return the connection's socket, where the server offers a way to it."""
        if self.daphne is not None:
            return self.daphne.connection
        told = getattr(self._transport, "get_extra_info", None)
        return told("socket") if callable(told) else None

    @property
    def _transport(self) -> Any:
        return getattr(getattr(self._send, "__self__", None), "transport", None)  # uvicorn

    async def last_words(self) -> None:
        """Say goodbye in the place of an application that was cancelled: the server stops."""
        if self.streaming and not self.finished:
            body = own_block("closing", {"reason": "shutdown"})
            with contextlib.suppress(Exception):
                await self.send({"type": "http.response.body", "body": body, "more_body": False})

    def time_out(self) -> None:
        """Disconnect a client that has not read for too long."""
        self.timed_out = True
        if not self.abort() and self._task is not None:
            self._task.cancel()

    def abort(self) -> bool:
        """Cut the connection without waiting for what is not sent; return False where the server offers no way to."""
        if self.daphne is not None:
            self.daphne.abort()
            return True
        abort = getattr(self._transport, "abort", None)  # of asyncio's transport, or uvloop's
        if callable(abort):
            abort()
        return callable(abort)

    def release(self) -> None:
        """Forget the request."""
        self._leave_the_door()
        if self.daphne is not None:
            daphne_requests().is_over(self.daphne)
        if self.streaming:
            reaper().forget(self)
            if self._flow is not None:
                self._flow.stop()


def _is_event_stream(message: Message) -> bool:
    wanted = sse.CONTENT_TYPE.encode()
    return any(name.lower() == b"content-type" and value.startswith(wanted) for name, value in message["headers"])


class Reaper:
    """Disconnects the clients of one event loop that keep a write waiting for LIVEFEED_SEND_TIMEOUT seconds."""

    def __init__(self) -> None:
        self._guards: set[Guard] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, guard: Guard) -> None:
        self._guards.add(guard)
        if self._timer is None and settings.SEND_TIMEOUT:
            self._timer = asyncio.get_running_loop().call_later(REAP_EVERY, self._reap)

    def forget(self, guard: Guard) -> None:
        self._guards.discard(guard)
        if not self._guards and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        limit = loop.time() - settings.SEND_TIMEOUT
        for guard in list(self._guards):
            if guard.sending_since is not None and guard.sending_since < limit and not guard.timed_out:
                logger.info("A client did not read for %s s and is disconnected.", settings.SEND_TIMEOUT)
                guard.time_out()
        self._timer = loop.call_later(REAP_EVERY, self._reap) if self._guards else None


#: The reaper of the running event loop.
reaper = OnePerLoop(Reaper)
