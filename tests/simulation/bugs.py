"""Bugs on purpose, each of a kind that one could make: a simulation that does not find them proves nothing."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from livefeed import (
    backlog,
    broker,
    debts,
    hub,
    membership,
    personal,
    personal_streams,
    publishing,
    relay,
    resuming,
    roster,
    streams,
    tail,
)
from livefeed.announcing import announce
from livefeed.cursors import NONE_YET, Position
from livefeed.events import Event
from livefeed.history import Head, get_history, position_of
from livefeed.tail import Subscription, Tail
from livefeed.viewers import Viewer
from livefeed.window import Fit, Frame

#: What replaces what: (object, name, stand-in).
Patch = tuple[Any, str, Any]
BUGS: dict[str, Callable[[], list[Patch]]] = {}


def bug(make: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
    BUGS[make.__name__.replace("_", "-")] = make
    return make


@contextmanager
def introduced(name: str | None) -> Iterator[None]:
    """Have a bug in livefeed for a while. Raises KeyError for one that is not known."""
    with ExitStack() as stack:
        for target, attribute, stand_in in BUGS[name]() if name else ():
            stack.enter_context(patch.object(target, attribute, stand_in))
        yield


# -- the tail and the hand-over -----------------------------------------------------------------------------------


@bug
def hand_over_is_off_by_one() -> list[Patch]:
    """Who comes from the history just where the tail begins misses the tail's first event."""

    def after(self: Tail, seq: int) -> Iterator[Frame]:
        skipped = 1 if seq == self.start > 0 else 0
        return (self._frames[index] for index in range(seq - self.start + skipped, len(self._frames)))

    return [(Tail, "after", after)]


@bug
def gap_is_overlooked() -> list[Patch]:
    """What the layer lost is not missed."""
    fit = Tail.fit

    def careless(self: Tail, epoch: str, seq: int, event_id: str) -> Fit:
        found = fit(self, epoch, seq, event_id)
        return Fit.NEXT if found is Fit.GAP and seq == self.head + 2 else found

    return [(Tail, "fit", careless)]


@bug
def newest_event_is_taken_twice() -> list[Patch]:
    """What the layer doubled comes twice."""
    fit = Tail.fit

    def careless(self: Tail, epoch: str, seq: int, event_id: str) -> Fit:
        return Fit.NEXT if epoch == self.epoch and seq == self.head else fit(self, epoch, seq, event_id)

    return [(Tail, "fit", careless)]


@bug
def tail_forgets_without_moving_its_start() -> list[Patch]:
    """Memory is given back, and the positions no longer fit to what is left."""

    def forget(self: Tail, count: int) -> None:
        for _ in range(count):
            self._budget.regain(self, self._frames.popleft().cost)
        self._drop_chunks()

    return [(Tail, "_forget", forget)]


@bug
def chunk_is_not_made_anew() -> list[Patch]:
    """A chunk that is kept for other readers lacks what came since, and is taken for complete."""

    def add(self: Tail, epoch: str, frame: Frame) -> None:
        self.epoch = epoch
        self._frames.append(frame)
        end = Position(epoch, self.head)
        self._chunks = {seq: (chunk, end) for seq, (chunk, _) in self._chunks.items()}
        self._budget.spend(self, frame.cost)

    return [(Tail, "add", add)]


@bug
def readers_of_another_position_share_a_page() -> list[Patch]:
    """Pages of history are shared by topic, and not by topic and position."""
    page = hub.Hub.page

    async def shared(self: hub.Hub, topic: str, after: int, max_bytes: int = 0) -> tuple[Head, list[Frame]]:
        known = next((key for key in self._pages if key[0] == topic), None)
        return await (page(self, *known) if known else page(self, topic, after, max_bytes))

    return [(hub.Hub, "page", shared)]


# -- resuming -------------------------------------------------------------------------------------------------------


@bug
def cursor_of_another_epoch_is_followed() -> list[Patch]:
    """A cursor from before a restored backup is resumed as if nothing had happened."""

    def lost(position: Position, head: Head) -> str:
        if position == NONE_YET:
            return resuming.TRIMMED if head.floor else ""
        return resuming.TRIMMED if position.seq < head.floor else ""

    return [(resuming, "lost", lost), (streams, "lost", lost)]


@bug
def trimmed_history_is_skipped_in_silence() -> list[Patch]:
    """Who comes back too late goes on at the first event that is left."""
    missed = resuming.missed

    def silent(position: Position, head: Head, first: int | None) -> str:
        reason = missed(position, head, first)
        return "" if reason == resuming.TRIMMED else reason

    return [(streams, "missed", silent), (streams, "lost", lambda claim, end: "")]


@bug
def who_comes_back_begins_with_what_comes_next() -> list[Patch]:
    """The last event id is not looked at."""

    async def place_on(hub: Any, subscription: Subscription, index: int, cursor: Any, *, garbage: bool) -> str:
        found = subscription.tails[index]
        subscription.move(index, position_of(Head(found.epoch, found.head, found.floor)))
        return ""

    return [(streams, "_place_on", place_on)]


@bug
def id_names_the_event_s_topic_only() -> list[Patch]:
    """On a connection with several topics the cursor forgets the positions on the others."""

    def with_id(cursor: str, frame: bytes, topic: str = "") -> bytes:
        return original(cursor.split(".")[0], frame, topic)

    original = tail.with_id
    return [(tail, "with_id", with_id)]


# -- looks and the layer ----------------------------------------------------------------------------------------------


@bug
def nobody_looks_at_the_history() -> list[Patch]:
    """What the layer loses at the end of a burst is never missed."""

    async def nothing(self: hub.Hub) -> None:
        pass

    return [(hub.Hub, "_look", nothing), (hub.Hub, "_sweep", nothing)]


@bug
def nobody_numbers_what_is_left_over() -> list[Patch]:
    """What a publisher committed that died before the numbering stays without a number."""

    async def look(self: hub.Hub) -> None:
        if self.tails:
            moved, self._marker = await self.pool.run(get_history().moved, self._marker)
            self._compare(moved)

    return [(hub.Hub, "_look", look)]


@bug
def layer_is_not_joined_again() -> list[Patch]:
    """After the layer restarted, a hub is in no group any more: every event waits for a look."""

    def nothing(self: membership.Membership) -> None:
        pass

    def compare(self: hub.Hub, heads: dict[str, Head]) -> None:
        for topic, head in heads.items():
            found = self.tails.get(topic)
            if found is not None and (head.epoch, head.seq) != (found.epoch, found.head):
                self._spawn_repair(found)

    return [(membership.Membership, "join_again_soon", nothing), (hub.Hub, "_compare", compare)]


# -- publishing -------------------------------------------------------------------------------------------------------


@bug
def reset_is_told_once_and_perhaps_never() -> list[Patch]:
    """The first block of a stream names positions that are good only behind the resets which follow it."""
    blocks = streams.opening_blocks

    def hasty(subscription: Subscription, reasons: dict[int, str], refused: Sequence[str], **said: Any) -> bytes:
        for index in reasons:
            found = subscription.tails[index]
            subscription.move(index, position_of(Head(found.epoch, found.head, found.floor)))
        return blocks(subscription, reasons, refused, **said)

    return [(roster, "opening_blocks", hasty)]


@bug
def events_do_not_wait_for_the_commit() -> list[Patch]:
    """What is rolled back is delivered."""

    def emit(events: Sequence[Event], *, using: str, store: bool = True) -> None:
        announce(get_history().append(events))

    return [(publishing, "emit", emit)]


@bug
def what_is_rolled_back_is_written_with_the_next_commit() -> list[Patch]:
    """Events that are still to be written stay, whatever becomes of their savepoint or transaction."""
    strong = SimpleNamespace(ref=lambda debt: lambda: debt, WeakSet=weakref.WeakSet)
    return [(debts, "weakref", strong), (debts.Account, "_discard", lambda self: None)]


@bug
def nobody_wakes_the_relay() -> list[Patch]:
    """What is committed while the relay waits for something to do is numbered when it has waited long enough."""

    def take(self: relay.Relay, topics: Iterable[str]) -> bool:
        self._topics.update(topics)
        return self._thread is not None or self._start()

    return [(relay.Relay, "take", take)]


@bug
def debts_are_forgotten_with_a_savepoint() -> list[Patch]:
    """A commit settles nothing where a savepoint was rolled back, and tells of what was never committed elsewhere."""

    def settle(owed: Iterable[debts.Debt]) -> None:
        for debt in owed:
            debt.settled = True

    return [(debts, "settle", settle)]


@bug
def what_is_told_is_not_what_was_numbered() -> list[Patch]:
    """The layer is told of events under numbers that are one too high."""

    send_right = broker.send

    def send(stretch: Any) -> None:
        send_right(stretch._replace(events=tuple(_renumbered(event) for event in stretch.events)))

    return [(broker, "send", send)]


def _renumbered(event: Event) -> Event:
    return Event(event.topic, event.type, event.json, event.id, event.created_at, (event.seq or 0) + 1)


# -- a history that is away -------------------------------------------------------------------------------------------


@bug
def what_is_given_up_is_forgotten() -> list[Patch]:
    """Events that waited in vain for the history are lost, and no reader is told."""
    return [(backlog.Backlog, "_lose", lambda self, topics: None)]


@bug
def events_overtake_those_that_wait() -> list[Patch]:
    """Whoever finds the history back appends at once, in front of what waits."""
    return [(backlog.Backlog, "_in_turn", lambda self, events: list(events))]


# -- events that differ by viewer -------------------------------------------------------------------------------------


@bug
def all_viewers_are_one() -> list[Patch]:
    """Who asks together sees what one of them may see."""
    return [(Viewer, "credential", "anybody")]


@bug
def what_is_hidden_is_never_told() -> list[Patch]:
    """A reader whose last events are hidden stays behind for ever."""
    return [(personal_streams.PersonalStream, "_sync", lambda self: b"")]


@bug
def what_was_not_asked_yet_is_hidden() -> list[Patch]:
    """An answer that is cut off is taken for a whole one."""
    answer = personal.answer

    def padded(questions: Sequence[personal.Question], clock: Any) -> list[list[bytes | None]]:
        found = zip(questions, answer(questions, clock), strict=True)
        return [[*frames, *[None] * (len(question.events) - len(frames))] for question, frames in found]

    return [(personal, "answer", padded)]
