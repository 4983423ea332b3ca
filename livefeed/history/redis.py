"""The history in Redis Streams (``LIVEFEED_REDIS``), for sites that publish more than a database takes.

Redis takes no part in a database's transactions: events are appended after the commit, each topic's by one script that
numbers them too. What Redis loses can't be proven to be there, so it ends in a reset for whoever reads on:

* The epoch is kept with the topic, so an empty Redis (flushed, or a replica that never had the data) draws another one.
* A master that was started anew, or a replica that was promoted, may have lost its last writes and would give their
  numbers out again. Redis draws a replication id in just these two cases. The script compares it with that of the last
  append, and draws a new epoch where they differ. It is asked inside the script, which costs 2 µs, and not once per
  connection: connections outlive a promotion. (The id of the process, ``run_id``, would not do: a master that becomes
  a replica and a master again forgot writes, and keeps it.)
* An append that was sent and not answered may or may not have taken effect, or do so later, from a buffer, when Redis
  goes on. So each is good for a second by Redis' own clock, and when it is tried again, not before that second has
  passed, the script looks for its events among those that were numbered meanwhile.

Keys are ``livefeed:<prefix>:{<topic>}:topic`` and ``…:events``, so that a topic lies in one slot of a Cluster, and
``livefeed:<prefix>:moved``, all topics of the site by the time when they last got an event.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from ..conf import settings
from ..cursors import new_epoch
from ..events import Event, Stretch
from ..exceptions import HistoryUnavailable
from ..redis_server import ANSWER_SECONDS, Call, Server
from . import redis_scripts as scripts
from .base import EMPTY, PAGE_BYTES, Head, History, Page, Retention, fitting

logger = logging.getLogger("livefeed.history")

#: Events in one round trip, topics in one, and events that are trimmed in one step: none keeps Redis busy for long.
BATCH = 500
#: Milliseconds during which Redis may begin with an append: as long as its answer is waited for.
GOOD_FOR = int(ANSWER_SECONDS * 1000)
#: Microseconds by which two looks overlap: on a Cluster a topic may be marked before its event is there.
OVERLAP = 5_000_000
#: Events that are remembered as perhaps appended.
DOUBTS = 100_000
#: Seconds after which a server is asked for its time again: clocks drift apart.
CLOCK_SECONDS = 60.0


class Span(NamedTuple):
    """Two moments by a server's clock, in milliseconds."""

    since: int
    until: int


#: No time at all: nothing was tried before.
NEVER = Span(0, 0)


class RedisHistory(History):
    """Events in streams, one per topic, each numbered by the script that appends it."""

    alias = None

    def __init__(self) -> None:
        self.server = Server(settings.REDIS)
        self._clocks = _Clocks(self.server)
        self._doubts: OrderedDict[str, Span] = OrderedDict()

    def record(self, events: Sequence[Event]) -> None:
        self.append(events)

    def number(self, topics: Iterable[str]) -> list[Stretch]:
        return []

    # -- appending --------------------------------------------------------------------------------------------------

    def append(self, events: Sequence[Event]) -> list[Stretch]:
        """Write and number events, those of one topic in one step.

        Raises :exc:`HistoryUnavailable` where Redis does not confirm it. Then call it again with the same events: those
        that were written nevertheless are not written twice.
        """
        sent: dict[str, Span] = {}
        stretches: list[Stretch] = []
        try:
            for portion in _portions(events):
                stretches += self._append(portion, sent)
        except BaseException:
            self._clocks.forget()
            self._doubt(sent)
            raise
        for event in events:
            self._doubts.pop(event.id, None)
        return stretches

    def _append(self, events: Sequence[Event], sent: dict[str, Span]) -> list[Stretch]:
        """Append what fits in one round trip. Note in ``sent`` when what was perhaps written was sent, by id."""
        topics: dict[str, list[Event]] = {}
        for event in events:
            topics.setdefault(event.topic, []).append(event)
        spans = {topic: self._clocks.next_span(_key(topic, "topic"), GOOD_FOR) for topic in topics}
        calls = [self._call(topic, mine, spans[topic].until) for topic, mine in topics.items()]
        sent.update({event.id: spans[event.topic] for event in events})
        *answers, _ = self.server.call_all([*calls, Call(scripts.TOUCH, [_moved_key()], list(topics))])
        found: list[Stretch] = []
        refused: set[str] = set()
        for (topic, mine), (outcome, *answer) in zip(topics.items(), answers, strict=True):
            if outcome == "done":
                found += self._written(topic, mine, *answer)
            else:
                refused.add(outcome)
                for event in mine:
                    del sent[event.id]
        if refused:
            raise HistoryUnavailable(f"An append reached Redis too {' and too '.join(sorted(refused))}.")
        return found

    def _written(
        self, topic: str, events: Sequence[Event], epoch: str, now: int, numbers: Sequence[int]
    ) -> Iterator[Stretch]:
        self._clocks.note(_key(topic, "topic"), now)
        return _stretches(topic, epoch, events, numbers)

    def _call(self, topic: str, events: Sequence[Event], until: int) -> Call:
        doubts = [self._doubts[event.id] for event in events if event.id in self._doubts]
        span = Span(min(doubt.since for doubt in doubts), max(doubt.until for doubt in doubts)) if doubts else NEVER
        fields = [field for event in events for field in _fields(event)]
        return Call(scripts.APPEND, _keys(topic), [new_epoch(), until, *span, *fields])

    def _doubt(self, sent: dict[str, Span]) -> None:
        """Remember that these events may have been written, in the spans that they were sent with."""
        for event_id, (since, until) in sent.items():
            before = self._doubts.pop(event_id, None)
            self._doubts[event_id] = Span(before.since if before else since, until)
        while len(self._doubts) > DOUBTS:
            self._doubts.popitem(last=False)

    # -- reading ----------------------------------------------------------------------------------------------------

    def leftovers(self, seen: frozenset[int]) -> tuple[list[Stretch], frozenset[int]]:
        return [], frozenset()

    def heads(self, topics: Iterable[str]) -> dict[str, Head]:
        names = list(topics)
        found = self.server.hash_fields([_key(name, "topic") for name in names], "epoch", "seq", "floor")
        return {
            name: Head(epoch, int(seq or 0), int(floor or 0))
            for name, (epoch, seq, floor) in zip(names, found, strict=True)
            if epoch
        }

    def moved(self, marker: int | None) -> tuple[dict[str, Head], int]:
        now, names = self.server.call(scripts.MOVED, [_moved_key()], marker or 0, OVERLAP)
        return self.heads(names), now

    def read(self, topic: str, after: int, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
        found = self.server.call(scripts.READ, _keys(topic), after, limit, max_bytes)
        if not found:
            return Page(EMPTY, ())
        epoch, seq, floor, cut, entries = found
        return Page(Head(epoch, seq, floor), tuple(_event(topic, *entry) for entry in entries), bool(cut))

    # -- care -------------------------------------------------------------------------------------------------------

    def trim(self, retention: Callable[[str], Retention], topics: Iterable[str] | None = None) -> int:
        """Remove what is kept no more, at most BATCH events of a topic in one step."""
        removed = 0
        for names in _batches(self._all_topics() if topics is None else topics):
            waiting = list(names)
            while waiting:
                answers = self.server.call_all([_trimming(name, retention(name)) for name in waiting])
                for name, (gone, _, _) in zip(waiting, answers, strict=True):
                    removed += gone
                    if gone:
                        logger.debug("Trimmed %s: %s events.", name, gone)
                waiting = [name for name, (_, _, more) in zip(waiting, answers, strict=True) if more]
        return removed

    def renew_epoch(self, topics: Iterable[str] | None = None) -> int:
        """Draw new epochs. A topic's first event goes with it, so that cursors from before that one end in a reset too.

        For the same reason a topic that is named and has no event gets an epoch, and number 1 is never read.
        """
        count = 0
        create = int(topics is not None)
        for names in _batches(self._all_topics() if topics is None else topics):
            calls = [Call(scripts.RENEW, _keys(name), [new_epoch(), create]) for name in names]
            *renewed, _ = self.server.call_all([*calls, Call(scripts.TOUCH, [_moved_key()], names)])
            count += sum(renewed)
        return count

    def _all_topics(self) -> Iterator[str]:
        return iter(set(self.server.members(_moved_key())))


class _Clocks:
    """What time it is on the servers, as their last answers tell: never later than it really is."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._heard: dict[str, tuple[int, float]] = {}

    def next_span(self, key: str, length: int) -> Span:
        """Return the span of time that begins now on the server that holds a key."""
        heard = self._heard.get(self._server.node_of(key))
        if heard is None or time.monotonic() - heard[1] > CLOCK_SECONDS:
            heard = self.note(key, self._server.call(scripts.CLOCK, [key]))
        now = heard[0] + int((time.monotonic() - heard[1]) * 1000)
        return Span(now, now + length)

    def note(self, key: str, now: int) -> tuple[int, float]:
        """Take the time from an answer."""
        heard = self._heard[self._server.node_of(key)] = now, time.monotonic()
        return heard

    def forget(self) -> None:
        """Ask for the time before it is needed again: something failed, perhaps since it is another server now."""
        self._heard = {}


def _key(topic: str, part: str) -> str:
    return f"livefeed:{settings.prefix}:{{{topic}}}:{part}"


def _keys(topic: str) -> list[str]:
    return [_key(topic, "topic"), _key(topic, "events")]


def _moved_key() -> str:
    return f"livefeed:{settings.prefix}:moved"


def _portions(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Cut events into what goes in one round trip: BATCH of them, and PAGE_BYTES of data."""
    while events:
        count = fitting((event.size for event in events[:BATCH]), PAGE_BYTES)
        yield events[:count]
        events = events[count:]


def _fields(event: Event) -> tuple[str, str, str, str]:
    return event.id, event.type, event.json, event.created_at.isoformat()


def _event(topic: str, entry_id: str, fields: Sequence[str]) -> Event:
    _, id, _, type, _, json, _, created_at = fields
    return Event(topic, type, json, id, datetime.fromisoformat(created_at), int(entry_id.partition("-")[0]))


def _stretches(topic: str, epoch: str, events: Sequence[Event], numbers: Sequence[int]) -> Iterator[Stretch]:
    """Yield events with their numbers, cut where these do not follow one another."""
    run: list[Event] = []
    for event, seq in zip(events, numbers, strict=True):
        if run and run[-1].seq != seq - 1:
            yield Stretch(topic, epoch, tuple(run))
            run = []
        run.append(replace(event, seq=seq))
    yield Stretch(topic, epoch, tuple(run))


def _trimming(topic: str, keep: Retention) -> Call:
    # Less than a millisecond would read as no limit.
    age = max(int(keep.seconds * 1000), 1) if keep.seconds else 0
    return Call(scripts.TRIM, _keys(topic), [age, keep.events, BATCH])


def _batches(topics: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(topics)
    while names := list(islice(rest, BATCH)):
        yield names
