"""The database: what is committed, what is not, who holds which lock. As READ COMMITTED on a server of one's own is.

Every statement is a pause, at which other threads go on, and where the thread's process may be killed.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from django.db import OperationalError

from livefeed.cursors import new_epoch
from livefeed.events import Event, Stretch
from livefeed.history import EMPTY, Head

if TYPE_CHECKING:
    from .world import World

#: The store of the run under way.
STORE: list[Store] = []


@dataclass
class Row:
    """A committed event: its place in the order of insertion, and its number once it has one."""

    key: int
    event: Event
    numbered_at: float = 0.0


@dataclass
class Topic:
    epoch: str = field(default_factory=new_epoch)
    floor: int = 0
    rows: list[Row] = field(default_factory=list)
    trimmed: set[str] = field(default_factory=set)
    moved_at: float = 0.0

    @property
    def head(self) -> Head:
        return Head(self.epoch, self.floor + len(self.rows), self.floor)


class Store:
    """The committed state, and the truth about everything that ever was."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topics: dict[str, Topic] = {}
        self.unnumbered: dict[str, list[Row]] = defaultdict(list)
        #: What is committed now: "n" of each event, and its topic.
        self.committed: dict[int, str] = {}
        #: Every number that was ever given: topic, number, "n" of the event.
        self.numbers: set[tuple[str, int, int]] = set()
        #: "n" of every event in the order of numbering, by topic and by how often everything was lost before.
        self.order: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.flushes = 0
        #: "n" of what was published in transactions and savepoints that were rolled back.
        self.doomed: set[int] = set()
        #: Every epoch that a topic ever left.
        self.left: set[tuple[str, str]] = set()
        #: When a topic last left one.
        self.left_at: dict[str, float] = {}
        self.away = False
        #: The probability that an answer is lost after what was asked was done, where the history is Redis.
        self.deafness = 0.0
        #: Whether the process that commits next dies right after it.
        self.kills_next = False
        self._keys = itertools.count(1)
        self._locks: dict[str, object] = {}

    def session(self) -> Session:
        self.statement("connect")
        return Session(self)

    def statement(self, what: str) -> None:
        """Let others go on before a statement, which then fails if the database is away."""
        self.world.pause()
        if self.away:
            raise OperationalError(f"the database is away ({what})")

    def survive(self) -> None:
        """Go on after a commit, unless the process dies here, before it learns of it."""
        if self.kills_next and self.world.thread is not None:
            self.kills_next = False
            self.world.tell(f"{self.world.thread.process.name} dies right after its commit")
            self.world.thread.process.kill()
        self.world.pause()

    def insert(self, events: list[Event]) -> list[Row]:
        return [Row(next(self._keys), event) for event in events]

    def commit(self, rows: list[Row]) -> None:
        for row in rows:
            self.unnumbered[row.event.topic].append(row)
            n = row.event.data["n"]
            self.committed[n] = row.event.topic
            self.world.tell(f"committed {n} on {row.event.topic}")

    # -- numbering ------------------------------------------------------------------------------------------------

    def number(self, topics: list[str], mine: list[Row] | None = None) -> list[Stretch]:
        """Number what is committed, and what is inserted in this very transaction, in one transaction."""
        me = object()
        try:
            numbered = self._number(topics, mine or [], me)
        finally:
            for topic in [topic for topic, holder in self._locks.items() if holder is me]:
                del self._locks[topic]
        self.survive()  # or die without having told anybody what was numbered
        return numbered

    def _number(self, topics: list[str], mine: list[Row], me: object) -> list[Stretch]:
        found: list[tuple[str, list[Row], float]] = []
        for topic in topics:
            self.statement(f"lock {topic}")
            self.world.pause(partial(self._is_free, topic))
            self._locks[topic] = me
            moved_at = self.world.now
            self.statement(f"select {topic}")
            own = [row for row in mine if row.event.topic == topic]
            found.append((topic, sorted([*self.unnumbered[topic], *own], key=lambda row: row.key), moved_at))
            self.statement(f"update {topic}")
        self.statement("commit")
        self.commit(mine)
        return [self._give_numbers(topic, rows, moved_at) for topic, rows, moved_at in found if rows]

    def _is_free(self, topic: str) -> bool:
        return topic not in self._locks

    def _give_numbers(self, name: str, rows: list[Row], moved_at: float) -> Stretch:
        topic = self.topics.setdefault(name, Topic())
        first = topic.head.seq + 1
        for seq, row in enumerate(rows, first):
            row.event, row.numbered_at = replace(row.event, seq=seq), self.world.now
            self.numbers.add((name, seq, row.event.data["n"]))
            self.order[name, self.flushes].append(row.event.data["n"])
            self.unnumbered[name].remove(row)
        topic.rows += rows
        topic.moved_at = moved_at
        self.world.tell(f"numbered {name} {first} to {topic.head.seq}")
        return Stretch(name, topic.epoch, tuple(row.event for row in rows))

    # -- appending, where the history is Redis -----------------------------------------------------------------------

    def append(self, topic: str, events: list[Event]) -> Stretch:
        """Append and number in one step; events that an unanswered attempt has appended keep their numbers."""
        stored = self.topics.setdefault(topic, Topic())
        known = {row.event.id: row.event for row in stored.rows}
        if any(event.id in stored.trimmed for event in events):
            self.renew_epoch(topic)  # they were appended before, and nobody can find all of them any more
            known = {}
        rows = self.insert([event for event in events if event.id not in known])
        for row in rows:
            self.committed[row.event.data["n"]] = topic
        self.unnumbered[topic] += rows
        numbered = self._give_numbers(topic, rows, self.world.now) if rows else Stretch(topic, stored.epoch, ())
        fresh = {event.id: event for event in numbered.events}
        return Stretch(topic, stored.epoch, tuple(known.get(event.id) or fresh[event.id] for event in events))

    # -- what an operator or a clock does -------------------------------------------------------------------------

    def trim(self, name: str, cut: int) -> None:
        topic = self.topics[name]
        cut = min(cut, topic.head.seq)
        if cut > topic.floor:
            topic.trimmed.update(row.event.id for row in topic.rows[: cut - topic.floor])
            del topic.rows[: cut - topic.floor]
            topic.floor = cut
            self.world.tell(f"trimmed {name} up to {cut}")

    def renew_epoch(self, name: str) -> None:
        """Draw a new epoch; the first event goes, if it is there, so that "none yet" is no way around it."""
        topic = self.topics.setdefault(name, Topic())
        self._leave(name)
        topic.trimmed.update(row.event.id for row in topic.rows[: max(1 - topic.floor, 0)])
        del topic.rows[: max(1 - topic.floor, 0)]
        topic.floor = max(topic.floor, 1)
        topic.epoch = new_epoch()
        topic.moved_at = self.world.now
        self.world.tell(f"{name} has the new epoch {topic.epoch}")

    def _leave(self, name: str) -> None:
        self.left.add((name, self.topics[name].epoch))
        self.left_at[name] = self.world.now

    def flush(self) -> None:
        """Lose everything."""
        for name in self.topics:
            self._leave(name)
        self.topics = {}
        self.flushes += 1
        self.world.tell("the history is flushed")

    def backup(self) -> object:
        return deepcopy((self.topics, self.unnumbered, self.committed))

    def restore(self, backup: object) -> None:
        """Go back to a backup, with new epochs, as ``livefeed_new_epoch`` draws them."""
        lost = set(self.topics)
        for name in self.topics:
            self._leave(name)
        self.topics, self.unnumbered, self.committed = deepcopy(backup)  # type: ignore[assignment]
        for (name, flushes), order in self.order.items():  # what the backup has without a number gets one behind it
            self.order[name, flushes] = [n for n in order if n in self.committed]
        self.world.tell(f"restored a backup; {len(lost - set(self.topics))} topics are gone")
        for name in self.topics:
            self.renew_epoch(name)

    def head(self, name: str) -> Head:
        return self.topics[name].head if name in self.topics else EMPTY


class Session:
    """A connection's transaction: rows that nobody else sees, and savepoints."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: list[Row] = []
        self._savepoints: dict[str, int] = {}

    def insert(self, events: list[Event]) -> None:
        self._store.statement("insert")
        self._rows += self._store.insert(events)

    def savepoint(self, sid: str) -> None:
        self._store.statement("savepoint")
        self._savepoints[sid] = len(self._rows)

    def savepoint_rollback(self, sid: str) -> None:
        self._store.statement("rollback to savepoint")
        del self._rows[self._savepoints[sid] :]

    def commit(self) -> None:
        self._store.statement("commit")
        rows, self._rows = self._rows, []
        self._store.commit(rows)
        self._store.survive()

    def rollback(self) -> None:
        self._rows = []

    def close(self) -> None:
        self._rows = []
