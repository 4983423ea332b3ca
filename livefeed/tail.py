"""The tail of a topic with those who read it, and one reader's way through such tails.

Plain Python: no Django, no I/O, no clock. A subscription holds a position per topic and no queue: it asks for what lies
after its positions and gets one chunk of it. A position only ever moves on by one event, so no event can be skipped or
come twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from operator import attrgetter
from typing import NamedTuple, Protocol

from .cohorts import Cohort
from .cursors import NONE_YET, Position, entry, join
from .events import Event
from .outlets import Rest, Write
from .sse import with_id, with_topic
from .window import CHUNK_BYTES, Budget, Frame, Window


class Step(NamedTuple):
    """What a cohort gets next, and the position after it."""

    position: Position
    chunk: bytes = b""  #: as those get it who read the topic alone
    epoch: str = ""
    frames: Sequence[Frame] = ()
    blocks: Sequence[tuple[str, bytes]] = ()  #: each frame's entry of a cursor, and what stands behind the ``id:``


class Tail(Window):
    """The window on one topic, and its readers in this process."""

    def __init__(self, topic: str, position: Position, budget: Budget) -> None:
        super().__init__(topic, position, budget)
        #: The readers who are in step, and all others, a set in the order of attaching.
        self.cohort: Cohort[Subscription] = Cohort()
        self.apart: dict[Subscription, None] = {}

    @property
    def readers(self) -> list[Subscription]:
        """Everybody who reads here."""
        return [*self.apart, *self.cohort.readers()]

    def step(self) -> Step | None:
        """Return what the cohort gets next; None where it has to part: it is behind, or that is more than a chunk."""
        at = self.cohort.position
        if at == (self.epoch, self.head):
            return Step(at)
        if not (at == NONE_YET or at.epoch == self.epoch) or not self.start <= at.seq < self.head:
            return None
        frames = list(self.after(at.seq))  # first: to keep a chunk may take frames' room
        chunk, position = self.chunk(at.seq)
        if position.seq < frames[-1].seq:
            return None
        blocks = [
            (entry(self.topic, Position(self.epoch, each.seq)), with_topic(self.topic, each.body)) for each in frames
        ]
        return Step(position, chunk, self.epoch, frames, blocks)


class Writer(Protocol):
    """Who can write for a reader that waits."""

    def go_on(self, rest: Rest) -> None:
        """Let the reader's own task wait for the rest of a write."""

    def cut(self) -> None:
        """Cut the connection: a write failed, with the exception that is handled."""

    def fail(self, error: Exception) -> None:
        """Let the reader's own task see to an error."""

    def write_through(self) -> bool:
        """Write what there is; return whether that was all, and the reader may wait on."""


class Subscription:
    """One connection's reading: its tails, and its position on each."""

    __slots__ = ("_entries", "_waiter", "_write", "fleeting", "positions", "tails", "writer", "written_at")

    def __init__(self, tails: Sequence[Tail], positions: Sequence[Position]) -> None:
        self.tails = tuple(tails)
        #: Kept by the cohorts while it is in step.
        self.positions = list(positions)
        self.fleeting = b""
        #: When something was last written, as far as its own writer did that.
        self.written_at = 0.0
        self._write: Write | None = None  # to the server, while in step
        self._entries: list[str] | None = None  # of the cursor, as far as it was asked for
        #: Asked to write in the place of a reader that waits, so that it need not be woken.
        self.writer: Writer | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def cursor(self) -> str:
        """The positions as text."""
        if self._entries is None:
            tails = zip(self.tails, self.positions, strict=True)
            self._entries = [entry(tail.topic, position) for tail, position in tails]
        return join(self._entries)

    def move(self, index: int, position: Position) -> None:
        """Set the position on one topic."""
        self.positions[index] = position
        if self._entries is not None:
            self._entries[index] = entry(self.tails[index].topic, position)

    def take(self) -> bytes:
        """Return what lies after the positions, as far as the tails hold it, as one chunk, and move on; else b""."""
        if len(self.tails) > 1:
            ready = [index for index in range(len(self.tails)) if self._in_window(index)]
            if len(ready) == 1:
                return self._take_from(ready[0])
            return self.deliver({i: (self.tails[i].epoch, self.tails[i].after(self.positions[i].seq)) for i in ready})
        if not self._in_window(0):
            return b""
        chunk, self.positions[0] = self.tails[0].chunk(self.positions[0].seq)
        self._entries = None
        return chunk

    def _take_from(self, index: int) -> bytes:
        """Return one chunk of what one of several topics holds for us: there is nothing to be put in order."""
        tail = self.tails[index]
        blocks: list[bytes] = []
        size = 0
        for frame in tail.after(self.positions[index].seq):
            self.move(index, Position(tail.epoch, frame.seq))
            blocks.append(with_id(self.cursor, frame.body, tail.topic))
            size += len(blocks[-1])
            if size > CHUNK_BYTES:
                break
        return b"".join(blocks)

    def deliver(self, found: dict[int, tuple[str, Iterable[Frame]]], limit: int | None = CHUNK_BYTES) -> bytes:
        """Return what was found (epoch and frames, by the topic's index) as one chunk, in the order of publishing."""
        blocks: list[bytes] = []
        size = 0
        several = len(self.tails) > 1
        sources = [placed(index, epoch, frames) for index, (epoch, frames) in found.items()]
        for index, epoch, frame in merge(*sources, key=created_at):
            self.move(index, Position(epoch, frame.seq))
            blocks.append(with_id(self.cursor, frame.body, self.tails[index].topic if several else ""))
            size += len(blocks[-1])
            if limit is not None and size > limit:
                break
        return b"".join(blocks)

    def _in_window(self, index: int) -> bool:
        """Tell whether the tail has something for us: same epoch (or our first one), not behind it, not at its head."""
        tail, position = self.tails[index], self.positions[index]
        head = tail.head
        if position.seq == head:
            return False
        return tail.start <= position.seq < head and (position.epoch == tail.epoch or position == NONE_YET)

    def behind(self) -> list[int]:
        """Return the topics on which only the history can say what comes next."""
        return [index for index in range(len(self.tails)) if self._is_behind(index)]

    def _is_behind(self, index: int) -> bool:
        tail, position = self.tails[index], self.positions[index]
        if position.epoch != tail.epoch:
            return position != NONE_YET or tail.start > 0
        return position.seq < tail.start

    def is_current(self) -> bool:
        """Tell whether nothing lies after the positions."""
        if len(self.tails) == 1:
            return self.positions[0].seq == self.tails[0].head and self.positions[0].epoch == self.tails[0].epoch
        for tail, position in zip(self.tails, self.positions, strict=True):
            if position.seq != tail.head or position.epoch != tail.epoch:
                return False
        return True

    # -- in step with others ---------------------------------------------------------------------------------------

    def step_in(self, write: Write) -> None:
        """Move on together with all who wait at the same places, as long as this reader waits."""
        places = list(zip(self.tails, self.positions, strict=True))
        if not self.is_current() or not all(tail.cohort.has_room_at(position) for tail, position in places):
            return
        self._write = write
        for index, (tail, position) in enumerate(places):
            tail.cohort.position = position
            if len(places) > 1:
                tail.cohort.several[write] = self, index
            else:
                tail.cohort.alone[write] = self
            tail.apart.pop(self, None)
        self._entries = [entry(tail.topic, position) for tail, position in places] if len(places) > 1 else None

    def step_out(self) -> None:
        """Stand for itself again."""
        if self._write is None:
            return
        self.written_at = self.last_written
        write, self._write = self._write, None
        for index, tail in enumerate(self.tails):
            self.positions[index] = tail.cohort.position
            (tail.cohort.several if len(self.tails) > 1 else tail.cohort.alone).pop(write)
            tail.apart[self] = None
        self._entries = None

    @property
    def last_written(self) -> float:
        """When something was last written, also to all who are in step."""
        written = self.written_at
        if self._write is not None:
            for tail in self.tails:  # asked of every reader each second: max() over a generator takes thrice as long
                written = max(written, tail.cohort.written_at)
        return written

    def follow(self, index: int, step: Step) -> bytes:
        """Return the blocks of a step on one of several topics."""
        entries, blocks = self._entries, []
        assert entries is not None
        for entries[index], rest in step.blocks:
            blocks.append(f"id: {join(entries)}\n".encode() + rest)
        return b"".join(blocks)

    def follow_all(self, steps: Mapping[Tail, Step]) -> bytes:
        """Return the blocks of the steps on all of its topics, in the order of publishing."""
        mine = {index: steps[tail] for index, tail in enumerate(self.tails) if tail in steps}
        return self.deliver({index: (step.epoch, step.frames) for index, step in mine.items()}, limit=None)

    def go_on(self, rest: Rest) -> None:
        """Wait, by itself, for the rest of a write that was begun while it was in step."""
        self.step_out()
        self._its_writer.go_on(rest)

    def cut(self) -> None:
        """End, because a write failed, with the exception that is handled."""
        self.step_out()
        self._its_writer.cut()

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.step_out()
        self._its_writer.fail(error)

    @property
    def _its_writer(self) -> Writer:
        assert self.writer is not None, "who is in step has a writer"
        return self.writer

    # -- waiting ----------------------------------------------------------------------------------------------------

    def wake(self, fleeting: bytes = b"") -> None:
        """Let a reader that waits go on. One that is still writing finds out by itself, and misses what is fleeting."""
        waiter = self._waiter
        if waiter is None:
            return
        self.step_out()
        if fleeting:
            self.fleeting += fleeting
        if not waiter.done() and (self.writer is None or not self.writer.write_through()):
            waiter.set_result(None)

    def offer(self, events: Sequence[Event]) -> None:
        """Take fleeting events that viewers each see in their own way; who has no eyes for that misses them."""

    async def wait(self) -> None:
        """Wait for :meth:`wake`."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.step_out()


class Placed(NamedTuple):
    """A frame, with the index of its topic in a subscription, and the epoch of its number."""

    topic: int
    epoch: str
    frame: Frame


def placed(index: int, epoch: str, frames: Iterable[Frame]) -> Iterator[Placed]:
    """Say of each frame where it belongs."""
    return (Placed(index, epoch, frame) for frame in frames)


#: By this the frames of several topics are merged.
created_at = attrgetter("frame.created_at")
