"""The history in Django's database (``LIVEFEED_DATABASE``): an outbox that is numbered after the commit.

In a writer's transaction :meth:`record` only inserts, so nothing is locked there, nobody waits, nothing deadlocks.
After the commit :meth:`number` locks the topics' rows for a moment and gives every committed row without a number the
next ones, in the order of insertion. Whoever numbers, numbers for all: if a publisher dies after its commit, the next
publisher or a hub's look does it.

The topic's row is locked by the first statement of the transaction: SELECT … FOR UPDATE, which InnoDB does not answer
from a snapshot at REPEATABLE READ either. On SQLite it is an UPDATE: a transaction that reads first and writes later
fails with "database is locked" where another one wrote in between. The rows are then found by a plain SELECT: on InnoDB
a locking one would wait for the inserts of others. All this holds at READ COMMITTED; where a site uses a stricter level
the loser of a race is told so by the database and tries again. On PostgreSQL one statement does all this, and only
where that does nothing the lock is taken before (see ``postgresql``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.db import connections
from django.db.models import (
    BigIntegerField,
    Case,
    DateTimeField,
    ExpressionWrapper,
    F,
    Max,
    OuterRef,
    QuerySet,
    Subquery,
    TextField,
    Value,
    When,
)
from django.db.models.functions import Greatest, Least, Now

from ..conf import settings
from ..cursors import new_epoch
from ..events import Event, Stretch
from ..models import StoredEvent, StoredTopic
from ..transactions import short_statement, short_transaction
from . import postgresql
from .base import EMPTY, PAGE_BYTES, Head, History, Page, Retention, Row, fitting
from .rows import event_of, insert, portions, stored_moment

logger = logging.getLogger("livefeed.history")

#: Rows per statement: under SQLite's limit of 999 variables, with room.
BATCH = 400
#: Events with gaps between them that are numbered by one statement: three variables each.
SOME = 200
#: Topics that are numbered, and so locked, in one transaction.
LOCKED = 20
#: By how much two looks overlap: longer than a numbering transaction lasts.
OVERLAP = timedelta(seconds=5)
#: Seconds between two looks of one process at all topics, whether they are planned to be trimmed in time.
MAKE_DUE_EVERY = 3600.0
#: On MariaDB and MySQL: a DELETE whose rows are looked up one by one, whatever the optimizer makes of the table.
DELETE_BY_KEY = (
    "DELETE event FROM (SELECT 0 AS id UNION ALL SELECT %s) AS gone "
    "STRAIGHT_JOIN livefeed_event AS event FORCE INDEX (PRIMARY) ON event.id = gone.id"
)


class DatabaseHistory(History):
    """Events in two tables, numbered in a short transaction of their own."""

    alias: str

    def __init__(self) -> None:
        self.alias = settings.DATABASE
        self._retention: Callable[[str], Retention] | None = None
        self._made_due_at = 0.0

    @property
    def numbers_elsewhere(self) -> bool:
        return connections[self.alias].vendor != "sqlite"

    def record(self, events: Sequence[Event]) -> None:
        write = postgresql.insert if self._is_postgresql and len(events) > 1 else insert
        write(connections[self.alias], events)

    def record_while(self, row: Row, event: Event) -> bool:
        record = partial(postgresql.record_while, connections[self.alias], row, event)
        return self._is_postgresql and short_statement(self.alias, record)

    def number(self, topics: Iterable[str]) -> list[Stretch]:
        names = sorted(set(topics))
        if len(names) == 1 and self._is_postgresql:
            return self._number_at_once(names[0])
        found: list[Stretch] = []
        for some in (names[start : start + LOCKED] for start in range(0, len(names), LOCKED)):
            found += short_transaction(self.alias, partial(self._number_all, some))
        return found

    def append(self, events: Sequence[Event]) -> list[Stretch]:
        of_topic: dict[str, list[Event]] = {}
        for event in events:
            of_topic.setdefault(event.topic, []).append(event)
        if len(of_topic) == 1 and len(events) <= BATCH and self._is_postgresql:
            append = partial(postgresql.append, connections[self.alias], events[0].topic, events)
            if found := short_statement(self.alias, append):
                return [found]

        def write() -> list[Stretch]:
            return [stretch for topic in sorted(of_topic) for stretch in self._append_to(topic, of_topic[topic])]

        return short_transaction(self.alias, write)

    @property
    def _is_postgresql(self) -> bool:
        return connections[self.alias].vendor == "postgresql"

    def _number_at_once(self, topic: str) -> list[Stretch]:
        """Number one topic by one statement, for which no transaction has to be begun; else by a transaction."""
        number = partial(postgresql.number, connections[self.alias], topic)
        if found := short_statement(self.alias, number):
            return [found]
        if not self._events.filter(topic=topic, seq__isnull=True).exists():
            return []  # somebody else did it
        return short_transaction(self.alias, lambda: self._number_under_lock(self._lock(topic)))

    def _append_to(self, topic: str, events: Sequence[Event]) -> list[Stretch]:
        """Write events with their numbers at once, under the topic's lock, unless others are to be numbered before."""
        if self._is_postgresql and (found := postgresql.append(connections[self.alias], topic, events)):
            return [found]
        row = self._lock(topic)
        if self._events.filter(topic=topic, seq__isnull=True).exists():
            self.record(events)
            return self._number_under_lock(row)
        numbered = tuple(replace(event, seq=seq) for seq, event in enumerate(events, row.head + 1))
        for some in portions(numbered):
            self._events.bulk_create([_row(event, numbered_at=Now()) for event in some])
        self._move(row, row.head + len(events))
        return [Stretch(topic, row.epoch, numbered)]

    def _number_all(self, topics: Iterable[str]) -> list[Stretch]:
        """Number several topics, in the order of their names, so that two who do this never wait for each other."""
        return [stretch for topic in topics for stretch in self._number(topic)]

    def _number(self, topic: str) -> list[Stretch]:
        """Give the committed events of a topic their numbers, in the transaction at hand."""
        if self._is_postgresql and (found := postgresql.number(connections[self.alias], topic)):
            return [found]
        return self._number_under_lock(self._lock(topic))

    def _number_under_lock(self, row: StoredTopic) -> list[Stretch]:
        if self._is_postgresql:
            stretch = postgresql.number(connections[self.alias], row.name)
            return [stretch] if stretch else []
        found = list(self._events.filter(topic=row.name, seq__isnull=True).order_by("pk"))
        if not found:
            return []
        self._give_numbers([event.pk for event in found], row.head + 1)
        self._move(row, row.head + len(found))
        numbered = tuple(_event(event, seq, event.data) for seq, event in enumerate(found, row.head + 1))
        return [Stretch(row.name, row.epoch, numbered)]

    def _give_numbers(self, keys: Sequence[int], seq: int) -> None:
        """Number events from ``seq`` on: by one statement what was inserted without a gap, else SOME by each.

        A transaction that publishes on two topics in turn would else pay a statement for each event.
        """
        runs = list(_consecutive(keys))
        if len(runs) * SOME > len(keys) + 2 * SOME:
            for part in (keys[start : start + SOME] for start in range(0, len(keys), SOME)):
                numbers = [When(pk=key, then=Value(number)) for number, key in enumerate(part, seq)]
                case = Case(*numbers, output_field=BigIntegerField())
                self._events.filter(pk__in=part).update(seq=case, numbered_at=Now())
                seq += len(part)
            return
        for run in runs:
            self._events.filter(pk__in=run).update(seq=F("pk") + (seq - run[0]), numbered_at=Now())
            seq += len(run)

    def _move(self, row: StoredTopic, head: int) -> None:
        due = {"trim_at": Now()} if row.trim_head is not None and head > row.trim_head else {}
        self._topics.filter(pk=row.pk).update(head=head, moved_at=Now(), **due)

    def _lock(self, topic: str) -> StoredTopic:
        """Lock a topic's row, which is made if there is none, by the transaction's first statement."""
        row = self._topics.filter(name=topic)
        locked: QuerySet[StoredTopic] = row.select_for_update()
        if not connections[self.alias].features.has_select_for_update:
            locked = row if row.update(moved_at=Now()) else self._topics.none()
        found = next(iter(locked), None)
        if found is None:
            self._topics.bulk_create([StoredTopic(name=topic, epoch=new_epoch())], ignore_conflicts=True)
            return self._lock(topic)
        return found

    def leftovers(self, seen: frozenset[int]) -> tuple[list[Stretch], frozenset[int]]:
        # By the index's own order: with "pk" alone a planner may walk the whole table by its key.
        rows = self._events.filter(numbered_at__isnull=True).order_by("numbered_at", "pk")
        waiting = dict(rows.values_list("pk", "topic")[:BATCH])
        late = {topic for pk, topic in waiting.items() if pk in seen}
        return self.number(late), frozenset(waiting)

    def heads(self, topics: Iterable[str]) -> dict[str, Head]:
        found: dict[str, Head] = {}
        for names in _batches(list(topics)):
            rows = self._topics.filter(name__in=names).values_list("name", "epoch", "head", "floor")
            found.update({name: Head(epoch, seq, floor) for name, epoch, seq, floor in rows})
        return found

    def moved(self, marker: datetime | None) -> tuple[dict[str, Head], datetime]:
        # An index on moved_at answers, and no clock but the database's is asked, which wrote it.
        if marker is None:
            newest = self._topics.order_by("-moved_at").values_list("moved_at", flat=True).first()
            marker = newest or _long_ago()
        heads: dict[str, Head] = {}
        since = Least(Value(marker), Now())  # a clock may go back, and a marker of before would find nothing
        rows = self._topics.filter(moved_at__gt=ExpressionWrapper(since - OVERLAP, output_field=DateTimeField()))
        for name, epoch, seq, floor, moved_at in rows.values_list("name", "epoch", "head", "floor", "moved_at"):
            heads[name] = Head(epoch, seq, floor)
            marker = max(marker, moved_at)
        return heads, marker

    def read(self, topic: str, after: int, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
        # The head first: events that it counts and that are not found after `after` are a hole, never a race.
        head = self.heads([topic]).get(topic, EMPTY)
        if head.seq <= after:
            return Page(head, ())
        rows = self._events.filter(topic=topic, seq__gt=after).order_by("seq")
        # Small data comes along at once, for even `limit` of them fit on a page; of the large what fits is read then.
        share = max_bytes // limit
        small = Case(When(size__lte=share, then=F("data")), output_field=TextField())
        found = list(rows.defer("data").annotate(small=small)[: limit + 1])
        page = found[: fitting((row.size for row in found[:limit]), max_bytes)]
        data = {row.pk: row.small for row in page if row.size <= share}
        if len(data) < len(page):
            data.update(rows.filter(seq__lte=page[-1].seq, size__gt=share).values_list("pk", "data"))
        events = tuple(_event(row, row.seq, data[row.pk]) for row in page if row.pk in data)
        return Page(head, events, len(page) < len(found))

    def trim(self, retention: Callable[[str], Retention], topics: Iterable[str] | None = None) -> int:
        """Trim what is due.

        The first trimming by a retention looks at every topic, for it may keep less than before; and one an hour, for
        a process of before, which keeps more, may have been at it meanwhile.
        """
        if topics is not None:
            return sum(self._trim(name, retention) for name in self.heads(topics))
        if retention != self._retention or time.monotonic() - self._made_due_at > MAKE_DUE_EVERY:
            self._make_due(retention)
            self._retention, self._made_due_at = retention, time.monotonic()
        return sum(self._trim(name, retention) for name in self._due())

    def _make_due(self, retention: Callable[[str], Retention]) -> None:
        """Have every topic trimmed soon that would be trimmed too late for this retention."""
        for topic in self._all_topics():
            plan = _plan(retention(topic.name), topic.floor, topic.oldest_at, topic.now)
            if _later(topic.trim_at, plan.at) or _later(topic.trim_head, plan.head):
                self._topics.filter(pk=topic.pk).update(trim_at=Now())  # one at a time: no lock waits for another

    def _all_topics(self) -> Iterator[Any]:
        kept = self._events.filter(topic=OuterRef("name"), seq__gt=OuterRef("floor")).order_by("seq")
        oldest = Subquery(kept.values("numbered_at")[:1])
        rows = self._topics.annotate(oldest_at=oldest, now=Now()).order_by("pk")
        last = 0
        while page := list(rows.filter(pk__gt=last)[:BATCH]):
            yield from page
            last = page[-1].pk

    def _due(self) -> Iterator[str]:
        """Yield the topics that are due by now; what becomes due meanwhile is for the next time, so that it ends."""
        if now := self._topics.filter(trim_at__lte=Now()).aggregate(Max("trim_at"))["trim_at__max"]:
            # On SQLite moments are text, and a whole second that was read and is sent back lacks its ".000".
            due = self._topics.filter(trim_at__lt=now + timedelta(milliseconds=1)).order_by("trim_at", "pk")
            while topics := list(due[:BATCH]):
                yield from (topic.name for topic in topics)

    def _trim(self, topic: str, retention: Callable[[str], Retention]) -> int:
        """Remove a prefix, a range at a time, each with its floor in one short transaction.

        The topic's row is locked meanwhile, so that it does no harm if two do this at once.
        """
        removed, more = 0, True
        while more:
            gone, more = short_transaction(self.alias, partial(self._trim_range, topic, retention(topic)))
            removed += gone
            if gone:
                logger.debug("Trimmed %s: %s events.", topic, removed)
        return removed

    def _trim_range(self, topic: str, keep: Retention) -> tuple[int, bool]:
        """Remove what is kept no more of the next BATCH events; return how many went, and whether there may be more."""
        row = self._topics.filter(name=topic)
        row.update(floor=F("floor"))
        locked = row.select_for_update().annotate(now=Now())
        head, floor, now = locked.values_list("head", "floor", "now").get()
        kept = self._events.filter(topic=topic, seq__gt=floor).order_by("seq")
        found: list[tuple[Any, Any, Any]] = list(kept.values_list("seq", "numbered_at", "pk")[:BATCH])
        old = now - timedelta(seconds=keep.seconds) if keep.seconds else _long_ago()
        last = head - keep.events if keep.events else 0
        gone = len(list(takewhile(lambda event: event[0] <= last or event[1] < old, found)))
        if more := gone == len(found) == BATCH:
            changes: dict[str, Any] = {"floor": found[-1][0]}
        else:
            seq, oldest_at, _ = found[gone] if gone < len(found) else (head + 1, None, 0)
            plan = _plan(keep, seq - 1, oldest_at, now)
            changes = {"floor": seq - 1, "trim_at": plan.at, "trim_head": plan.head}
        if gone:
            self._delete([key for _, _, key in found[:gone]])
        row.update(**changes)
        return gone, more

    def _delete(self, keys: Sequence[int]) -> None:
        if connections[self.alias].vendor == "mysql":
            # InnoDB locks what it reads for a DELETE, and waits for it: the row behind a range, and of a small table,
            # where the optimizer prefers that, every row; so also those of all transactions that are open.
            with connections[self.alias].cursor() as cursor:
                cursor.execute(DELETE_BY_KEY % " UNION ALL SELECT ".join(["%s"] * len(keys)), keys)
        else:
            self._events.filter(pk__in=keys).delete()

    def renew_epoch(self, topics: Iterable[str] | None = None) -> int:
        names = list(self._topics.values_list("name", flat=True) if topics is None else topics)
        return sum(short_transaction(self.alias, partial(self._renew, name, topics is not None)) for name in names)

    def _renew(self, topic: str, named: bool) -> int:
        row = self._topics.filter(name=topic)
        # moved_at too, so that the hubs see it at their next look.
        anew: dict[str, Any] = {
            "epoch": new_epoch(),
            "head": Greatest("head", 1),
            "floor": Greatest("floor", 1),
            "moved_at": Now(),
        }
        while not row.update(**anew):
            if not named:
                return 0
            self._topics.bulk_create([StoredTopic(name=topic, epoch=new_epoch())], ignore_conflicts=True)
        if first := list(self._events.filter(topic=topic, seq__lte=1).values_list("pk", flat=True)):
            self._delete(first)
        return 1

    @property
    def _topics(self) -> QuerySet[StoredTopic]:
        return StoredTopic.objects.using(self.alias)

    @property
    def _events(self) -> QuerySet[StoredEvent]:
        return StoredEvent.objects.using(self.alias)


class _Plan(NamedTuple):
    """When a topic is to be trimmed next: at a time, and past a number. None is never."""

    at: datetime | None
    head: int | None


def _plan(keep: Retention, floor: int, oldest_at: datetime | None, now: datetime) -> _Plan:
    """Plan for a topic whose oldest event was numbered then; one that has none gets its next one now or later."""
    at = (oldest_at or now) + timedelta(seconds=keep.seconds) if keep.seconds else None
    return _Plan(at, floor + keep.events if keep.events else None)


def _later(planned: Any, wanted: Any) -> bool:
    return wanted is not None and (planned is None or planned > wanted)


def _row(event: Event, *, numbered_at: Any = None) -> StoredEvent:
    return StoredEvent(
        topic=event.topic,
        seq=event.seq,
        uid=event.id,
        type=event.type,
        data=event.json,
        size=event.size,
        created_at=stored_moment(event),
        numbered_at=numbered_at,
    )


def _event(row: StoredEvent, seq: int | None, data: str) -> Event:
    return event_of(row.topic, seq, row.uid, row.type, data, row.created_at)


def _long_ago() -> datetime:
    return datetime(2000, 1, 1, tzinfo=UTC if django_settings.USE_TZ else None)


def _consecutive(keys: Sequence[int]) -> Iterator[list[int]]:
    """Cut ascending keys into runs without a gap, of BATCH keys at most: ``1 2 3 7`` gives ``1 2 3`` and ``7``."""
    run: list[int] = []
    for key in keys:
        if run and (key != run[-1] + 1 or len(run) == BATCH):
            yield run
            run = []
        run.append(key)
    yield run


def _batches(names: list[str]) -> Iterator[list[str]]:
    return (names[start : start + BATCH] for start in range(0, len(names), BATCH))
