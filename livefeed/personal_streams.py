"""Streams whose events differ by viewer: the same positions, chunks and resets, but each batch is asked for first.

What is hidden moves the position without a word. A visible event's id covers the hidden ones before it; where none
follows, ``livefeed-sync`` takes the place of the next keep-alive, so that hidden events cost no traffic, and nobody is
told when they happened. While a client catches up there is nothing to tell: what it missed it asked for itself. There
each chunk ends in a sync, so that one who is cut off again and again gets on, however much of it is hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import merge
from itertools import count
from typing import Any, NamedTuple

from . import sse
from .conf import settings
from .cursors import Position
from .events import Event
from .hub import Hub
from .outlets import Outlet
from .personal import Asker, Question
from .streams import EventStream, own_block
from .tail import Placed, Subscription, Tail, created_at, placed
from .window import CHUNK_BYTES, Frame

#: Events that a stream asks for at a time: as many as a page of history has.
BATCH_EVENTS = 200

_numbers = count()


class PersonalSubscription(Subscription):
    """One connection's reading, where some events look different to each viewer: a batch of frames at a time."""

    __slots__ = ("offered",)

    def __init__(self, tails: Sequence[Tail], positions: Sequence[Position]) -> None:
        super().__init__(tails, positions)
        self.offered: list[Event] = []

    def offer(self, events: Sequence[Event]) -> None:
        if self._waiter is not None:
            self.offered += events

    def ahead(self) -> list[Placed]:
        """Return what lies after the positions as far as the tails hold it, at most one chunk. Nothing moves yet."""
        tails, positions = self.tails, self.positions
        ready = [index for index in range(len(tails)) if self._in_window(index)]
        found = {index: (tails[index].epoch, tails[index].after(positions[index].seq)) for index in ready}
        batch: list[Placed] = []
        size = 0
        for each in merged(found):
            batch.append(each)
            size += size_of(each.frame)
            if size > CHUNK_BYTES or len(batch) == BATCH_EVENTS:
                break
        return batch


def merged(found: Mapping[int, tuple[str, Iterable[Frame]]]) -> Iterable[Placed]:
    """Return frames (with their epoch, by the topic's index) in the order of publishing."""
    return merge(*(placed(index, epoch, frames) for index, (epoch, frames) in found.items()), key=created_at)


def size_of(frame: Frame) -> int:
    """Return the bytes of a frame, or of the event that one is to be made of."""
    return len(frame.body) if frame.event is None else frame.event.size


class Batch(NamedTuple):
    """What a stream has in work: fleeting events, stored ones, and the question how their viewer sees them."""

    fleeting: Sequence[Event]
    stored: Sequence[Placed]
    question: Question | None

    @property
    def is_answered(self) -> bool:
        return self.question is None or self.question.answer.done()


class PersonalStream(EventStream):
    """A stream some of whose events are its viewer's own."""

    _subscription: PersonalSubscription

    def __init__(
        self, hub: Hub, subscription: PersonalSubscription, opening: bytes, *, asker: Asker, **rest: Any
    ) -> None:
        super().__init__(hub, subscription, opening, **rest)
        self._asker = asker
        self._number = next(_numbers)
        self._batch: Batch | None = None
        self._told = subscription.cursor
        self._untold_since: float | None = None
        self._catches_up = True

    def use(self, outlet: Outlet) -> None:
        """Leave it at the long way: each event is asked for first."""

    async def _next(self) -> bytes:
        while not (self._opening or self._goodbye):
            chunk = self._take_fleeting()  # of topics that look the same to all
            if self._batch is None:
                chunk += await self._begin()
                if self._goodbye:
                    break  # what was read may be what its viewer may read no more
            answered = self._batch if self._batch is not None and self._batch.is_answered else None
            if answered:
                chunk += self._deliver(answered)
            chunk += self._due_sync(chunk)
            if chunk:
                return chunk
            if not answered:
                if self._keep_alive_due:
                    return self._sync() or sse.KEEP_ALIVE
                await self._wait()
        return await super()._next()

    async def _wait(self) -> None:
        await self._subscription.wait()
        if self._batch is not None:
            self._subscription.offered.clear()  # this stream is behind

    # -- one batch ------------------------------------------------------------------------------------------------

    async def _begin(self) -> bytes:
        """Take a batch in work, if there is anything; return resets that come before it."""
        resets = b""
        stored = self._subscription.ahead()
        while not stored and not resets and self._subscription.behind():
            resets, found = await self._missed()
            stored = list(merged(found))
            self._catches_up = True
            if not stored and self._subscription.behind():
                break
            stored = stored or self._subscription.ahead()  # events may have come while the history was read
        if resets:
            self._told = self._subscription.cursor
        fleeting, self._subscription.offered = self._subscription.offered, []
        if stored or fleeting:
            self._batch = Batch(fleeting, stored, self._ask(fleeting, stored))
        if not stored and not resets:
            self._catches_up = False
        return resets

    def _ask(self, fleeting: Sequence[Event], stored: Sequence[Placed]) -> Question | None:
        """Ask how the viewer, as they are now, sees those events of a batch that are not the same for all."""
        events = [*fleeting, *(each.frame.event for each in stored if each.frame.event is not None)]
        if not events:
            return None
        limit = max(CHUNK_BYTES, sum(event.size for event in events))
        question = Question(self.viewer, events, limit, self._number)
        question.answer.add_done_callback(lambda _: self._subscription.wake())
        self._asker.ask(question)
        return question

    def _deliver(self, batch: Batch) -> bytes:
        """Return what the viewer sees of a batch, and move on, as far as it was answered; the rest is asked anew."""
        self._batch = None
        subscription = self._subscription
        several = len(subscription.tails) > 1
        bodies = iter(batch.question.answer.result() if batch.question else ())
        blocks = [
            sse.with_topic(event.topic, body) if several else body
            for event, body in zip(batch.fleeting, bodies, strict=False)
            if body is not None
        ]
        for index, epoch, frame in batch.stored:
            body = frame.body if frame.event is None else next(bodies, b"")
            if body == b"":
                break  # not answered yet
            subscription.move(index, Position(epoch, frame.seq))
            if body is not None:
                self._told = subscription.cursor
                blocks.append(sse.with_id(self._told, body, subscription.tails[index].topic if several else ""))
        return b"".join(blocks)

    # -- what is hidden -------------------------------------------------------------------------------------------

    def _due_sync(self, chunk: bytes) -> bytes:
        """Return a sync where it can't wait for the next keep-alive: for what is fleeting may put that off for ever."""
        if self._told == self._subscription.cursor:
            self._untold_since = None
            return b""
        now = self._loop.time()
        if self._untold_since is None:
            self._untold_since = now
        late = now - self._untold_since >= settings.KEEPALIVE
        return self._sync() if self._catches_up or (chunk and late) else b""

    def _sync(self) -> bytes:
        """Return a block that tells the position, where it moved on in silence since it was told."""
        if self._told == self._subscription.cursor:
            return b""
        self._told = self._subscription.cursor
        return own_block("sync", {"cursor": self._told}, self._told)

    def _end(self) -> None:
        batch, self._batch = self._batch, None
        if batch is not None and batch.question is not None:
            batch.question.drop()
        super()._end()
