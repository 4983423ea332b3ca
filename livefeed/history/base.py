"""What every history can do. All methods are synchronous and may block: they run in a writer's or a pool's thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async

from ..backends import backend
from ..cursors import NONE_YET, Position, entry, join
from ..events import Event, Stretch
from ..topics import validate_topic


class Head(NamedTuple):
    """The end of a topic: its epoch, the number of its newest event, and the number up to which it was trimmed."""

    epoch: str
    seq: int
    floor: int = 0


class Page(NamedTuple):
    """A part of a topic: the events that follow a position, in order, and where the topic stood before they were read.

    ``cut`` tells that a limit ended it, and not the topic.
    """

    head: Head
    events: Sequence[Event]
    cut: bool = False


class Row(NamedTuple):
    """A row of a table of the site's: the column that is its key, the value of that, what its columns are to hold."""

    table: str
    key: str
    value: Any
    columns: Mapping[str, Any]


class Retention(NamedTuple):
    """How much of a topic is kept: ``seconds`` since the numbering, and that many ``events``; 0 is no limit.

    What either limit does not keep goes.
    """

    seconds: float
    events: int


#: Bytes of data on one page, unless less is asked for.
PAGE_BYTES = 1024 * 1024

#: A topic that never had an event.
EMPTY = Head("", 0, 0)


class History(ABC):
    """Events by topic, each with a number that leaves no hole.

    ``alias`` is the database whose transactions :meth:`record` takes part in, or None for a history outside of Django's
    databases: there events are appended after the commit, and only :meth:`append` is called.
    """

    alias: str | None = None

    @property
    def numbers_elsewhere(self) -> bool:
        """Whether another thread, with a database connection of its own, may number while writers write."""
        return False

    @abstractmethod
    def record(self, events: Sequence[Event]) -> None:
        """Write events in the transaction at hand, without numbers and without a lock."""

    def record_while(self, row: Row, event: Event) -> bool:
        """Write an event outside of a transaction if a row holds just that when it is locked; return whether it does.

        Where a history can't do that in one step it says no.
        """
        return False

    @abstractmethod
    def number(self, topics: Iterable[str]) -> list[Stretch]:
        """Number what is committed on these topics and has no number; return just that, for the broker."""

    @abstractmethod
    def append(self, events: Sequence[Event]) -> list[Stretch]:
        """Write and number events in one go."""

    @abstractmethod
    def leftovers(self, seen: frozenset[int]) -> tuple[list[Stretch], frozenset[int]]:
        """Number what nobody numbered; ``seen`` are the ids that this returned last time.

        An event counts as left over when it lacks a number at two calls in a row: no clock is asked.
        """

    @abstractmethod
    def heads(self, topics: Iterable[str]) -> dict[str, Head]:
        """Return where topics end. Topics without an event are left out."""

    @abstractmethod
    def moved(self, marker: Any) -> tuple[dict[str, Head], Any]:
        """Return the topics that got events since ``marker`` (None: of late), and the next marker.

        A topic may be named by several calls, but none is missed for longer than a full sweep.
        """

    @abstractmethod
    def read(self, topic: str, after: int, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
        """Return numbered events with ``seq > after``, and the head as it was before they were read.

        At most ``limit`` events, and no more than the first that passes ``max_bytes`` of data.

        So an event that the head counts and the page lacks is a hole, and not one that came in between.
        """

    @abstractmethod
    def trim(self, retention: Callable[[str], Retention], topics: Iterable[str] | None = None) -> int:
        """Remove what is kept no more, on these topics or on all of them; return how many events went.

        ``retention`` tells for a topic's name what is kept of it. What goes is a prefix of the topic, by the time of
        numbering, and the head's ``floor`` moves along with it in one step. Logs at level DEBUG how many went of each.
        """

    @abstractmethod
    def renew_epoch(self, topics: Iterable[str] | None = None) -> int:
        """Draw new epochs (for all topics by default), so that every cursor handed out before ends in a reset.

        A topic's first event goes with it, since "none yet" is a cursor too; and a topic that is named and has no event
        gets an epoch, and its number 1 is never read. Returns how many topics have a new epoch.
        """


def fitting(sizes: Iterable[int], max_bytes: int) -> int:
    """Return how many events of these sizes go on a page: up to the first that passes the limit, and that one."""
    count = total = 0
    for size in sizes:
        count += 1
        total += size
        if total > max_bytes:
            break
    return count


def unbroken(events: Sequence[Event]) -> Sequence[Event]:
    """Return events up to the first hole in their numbers: where rows went while they were read, or by hand."""
    for index, event in enumerate(events):
        if event.seq != (events[0].seq or 0) + index:
            return events[:index]
    return events


def get_history() -> History:
    """Return the history that ``LIVEFEED_HISTORY`` names."""
    return backend("HISTORY", History)


def cursor(*topics: str) -> str:
    """Return the cursor of these topics as they stand.

    Take it before reading the data that a page shows, and hand it to the page: whatever changes after it is replayed.
    """
    heads = get_history().heads([validate_topic(topic) for topic in topics])
    return join(entry(topic, position_of(heads.get(topic, EMPTY))) for topic in topics)


async def acursor(*topics: str) -> str:
    """Return the cursor of these topics as they stand; the async twin of :func:`cursor`."""
    return await sync_to_async(cursor)(*topics)


def position_of(head: Head) -> Position:
    """Return the position of a reader who has seen everything."""
    return Position(head.epoch, head.seq) if head.epoch else NONE_YET
