"""When readers are woken. Many events in one flush are one write per reader, and writing is what costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from .events import Event
from .stepping import Fleeting, steps_of, write_to_those_in_step
from .tail import Tail

#: Turns of the loop that a flush is watched for: some servers write in a later one.
LAPS = 4
#: Seconds that a flush waits at most, however busy the loop was.
LONGEST_WAIT = 0.5


class Flusher:
    """Decides when readers are woken: at once when the loop is idle, in larger portions the busier it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._moved: dict[Tail, list[bytes]] = {}
        self._offered: dict[Tail, list[Event]] = {}
        self._flushing = False
        self._not_before = 0.0

    def flush_soon(self, tail: Tail, fleeting: Iterable[bytes] = ()) -> None:
        """Wake the readers of a tail; those who wait get the fleeting frames as well."""
        self._moved.setdefault(tail, []).extend(fleeting)
        if not self._flushing:
            self._schedule()

    def offer_soon(self, tail: Tail, fleeting: Iterable[Event]) -> None:
        """Offer the waiting readers of a tail fleeting events that each of them sees in their own way."""
        self._offered.setdefault(tail, []).extend(fleeting)
        self.flush_soon(tail)

    def _schedule(self) -> None:
        self._flushing = True
        self._loop.call_at(max(self._not_before, self._loop.time()), self._flush)

    def _flush(self) -> None:
        began = self._loop.time()
        moved, self._moved = self._moved, {}
        try:
            self._write({tail: Fleeting.of(tail.topic, frames) for tail, frames in moved.items()}, began)
            if self._offered:
                self._offer()
        finally:
            self._watch(LAPS, began)

    def _write(self, moved: dict[Tail, Fleeting], now: float) -> None:
        """Write to the readers in step all together, and let each of the others see to itself."""
        steps = steps_of(moved)
        apart = [(reader, fleeting) for tail, fleeting in moved.items() for reader in tail.apart]
        write_to_those_in_step(steps, moved, now)
        for reader, fleeting in apart:
            reader.wake(fleeting.named if len(reader.tails) > 1 else fleeting.plain)

    def _offer(self) -> None:
        offered, self._offered = self._offered, {}
        for tail, events in offered.items():
            for reader in tail.apart:
                reader.offer(events)

    def _watch(self, laps: int, began: float) -> None:
        """Wait until the loop has done what the flush set off, and take the time."""
        if laps:
            self._loop.call_soon(self._watch, laps - 1, began)
            return
        now = self._loop.time()
        self._not_before = now + min(now - began, LONGEST_WAIT)
        self._flushing = False
        if self._moved:
            self._schedule()
