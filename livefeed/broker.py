"""The one place that talks to the Channels layer.

Its messages carry events and revocations for speed and prove nothing: they may be lost, late, doubled or out of order;
the history repairs that, and regular looks at leases and rights. So nothing here is waited for by a writer, and no
failure here reaches one.

Sending: :func:`send` and :func:`tell` may be called in any thread. They hand over to the *outbox* of the loop that
serves streams in this process, else to a background loop that keeps its connections: several times cheaper than
starting a loop, and connecting, for each call. Receiving: a hub's :class:`Inbox` is one channel, member of a group per
topic, and of one more for revocations.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from channels.layers import InMemoryChannelLayer, channel_layers

from . import revocations
from .conf import settings
from .events import Stretch, pack, unpack
from .revocations import EVERYBODY, Revocation

logger = logging.getLogger("livefeed.broker")

#: Events in one message of the layer.
MESSAGE_EVENTS = 100
#: Events that wait in an outbox, and bytes of their data; beyond that readers are served from the history.
OUTBOX_EVENTS, OUTBOX_BYTES = 10_000, 32 * 1024 * 1024
#: Revocations that wait in an outbox; in place of more, everybody is looked at again.
OUTBOX_REVOCATIONS = 1000
#: What stands for a topic where revocations are told: no topic begins with a colon.
REVOCATIONS = ":revocations"
#: Seconds that one message may take: a layer that hangs is away.
SEND_SECONDS = 5.0
#: Seconds that a process which ends (a command, a worker) gives its last messages: what one may take. On a busy machine
#: it takes more than one second to load a client of Redis and to connect.
LAST_WORDS = SEND_SECONDS


def channel_layer() -> Any:
    """Return the layer that ``LIVEFEED_CHANNEL_LAYER`` names; a site that configured none gets one in memory."""
    if settings.CHANNEL_LAYER in channel_layers:
        return channel_layers[settings.CHANNEL_LAYER]
    return _own_layer()


@cache
def _own_layer() -> Any:
    return InMemoryChannelLayer()


def group_name(topic: str) -> str:
    """Return the group of a topic: the Channels specification allows under 100 ASCII characters and no colon."""
    digest = hashlib.blake2b(topic.encode(), digest_size=16).hexdigest()
    return f"livefeed.{settings.prefix}.{digest}"


class Outbox:
    """The events and revocations that wait to be sent from one event loop, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Stretch] = deque()
        self._revocations: list[Revocation] = []
        self._events = 0
        self._bytes = 0
        self._sending: asyncio.Task[None] | None = None
        self._failing = False

    def put(self, stretch: Stretch) -> None:
        """Take events from any thread. Raises RuntimeError where the loop is closed."""
        self._loop.call_soon_threadsafe(self._put, stretch)

    def _put(self, stretch: Stretch) -> None:
        self._count(stretch, 1)
        if self._events > OUTBOX_EVENTS or self._bytes > OUTBOX_BYTES:
            self._count(stretch, -1)
            self._complain("the outbox is full")
            return
        self._waiting.append(stretch)
        self._start()

    def tell(self, revocation: Revocation) -> None:
        """Take a revocation from any thread. Raises RuntimeError where the loop is closed."""
        self._loop.call_soon_threadsafe(self._tell, revocation)

    def _tell(self, revocation: Revocation) -> None:
        if len(self._revocations) == OUTBOX_REVOCATIONS:
            self._revocations = [EVERYBODY]  # who was to be disconnected is, when leases are prolonged
        self._revocations.append(revocation)
        self._start()

    def _start(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = self._loop.create_task(self._send_all())

    async def _send_all(self) -> None:
        while self._waiting or self._revocations:
            if self._revocations:
                told, self._revocations = list(dict.fromkeys(self._revocations)), []
                await self._send(REVOCATIONS, {"type": "livefeed.revocations", "body": revocations.pack(told)})
            waiting = list(self._waiting)
            self._waiting.clear()
            for stretch in _messages(waiting):
                await self._send(stretch.topic, {"type": "livefeed.events", "body": pack(stretch)})
                self._count(stretch, -1)

    def _count(self, stretch: Stretch, sign: int) -> None:
        self._events += sign * len(stretch.events)
        self._bytes += sign * sum(event.size for event in stretch.events)

    async def _send(self, topic: str, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await channel_layer().group_send(group_name(topic), message)
        except Exception as error:
            self._complain(repr(error))
        else:
            self._failing = False

    def _complain(self, why: str) -> None:
        """Log that the layer is away, once until it works again."""
        if not self._failing:
            logger.warning("The channel layer is away (%s); readers are served from the history.", why)
        self._failing = True

    async def flushed(self) -> None:
        """Wait until nothing waits any more."""
        if self._sending is not None:
            await self._sending


def _messages(stretches: list[Stretch]) -> Iterator[Stretch]:
    """Join the stretches of each topic and epoch, and cut them to the size of a message."""
    joined: dict[tuple[str, str], list[Any]] = {}
    for topic, epoch, events in stretches:
        joined.setdefault((topic, epoch), []).extend(events)
    for (topic, epoch), events in joined.items():
        for start in range(0, len(events), MESSAGE_EVENTS):
            yield Stretch(topic, epoch, events[start : start + MESSAGE_EVENTS])


class _Outboxes:
    """This process's outboxes: that of the loop which serves streams, and one in the background."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving: Outbox | None = None
        self._background: Outbox | None = None

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        self._serving = Outbox(loop)

    def hand_over(self, give: Callable[[Outbox], None]) -> None:
        """Give something to the outbox that is to send it."""
        serving = self._serving
        if serving is not None:
            try:
                return give(serving)
            except RuntimeError:  # that loop is closed
                self._serving = None
        give(self._in_background())

    def _in_background(self) -> Outbox:
        with self._lock:
            if self._background is None:
                loop = asyncio.new_event_loop()
                try:
                    threading.Thread(target=loop.run_forever, name="livefeed-broker", daemon=True).start()
                except RuntimeError:
                    loop.close()
                    raise
                self._background = Outbox(loop)
            return self._background

    def flush(self, timeout: float) -> None:
        """Wait for the background outbox, at most ``timeout`` seconds."""
        if self._background is not None:
            loop = self._background._loop
            with contextlib.suppress(TimeoutError, RuntimeError):
                asyncio.run_coroutine_threadsafe(self._background.flushed(), loop).result(timeout)


_outboxes = _Outboxes()


def _start_anew() -> None:
    """Forget the parent's loops after a fork: their threads did not come along."""
    global _outboxes
    _outboxes = _Outboxes()


os.register_at_fork(after_in_child=_start_anew)
atexit.register(lambda: _outboxes.flush(LAST_WORDS))


def send(stretch: Stretch) -> None:
    """Tell the other processes, soon, of committed events. Callable in any thread; never raises, never waits."""
    _hand_over(lambda outbox: outbox.put(stretch))


def tell(revocation: Revocation) -> None:
    """Tell all processes, this one too, which connections to look at. Callable in any thread; never raises or waits."""
    _hand_over(lambda outbox: outbox.tell(revocation))


def _hand_over(give: Callable[[Outbox], None]) -> None:
    try:
        _outboxes.hand_over(give)
    except Exception as error:  # no file or thread is left for the loop in the background, or the interpreter ends
        logger.warning("Nothing can be sent to the channel layer (%r); readers are served from the history.", error)


def serve_from(loop: asyncio.AbstractEventLoop) -> None:
    """Send from this loop from now on: it serves streams, and with the in-memory layer only it can reach them."""
    _outboxes.serve(loop)


class NotOurs(ValueError):
    """A message on our channel that livefeed did not send."""


def _unpacked(message: Any) -> Stretch | list[Revocation]:
    try:
        if message["type"] == "livefeed.revocations":
            return revocations.unpack(message["body"])
        return unpack(message["body"])
    except (ValueError, TypeError, KeyError) as error:
        raise NotOurs(repr(error)) from error


class Inbox:
    """One channel of the layer, for one hub. What goes wrong in the layer is raised here as the layer raises it.

    The channel is kept as long as the hub lives, whatever fails: a member is a name to the layer, and each new name
    would leave an old one behind that a layer goes on filling until ``group_expiry``.
    """

    def __init__(self) -> None:
        self._layer = channel_layer()
        self._channel = ""
        self._opening = asyncio.Lock()

    async def _open(self) -> str:
        async with self._opening:
            self._channel = self._channel or await self._layer.new_channel("livefeed")
            return self._channel

    async def join(self, topic: str) -> None:
        """Receive a topic's events; to be called again after a failure, and well before the ``group_expiry``."""
        await self._layer.group_add(group_name(topic), await self._open())

    async def leave(self, topic: str) -> None:
        """Receive a topic's events no more."""
        if self._channel:
            await self._layer.group_discard(group_name(topic), self._channel)

    async def receive(self) -> Stretch | list[Revocation]:
        """Return the next message. Raises :exc:`NotOurs` for one that is not ours."""
        channel = await self._open()
        while True:
            try:
                message = await self._layer.receive(channel)
            except Exception as error:
                if not _is_silence(error):
                    raise
            else:
                return _unpacked(message)

    @property
    def expiry(self) -> float:
        """Seconds after which the layer forgets a member that did not join again."""
        return float(getattr(self._layer, "group_expiry", 86_400))


def _is_silence(error: Exception) -> bool:
    """Tell whether a layer has only grown tired of waiting for a message.

    channels_redis waits five seconds at a time, and redis-py 8 gives up on a socket after the same five seconds: its
    TimeoutError, which is none of Python's, comes instead of the empty answer.
    """
    return any(base.__name__ == "TimeoutError" for base in type(error).__mro__)
