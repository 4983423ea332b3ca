"""A history in this process's memory: for tests that never commit. Nothing of it survives, nobody else sees it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..cursors import new_epoch
from ..events import Event, Stretch
from .base import EMPTY, PAGE_BYTES, Head, History, Page, Retention, fitting

logger = logging.getLogger("livefeed.history")


@dataclass
class _Topic:
    epoch: str = field(default_factory=new_epoch)
    floor: int = 0
    events: list[Event] = field(default_factory=list)
    numbered_at: list[float] = field(default_factory=list)
    moved: int = 0

    @property
    def head(self) -> Head:
        return Head(self.epoch, self.floor + len(self.events), self.floor)


class MemoryHistory(History):
    """Events in lists, one per topic, under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._topics: dict[str, _Topic] = {}
        self._moves = 0

    def record(self, events: Sequence[Event]) -> None:
        self.append(events)

    def number(self, topics: Iterable[str]) -> list[Stretch]:
        return []

    def append(self, events: Sequence[Event]) -> list[Stretch]:
        with self._lock:
            return [self._append(name, events) for name in sorted({event.topic for event in events})]

    def _append(self, name: str, events: Sequence[Event]) -> Stretch:
        topic = self._topics.setdefault(name, _Topic())
        mine = [event for event in events if event.topic == name]
        numbered = tuple(replace(event, seq=seq) for seq, event in enumerate(mine, topic.head.seq + 1))
        topic.events += numbered
        topic.numbered_at += [time.monotonic()] * len(numbered)
        self._mark(topic)
        return Stretch(name, topic.epoch, numbered)

    def _mark(self, topic: _Topic) -> None:
        self._moves += 1
        topic.moved = self._moves

    def leftovers(self, seen: frozenset[int]) -> tuple[list[Stretch], frozenset[int]]:
        return [], frozenset()

    def heads(self, topics: Iterable[str]) -> dict[str, Head]:
        with self._lock:
            return {name: self._topics[name].head for name in topics if name in self._topics}

    def moved(self, marker: int | None) -> tuple[dict[str, Head], int]:
        with self._lock:
            since = marker or 0
            return {name: topic.head for name, topic in self._topics.items() if topic.moved > since}, self._moves

    def read(self, topic: str, after: int, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
        with self._lock:
            if topic not in self._topics:
                return Page(EMPTY, ())
            stored = self._topics[topic]
            start = max(after - stored.floor, 0)
            sizes = (event.size for event in stored.events[start : start + limit])
            count = fitting(sizes, max_bytes)
            cut = count < len(stored.events) - start
            return Page(stored.head, tuple(stored.events[start : start + count]), cut)

    def trim(self, retention: Callable[[str], Retention], topics: Iterable[str] | None = None) -> int:
        with self._lock:
            names = self._topics if topics is None else set(topics) & self._topics.keys()
            return sum(self._trim(name, retention(name)) for name in names)

    def _trim(self, name: str, keep: Retention) -> int:
        topic = self._topics[name]
        old = time.monotonic() - keep.seconds if keep.seconds else float("-inf")
        count = sum(numbered_at < old for numbered_at in topic.numbered_at)
        if keep.events:
            count = max(count, len(topic.events) - keep.events)
        if count:
            del topic.events[:count], topic.numbered_at[:count]
            topic.floor += count
            logger.debug("Trimmed %s: %s events.", name, count)
        return count

    def renew_epoch(self, topics: Iterable[str] | None = None) -> int:
        with self._lock:
            names = list(self._topics if topics is None else topics)
            for name in names:
                self._renew(self._topics.setdefault(name, _Topic()))
            return len(names)

    def _renew(self, topic: _Topic) -> None:
        if not topic.floor:
            del topic.events[:1], topic.numbered_at[:1]
            topic.floor = 1
        topic.epoch = new_epoch()
        self._mark(topic)
