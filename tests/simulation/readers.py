"""Readers: browsers that come back with their last event id, and check each event that they get."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import DatabaseError

from livefeed.cursors import NONE_YET, Position, parse_cursor
from livefeed.exceptions import HistoryUnavailable
from livefeed.history import cursor as livefeed_cursor
from livefeed.resuming import NOWHERE
from livefeed.testing import EventStreamParser, ServerSentEvent

from .network import Connection
from .personal import is_hidden, may_pass, viewer

if TYPE_CHECKING:
    from .scenario import Scenario

#: Seconds without a byte after which a client takes its connection for dead.
WATCHDOG = 12.0


class Reader:
    """One page in one browser."""

    def __init__(self, scenario: Scenario, name: str, topics: list[str], kind: str, eyes: int) -> None:
        self.world = scenario.world
        self.scenario = scenario
        self.name = name
        self.topics = topics
        self.kind = kind
        self._is_page = kind == "page"
        self._eyes = eyes
        self.viewer = viewer(eyes)
        self.positions: dict[str, Position] = {}
        self.shown: set[int] = set()
        self.got: dict[int, float] = {}
        self.resets = 0
        self._since_reset: dict[str, set[int]] = {topic: set() for topic in topics}
        self.stalled = False
        self.flakiness = 0.0
        self._must_reset: set[str] = set()
        self._is_open = False
        self._cursor = "not a cursor" if kind == "garbage" else ""
        self._connection: Connection | None = None
        self._parser = EventStreamParser()
        self._heard_at = 0.0

    def __str__(self) -> str:
        return self.name

    # -- coming and going -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect; a page is rendered before that: first the cursor, then what it shows."""
        server = self.scenario.any_server()
        if self.positions:
            return  # rendered by now, by another attempt
        if server is None:
            self.world.after(1.0, self.start)
        elif self.kind == "page":
            server.start_thread(self._render, "view")
            server.on_death.append(self._start_again)
        else:
            self.connect()

    def _start_again(self) -> None:
        if not self._cursor:
            self.world.after(1.0, self.start)

    def _render(self) -> None:
        try:
            cursor = livefeed_cursor(*self.topics)
        except (DatabaseError, HistoryUnavailable):
            self._start_again()  # the visitor sees an error, and reloads
            return
        self.world.pause()
        self.shown = {n for n, topic in self.scenario.store.committed.items() if topic in self.topics}
        if not self._cursor:
            self._cursor = cursor
            for topic in self.topics:
                self.positions[topic] = parse_cursor(cursor).positions(topic)[0]
            self.world.tell(f"{self} is rendered at {self.positions}")
            self.world.after(self.world.random.uniform(0, 3.0), self.connect)

    def connect(self) -> None:
        server = self.scenario.any_server()
        if server is None:
            self.world.after(1.0, self.connect)
            return
        self.world.tell(f"{self} connects to {server.name} from {self._cursor or 'now'}")
        self._parser = EventStreamParser(self._cursor)
        self._heard_at = self.world.now
        self._is_open = False
        self._connection = Connection(self.world, server, self, self._cursor)
        self._watch(self._connection)

    def _watch(self, connection: Connection) -> None:
        if connection is not self._connection:
            return
        if self.world.now - self._heard_at > WATCHDOG and not self.stalled:
            self.world.tell(f"{self} hears nothing any more")
            connection.leave()
            self._come_back()
        else:
            self.world.after(1.0, lambda: self._watch(connection))

    def ended(self, connection: Connection) -> None:
        if connection is self._connection:
            self.world.tell(f"{self} lost its connection")
            self._come_back()

    def _come_back(self) -> None:
        self._connection = None
        self._cursor = self._parser.last_event_id or self._cursor
        delay = self._parser.retry or 3000
        self.world.after(delay / 1000 * self.world.random.uniform(0.5, 1.0), self.connect)

    @property
    def connected(self) -> bool:
        """Whether the stream is open, as both ends know."""
        return self._connection is not None and not self._connection.silent and self._is_open

    def disturb(self, how: str) -> None:
        """Let something happen to the connection: "cut" or "go_silent"."""
        if self._connection is not None:
            self.world.tell(f"{self}: {how}")
            getattr(self._connection, how)()

    def sees_a_flush(self) -> None:
        """Know what a cursor "none yet" can't tell: that there were events, which are lost."""
        store = self.scenario.store
        for topic in self.topics:
            if self.positions.get(topic) == NONE_YET:
                self.shown |= {n for n, of in store.committed.items() if of == topic}

    def stall(self, seconds: float) -> None:
        """Read nothing for a while."""
        self.stalled = True
        self.world.after(seconds, self.read_on)

    def read_on(self) -> None:
        self.stalled = False
        self._heard_at = self.world.now
        if self._connection is not None:
            self._connection.flow()

    # -- what comes -----------------------------------------------------------------------------------------------

    def data(self, connection: Connection, data: bytes) -> None:
        if connection is self._connection:
            self._heard_at = self.world.now
            for event in self._parser.push(data):
                self._take(event)

    def _take(self, event: ServerSentEvent) -> None:
        if event.type == "livefeed-open":
            self._opened(event)
        elif event.type == "livefeed-reset":
            self._reset(event)
        elif event.type == "livefeed-sync":
            self._sync(event)
        elif not event.type.startswith("livefeed-"):
            self._event(event)

    def _opened(self, event: ServerSentEvent) -> None:
        self._is_open = True
        cursor = parse_cursor(event.json["cursor"])
        for topic in self.topics:
            (position,) = cursor.positions(topic)
            if self.positions.setdefault(topic, position) != position or self.kind == "garbage":
                self._must_reset.add(topic)
        self.kind = "browser"

    def _reset(self, event: ServerSentEvent) -> None:
        topic, reason = event.json["topic"], event.json["reason"]
        before = self.positions[topic]
        self.positions[topic] = self._position(event, topic)
        self._must_reset.discard(topic)
        self._since_reset[topic].clear()
        self.resets += 1
        self.world.tell(f"{self} is reset on {topic}: {reason}, from {before} to {self.positions[topic]}")
        if not self._is_just(topic, reason, before):
            self.world.breaks(f"{self} was reset on {topic} at {before} for no good reason ({reason})")
        self.shown |= {n for n, of in self.scenario.store.committed.items() if of == topic}  # it reloads its snapshot

    def _is_just(self, topic: str, reason: str, before: Position) -> bool:
        store = self.scenario.store
        if before == NOWHERE:
            return True  # it came with garbage, and lost its connection before it was told
        # A server may not know yet that the topic left an epoch, and a page of now say "none yet" to it.
        was_left = (topic, before.epoch) in store.left or (before == NONE_YET and topic in store.left_at)
        if reason == "trimmed":
            return before.seq < store.head(topic).floor or was_left
        if reason == "epoch":  # on a personal topic perhaps by what it was not told of
            return (topic, before.epoch) in store.left or (was_left and topic == self.scenario.personal)
        if reason == "behind":
            return was_left or store.head(topic).seq - before.seq > self.scenario.sizes["replay"] > 0
        return reason == "garbage"

    def _event(self, event: ServerSentEvent) -> None:
        topic = event.topic or self.topics[0]
        before = self.positions[topic]
        n = event.json["n"]
        position = self.positions[topic] = self._position(event, topic)
        if topic in self._must_reset:
            self.world.breaks(f"{self} goes on at {position} of {topic} without a reset")
        if not self._follows(topic, before, position):
            self.world.breaks(f"{self} got {position} of {topic} after {before}")
        if topic == self.scenario.personal and (is_hidden(self._eyes, n) or event.json["for"] != self._eyes):
            self.world.breaks(f"{self} got {n} on {topic}, which was for others: {event.data}")
        if (topic, position.seq, n) not in self.scenario.store.numbers:
            self.world.breaks(f"{self} got {n} as {position} of {topic}, which it never was")
        if n in self._since_reset[topic]:
            self.world.breaks(f"{self} got {n} on {topic} once more, as {position}")
        self._since_reset[topic].add(n)
        if n in self.scenario.store.doomed:
            self.world.breaks(f"{self} got {n}, which was rolled back")
        self.got[n] = self.world.now

    def _follows(self, topic: str, before: Position, after: Position) -> bool:
        if before != NONE_YET and after.epoch != before.epoch:
            return False
        last = Position(after.epoch, after.seq - 1)
        return last.seq == before.seq or self._may_pass(topic, before, last)

    def _may_pass(self, topic: str, before: Position, after: Position) -> bool:
        return topic == self.scenario.personal and may_pass(self.scenario.store, topic, self._eyes, before, after)

    def _position(self, event: ServerSentEvent, topic: str) -> Position:
        """Return the position on a topic after an event, whose id has to name the reader's positions on all topics.

        On the personal topic it may stand further on, behind what is hidden.
        """
        cursor = parse_cursor(event.id)
        for name in self.topics:
            position = next(iter(cursor.positions(name)), NONE_YET)
            if name != topic and position != self.positions[name]:
                if not self._may_pass(name, self.positions[name], position):
                    self.world.breaks(f"{self} got an id that does not say where it stands on {name}")
                self.positions[name] = position
        return next(iter(cursor.positions(topic)), NONE_YET)

    def _sync(self, event: ServerSentEvent) -> None:
        before = dict(self.positions)
        self._position(event, "")
        if event.id != event.json["cursor"] or before == self.positions:
            self.world.breaks(f"{self} got a sync from {before} to {event.id}")

    def awaits(self, topic: str, n: int) -> bool:
        """Tell whether this reader has to get an event."""
        return topic in self.topics and not (topic == self.scenario.personal and is_hidden(self._eyes, n))

    # -- in the end -----------------------------------------------------------------------------------------------

    def is_complete(self) -> bool:
        """Tell whether this reader has all there is."""
        return bool(self.positions) and all(self._has_all(topic) for topic in self.topics)

    def _has_all(self, topic: str) -> bool:
        head = self.scenario.store.head(topic)
        return self.positions[topic] == (Position(head.epoch, head.seq) if head.epoch else NONE_YET)

    def lacks(self) -> set[int]:
        """Return what is committed on a page's topics, and was neither shown nor received."""
        if not self._is_page:
            return set()
        committed = {n for n, topic in self.scenario.store.committed.items() if self.awaits(topic, n)}
        return committed - self.shown - set(self.got)
