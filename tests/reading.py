"""What the tests of the reading half share: ways to write behind a hub's back, and to see what arrives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from livefeed import sse
from livefeed.cursors import NONE_YET, Position
from livefeed.events import Event, Stretch, new_event
from livefeed.history import get_history
from livefeed.hub import Hub
from livefeed.tail import Subscription
from livefeed.testing import EventStreamParser, ServerSentEvent

LIMIT = 5.0


async def eventually(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> Any:
    """Wait until a condition holds (plain or awaitable), for what tells nobody when it changes; return what it gave."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert loop.time() < deadline, f"After {limit:g} s still not so: {what}."
        await asyncio.sleep(0.005)


def parse(data: bytes, last_event_id: str = "") -> list[ServerSentEvent]:
    """Return the events of a whole text."""
    return EventStreamParser(last_event_id).push(data)


def numbers(events: Sequence[ServerSentEvent]) -> list[int]:
    """Return what events made by :func:`append` count."""
    return [event.json["n"] for event in events if not event.type.startswith("livefeed-")]


def append(topic: str, *ns: int, type: str = "message") -> list[Stretch]:
    """Append events ``{"n": …}`` to the history as another process would: the layer does not hear of it."""
    return get_history().append([new_event(topic, {"n": n}, type) for n in ns])


def fleeting(topic: str, data: Any, type: str = "typing") -> Stretch:
    """Return what the layer brings for ``publish(topic, data, type=type, store=False)``."""
    return Stretch(topic, "", (new_event(topic, data, type),))


def singles(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Cut stretches into one message for each event."""
    return [replace_events(stretch, [event]) for stretch in stretches for event in stretch.events]


def replace_events(stretch: Stretch, events: Sequence[Event]) -> Stretch:
    return Stretch(stretch.topic, stretch.epoch, tuple(events))


def renumbered(stretch: Stretch, seq: int) -> Stretch:
    return replace_events(stretch, [replace(event, seq=seq) for event in stretch.events])


def plain_encode(event: Event) -> bytes:
    return sse.frame(event.type, event.json)


async def subscribe(hub: Hub, *topics: str, positions: Sequence[Position] | None = None) -> Subscription:
    """Return a subscription to topics, from their ends if nothing else is said."""
    tails = await hub.open(topics)
    ends = [Position(tail.epoch, tail.head) if tail.epoch else NONE_YET for tail in tails]
    subscription = Subscription(tails, ends if positions is None else positions)
    hub.attach(subscription)
    return subscription


async def woken(subscription: Subscription) -> bytes:
    """Wait until a subscription has something to take, and take it."""
    async with asyncio.timeout(LIMIT):
        while not (chunk := subscription.take()):
            await subscription.wait()
    return chunk


def pool_threads() -> list[threading.Thread]:
    """Return the hubs' threads."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("livefeed_")]
