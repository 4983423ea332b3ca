"""This process's window on the end of a topic: the frames of its newest events, without a hole, once for all readers.

Plain Python: no Django, no I/O, no clock.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .cursors import Position, entry
from .events import Event
from .sse import with_id

#: Bytes after which a chunk is cut: what a server buffers for one connection before it waits for the client.
CHUNK_BYTES = 64 * 1024
#: Chunks that a window keeps ready: nearly all readers are at the same few positions.
CHUNKS_KEPT = 16
#: Bytes that a frame takes besides its body, and an event that is kept instead of one, besides its data.
FRAME_COST, EVENT_COST = 200, 300


class Frame(NamedTuple):
    """An encoded event: its number, when it was published (seconds, to merge topics by), its block, its own id.

    Where viewers each get a block of their own there is none, but the ``event`` to make it of.
    """

    seq: int
    created_at: float
    body: bytes
    event_id: str
    event: Event | None = None

    @property
    def cost(self) -> int:
        """Bytes of memory that it takes, about."""
        if self.event is None:
            return len(self.body) + FRAME_COST
        text = self.event.json  # one character beyond ASCII can make all of them take four bytes
        return (1 if text.isascii() else 4) * len(text) + EVENT_COST + FRAME_COST


class Fit(enum.Enum):
    """How an event fits to the end of a window."""

    NEXT = enum.auto()
    KNOWN = enum.auto()
    GAP = enum.auto()  #: events before it are missing, or it is of another epoch: the history has to be asked
    CLASH = enum.auto()  #: another event had its number: the history is not the one it was


class Budget:
    """The bytes that all windows of a process may hold together, frames and chunks. Beyond them every window gives up
    its older half, and its chunks.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.windows: set[Window] = set()

    def spend(self, window: Window, size: int) -> None:
        """Count bytes that a window holds from now on, and make room for them."""
        self.used += size
        self.windows.add(window)
        while self.used > self.limit and self.windows:
            for holder in list(self.windows):
                holder.forget_older_half()

    def regain(self, window: Window, size: int) -> None:
        """Count bytes no more."""
        self.used -= size
        if window.head == window.start:
            self.windows.discard(window)


class Window:
    """The newest frames of one topic, contiguous: those after ``start``, up to ``head``."""

    def __init__(self, topic: str, position: Position, budget: Budget) -> None:
        self.topic = topic
        self.epoch = position.epoch
        self.start = position.seq
        #: The number up to which the history is trimmed, as far as it was heard here.
        self.floor = 0
        self._frames: deque[Frame] = deque()
        self._budget = budget
        self._chunks: dict[int, tuple[bytes, Position]] = {}

    @property
    def head(self) -> int:
        """The number of the newest event."""
        return self.start + len(self._frames)

    def fit(self, epoch: str, seq: int, event_id: str) -> Fit:
        """Tell how an event fits; only the very next one can be added."""
        if epoch != self.epoch:
            return Fit.GAP if self.epoch or seq != 1 else Fit.NEXT
        if seq > self.head:
            return Fit.NEXT if seq == self.head + 1 else Fit.GAP
        if seq <= self.start or self._frames[seq - self.start - 1].event_id == event_id:
            return Fit.KNOWN
        return Fit.CLASH

    def add(self, epoch: str, frame: Frame) -> None:
        """Add the next frame."""
        self.epoch = epoch
        self._frames.append(frame)
        self._drop_chunks()
        self._budget.spend(self, frame.cost)

    def precede(self, epoch: str, frames: Sequence[Frame]) -> None:
        """Reach further back, by frames that were read from the history, if they end where the window begins.

        Thousands who come back at once, all from about the same place, are so served by one read. Only in the half of
        the budget that is free otherwise: nothing newer has to go for it.
        """
        size = sum(frame.cost for frame in frames)
        fits = self._budget.used + size <= self._budget.limit // 2
        if fits and frames and epoch == self.epoch and frames[-1].seq == self.start:
            self._frames.extendleft(reversed(frames))
            self.start = frames[0].seq - 1
            self._budget.spend(self, size)

    def restart(self, position: Position) -> None:
        """Begin anew elsewhere, where the history is no longer what it was. Readers of old positions will be told."""
        self._forget(len(self._frames))
        self.epoch, self.start = position

    def forget_older_half(self) -> None:
        """Make room: readers who are further behind will be served from the history."""
        self._forget((len(self._frames) + 1) // 2)

    def _forget(self, count: int) -> None:
        for _ in range(count):
            frame = self._frames.popleft()
            self.start = frame.seq
            self._budget.regain(self, frame.cost)
        self._drop_chunks()

    def _drop_chunks(self) -> None:
        if self._chunks:
            chunks, self._chunks = self._chunks, {}
            self._budget.regain(self, sum(len(chunk) for chunk, _ in chunks.values()))

    def after(self, seq: int) -> Iterator[Frame]:
        """Yield the frames after a position that lies in the window."""
        return (self._frames[index] for index in range(seq - self.start, len(self._frames)))

    def chunk(self, seq: int) -> tuple[bytes, Position]:
        """Return the blocks after a position as one readers of this topic alone get them, and the position after them.

        The same objects serve every reader at that position.
        """
        found = self._chunks.get(seq)
        if found is None:
            if len(self._chunks) == CHUNKS_KEPT:
                self._drop_chunks()
            found = self._chunks[seq] = render(self.topic, self.epoch, self.after(seq))
            self._budget.spend(self, len(found[0]))
        return found


def render(topic: str, epoch: str, frames: Iterable[Frame]) -> tuple[bytes, Position]:
    """Return one chunk of blocks for readers of a single topic, and the position after the last event in it."""
    blocks: list[bytes] = []
    size = last = 0
    for frame in frames:
        blocks.append(with_id(entry(topic, Position(epoch, frame.seq)), frame.body))
        last = frame.seq
        size += len(blocks[-1])
        if size > CHUNK_BYTES:
            break
    return b"".join(blocks), Position(epoch, last)
