"""What Daphne lacks: it never makes an application wait for a slow client, and drops what is under way when it stops.

Daphne hands an application ``functools.partial(server.handle_reply, protocol)`` as its ``send``, and its protocol is a
``twisted.web.http.Request``, whose ``registerProducer`` is public. A system check holds that this is so.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from .loops import OnePerLoop
from .outlets import Message, Write

#: Turns of the event loop in which what was cancelled comes to its end.
TURNS = 5


class DaphneFlow:
    """Flow control for one response under Daphne: a Twisted push producer, which the transport pauses at 64 KiB."""

    def __init__(self, send: Write, protocol: Any) -> None:
        self._send = send
        self._protocol = protocol
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._registered = False

    @classmethod
    def of(cls, send: Any) -> DaphneFlow | None:
        """Return the flow of a Daphne response; None under other servers, which have flow control of their own."""
        protocol = next(iter(getattr(send, "args", ())), None)
        return cls(send, protocol) if type(protocol).__module__ == "daphne.http_protocol" else None

    async def write(self, message: Message) -> None:
        """Pass a part of the body on, and come back when the client can take more."""
        if not message.get("more_body", False):
            self.stop()
        elif not self._registered and getattr(self._protocol, "channel", self) is not None:  # None: the client has left
            self._registered = True
            self._protocol.registerProducer(self, True)
        await self._send(message)
        if not self._can_write.is_set():
            await self._can_write.wait()

    def stop(self) -> None:
        """Control the flow no more, and let whoever waits go on."""
        if self._registered:
            self._registered = False
            self._can_write.set()
            with contextlib.suppress(Exception):  # the connection is gone, and its channel with it
                self._protocol.unregisterProducer()

    def abort(self) -> None:
        """Cut the connection without waiting for what is not sent."""
        self.stop()
        transport = getattr(self._protocol, "transport", None)
        if transport is not None:
            transport.abortConnection()

    @property
    def connection(self) -> Any:
        """The connection's socket, or None where it is gone."""
        transport = getattr(getattr(self._protocol, "channel", None), "transport", None)
        handle = getattr(transport, "getHandle", None)
        return handle() if callable(handle) else None

    def disconnect(self) -> None:
        """Tell the application that the client has left."""
        self._protocol.application_queue.put_nowait({"type": "http.disconnect"})

    # Twisted's IPushProducer, by whose names the transport calls.

    def pauseProducing(self) -> None:
        self._can_write.clear()

    def resumeProducing(self) -> None:
        self._can_write.set()

    def stopProducing(self) -> None:
        self._can_write.set()


class DaphneRequests:
    """The requests under way in Daphne on one event loop, which it drops when it stops, whatever they wait for.

    Python may then crash while it collects what is left of them. So they are ended before, as by clients that leave,
    and no more are begun. (Cancelling would not do: Django does not pass it on to what a request waits for.)
    """

    def __init__(self) -> None:
        self.stopping = False
        self._tasks: dict[DaphneFlow, asyncio.Task[Any] | None] = {}

    def begin(self, flow: DaphneFlow) -> None:
        """Keep in mind that a request is under way in this task."""
        self._tasks[flow] = asyncio.current_task()

    def is_over(self, flow: DaphneFlow) -> None:
        """Forget it."""
        self._tasks.pop(flow, None)

    async def end(self, grace: float) -> None:
        """End what Daphne would drop, and wait until that is done, at most ``grace`` seconds."""
        self.stopping = True
        tasks = dict(self._tasks)
        for flow in tasks:
            flow.disconnect()
        if waited_for := [task for task in tasks.values() if task is not None]:
            await asyncio.wait(waited_for, timeout=grace)
        for _ in range(TURNS):
            await asyncio.sleep(0)


#: Daphne's requests on the running event loop.
daphne_requests = OnePerLoop(DaphneRequests)
