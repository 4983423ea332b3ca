"""The history and the leases in the simulated database."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from django.db import connections

from livefeed.events import Event, Stretch
from livefeed.exceptions import HistoryUnavailable
from livefeed.history.base import EMPTY, PAGE_BYTES, Head, History, Page, fitting
from livefeed.leases import Connection, LeaseRequest, Leases

from .store import STORE, Store

ALIAS = "simulated"
#: Seconds by which two looks overlap.
OVERLAP = 5.0
#: Topics that are numbered in one transaction.
LOCKED = 2


class SimulatedHistory(History):
    """What :class:`livefeed.history.database.DatabaseHistory` does, statement for statement, in the simulated store."""

    alias = ALIAS
    numbers_elsewhere = True

    @property
    def store(self) -> Store:
        return STORE[0]

    def record(self, events: Sequence[Event]) -> None:
        connections[ALIAS].ensure_connection()
        connections[ALIAS].connection.insert(list(events))
        if connections[ALIAS].get_autocommit():
            connections[ALIAS].connection.commit()

    def number(self, topics: Iterable[str]) -> list[Stretch]:
        names = sorted(set(topics))
        found: list[Stretch] = []
        for start in range(0, len(names), LOCKED):
            found += self.store.number(names[start : start + LOCKED])
        return found

    def append(self, events: Sequence[Event]) -> list[Stretch]:
        self.store.statement("insert")
        return self.store.number(sorted({event.topic for event in events}), self.store.insert(list(events)))

    def leftovers(self, seen: frozenset[int]) -> tuple[list[Stretch], frozenset[int]]:
        self.store.statement("select leftovers")
        waiting = {row.key: row.event.topic for rows in self.store.unnumbered.values() for row in rows}
        late = {topic for key, topic in waiting.items() if key in seen}
        return self.number(late), frozenset(waiting)

    def heads(self, topics: Iterable[str]) -> dict[str, Head]:
        self.store.statement("select heads")
        return {name: self.store.head(name) for name in topics if name in self.store.topics}

    def moved(self, marker: float | None) -> tuple[dict[str, Head], float]:
        self.store.statement("select moved")
        since = self.store.world.now if marker is None else marker
        topics = self.store.topics.items()
        found = {name: topic.head for name, topic in topics if topic.moved_at > since - OVERLAP}
        return found, max([since, *(topic.moved_at for _, topic in topics)])

    def read(self, topic: str, after: int, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
        self.store.statement("select head")
        head = self.store.head(topic)
        self.store.statement("select events")
        return self._page(topic, after, limit, max_bytes)._replace(head=head)

    def _page(self, topic: str, after: int, limit: int, max_bytes: int) -> Page:
        if topic not in self.store.topics:
            return Page(EMPTY, ())
        stored = self.store.topics[topic]
        events = [row.event for row in stored.rows[max(after - stored.floor, 0) :]]
        count = fitting((event.size for event in events[:limit]), max_bytes)
        return Page(stored.head, tuple(events[:count]), count < len(events))

    def trim(self, *args: Any, **kwargs: Any) -> int:
        return 0  # the faults do it, at worse moments

    def renew_epoch(self, topics: Iterable[str] | None = None) -> int:
        self.store.statement("update epochs")
        return self._renew(topics)

    def _renew(self, topics: Iterable[str] | None) -> int:
        names = list(self.store.topics if topics is None else topics)
        for name in names:
            self.store.renew_epoch(name)
        return len(names)


class SimulatedRedisHistory(SimulatedHistory):
    """What :class:`livefeed.history.redis.RedisHistory` does: appending after the commit, in one step per topic."""

    alias = None

    def _ask(self) -> None:
        self.store.world.pause()
        if self.store.away:
            raise HistoryUnavailable("Redis is away")

    def record(self, events: Sequence[Event]) -> None:
        self.append(events)

    def number(self, topics: Iterable[str]) -> list[Stretch]:
        return []

    def append(self, events: Sequence[Event]) -> list[Stretch]:
        stretches: list[Stretch] = []
        for topic in dict.fromkeys(event.topic for event in events):
            self._ask()
            stretches.append(self.store.append(topic, [event for event in events if event.topic == topic]))
            if self.store.world.chance(self.store.deafness):
                raise HistoryUnavailable("Redis did it, but its answer was lost")
        return stretches

    def leftovers(self, seen: frozenset[int]) -> tuple[list[Stretch], frozenset[int]]:
        return [], frozenset()

    def heads(self, topics: Iterable[str]) -> dict[str, Head]:
        self._ask()
        return {name: self.store.head(name) for name in topics if name in self.store.topics}

    def read(self, topic: str, after: int, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
        self._ask()
        return self._page(topic, after, limit, max_bytes)

    def renew_epoch(self, topics: Iterable[str] | None = None) -> int:
        self._ask()
        return self._renew(topics)


class SimulatedLeases(Leases):
    """Leases without a limit."""

    _held: dict[str, set[str]] = {}

    def acquire(self, request: LeaseRequest) -> str:
        STORE[0].statement("insert lease")
        token = uuid.uuid4().hex
        self._held.setdefault(request.process, set()).add(token)
        return token

    def renew(self, process: str) -> frozenset[str]:
        STORE[0].statement("update leases")
        return frozenset(self._held.get(process, ()))

    def release(self, tokens: Collection[str]) -> None:
        STORE[0].statement("delete leases")
        for held in self._held.values():
            held.difference_update(tokens)

    def revoke(self, *, holder: str = "", session: str = "", topic: str = "", tokens: Collection[str] = ()) -> int:
        raise NotImplementedError

    def connections(self, *, holder: str = "", session: str = "", topic: str = "") -> Iterator[Connection]:
        raise NotImplementedError

    def sweep(self) -> int:
        return 0


__all__ = ["ALIAS", "EMPTY", "SimulatedHistory", "SimulatedLeases"]
