"""The hub: what the layer loses, doubles or mixes up is repaired from the history before a reader sees any of it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import threading
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.db.models import F

from livefeed import broker, chores, event_published, membership
from livefeed import flushing as flushing_module
from livefeed import hub as hub_module
from livefeed.chores import repeat
from livefeed.cursors import NONE_YET, Position
from livefeed.events import Event, Stretch, new_event
from livefeed.flushing import Flusher
from livefeed.history import Head, History, Page, get_history
from livefeed.hub import Hub
from livefeed.models import StoredTopic
from livefeed.pool import THREADS, Pool
from livefeed.registry import registry
from livefeed.tail import Subscription, Tail
from livefeed.testing import capture_events
from livefeed.window import Budget
from tests.reading import (
    LIMIT,
    append,
    eventually,
    fleeting,
    numbers,
    parse,
    plain_encode,
    pool_threads,
    singles,
    subscribe,
    woken,
)

pytest_plugins = ["tests.reading_fixtures"]


class Watched:
    """A history whose reads are counted, and can be held up after they have read."""

    def __init__(self, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: list[tuple[str, int]] = []
        self.heads: list[list[str]] = []
        self.may_return = threading.Event()
        self.may_return.set()
        self.has_read = threading.Event()
        read, heads = history.read, history.heads

        def watched_read(topic: str, after: int, limit: int, max_bytes: int) -> Page:
            self.reads.append((topic, after))
            page = read(topic, after, limit, max_bytes)
            self._hold()
            return page

        def watched_heads(topics: Any) -> dict[str, Head]:
            self.heads.append(list(topics))
            found = heads(topics)
            self._hold()
            return found

        monkeypatch.setattr(history, "read", watched_read)
        monkeypatch.setattr(history, "heads", watched_heads)

    def _hold(self) -> None:
        self.has_read.set()
        assert self.may_return.wait(LIMIT)

    def hold(self) -> None:
        self.has_read.clear()
        self.may_return.clear()

    async def held(self) -> None:
        await eventually(self.has_read.is_set, "the history was read")

    def let_go(self) -> None:
        self.may_return.set()


@pytest.fixture
def watched(memory: History, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(memory, monkeypatch)


async def settled(hub: Hub) -> None:
    """Wait for the repairs that are under way."""
    await eventually(lambda: not hub._repairs, "no repair is under way")


# -- the layer, and what it does to events ----------------------------------------------------------------------------


async def test_what_the_layer_brings_in_order_is_taken_without_asking_the_history(hub: Hub, watched: Watched) -> None:
    reader = await subscribe(hub, "t")
    for stretch in singles(append("t", 1, 2, 3)):
        hub.receive(stretch)
    assert numbers(parse(reader.take())) == [1, 2, 3]
    assert watched.reads == []


async def test_an_event_that_the_layer_lost_is_read_from_the_history_before_anything_behind_it(hub: Hub) -> None:
    reader = await subscribe(hub, "t")
    first, _, third = singles(append("t", 1, 2, 3))
    hub.receive(first)
    hub.receive(third)
    assert numbers(parse(reader.take())) == [1]
    assert numbers(parse(await woken(reader))) == [2, 3]


async def test_an_event_that_the_layer_doubled_comes_once(hub: Hub) -> None:
    reader = await subscribe(hub, "t")
    first, second = singles(append("t", 1, 2))
    for stretch in [first, first, second, first, second]:
        hub.receive(stretch)
    assert numbers(parse(reader.take())) == [1, 2]
    hub.receive(second)
    await settled(hub)
    assert reader.take() == b""


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_events_in_any_order_come_in_theirs(hub: Hub, order: tuple[int, ...]) -> None:
    reader = await subscribe(hub, "t")
    stretches = singles(append("t", 0, 1, 2, 3))
    for index in order:
        hub.receive(stretches[index])
    found: list[int] = []
    while len(found) < 4:
        found += numbers(parse(await woken(reader)))
    await settled(hub)
    assert [*found, *numbers(parse(reader.take()))] == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(15))
async def test_a_layer_that_loses_doubles_and_mixes_up_changes_nothing(hub: Hub, seed: int) -> None:
    chance = random.Random(seed)
    reader = await subscribe(hub, "t")
    waiting: list[Stretch] = []
    found: list[int] = []
    for n in range(60):
        waiting += singles(append("t", n)) * chance.choice([0, 1, 1, 2])
        chance.shuffle(waiting)
        while waiting and chance.random() < 0.6:
            hub.receive(waiting.pop())
        if chance.random() < 0.3:
            await asyncio.sleep(0)
        found += numbers(parse(reader.take()))
    await hub.repair(hub.tails["t"])
    found += numbers(parse(reader.take()))
    assert found == list(range(60))


async def test_what_the_layer_brings_for_a_topic_that_nobody_reads_is_let_go(hub: Hub) -> None:
    await subscribe(hub, "t")
    for stretch in append("other", 1):
        hub.receive(stretch)
    assert set(hub.tails) == {"t"}


async def test_events_that_overtake_a_repair_are_no_sign_of_a_restored_backup(
    hub: Hub, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """The history is read, then two more events come over the layer, then the answer of the history arrives."""
    reader = await subscribe(hub, "t")
    for stretch in append("t", 1):
        hub.receive(stretch)
    epoch = hub.tails["t"].epoch
    watched.hold()
    repair = asyncio.ensure_future(hub.repair(hub.tails["t"]))
    await watched.held()
    for stretch in append("t", 2, 3):
        hub.receive(stretch)
    watched.let_go()
    await repair
    assert numbers(parse(reader.take())) == [1, 2, 3]
    assert hub.tails["t"].epoch == epoch == get_history().heads(["t"])["t"].epoch
    assert "renewed" not in caplog.text


async def test_an_event_that_is_numbered_while_the_history_is_read_is_no_hole(
    hub: Hub, memory: History, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The head is read, then another event is numbered, then the events are read."""
    reader = await subscribe(hub, "t")
    read = memory.read

    def slow_read(topic: str, after: int, limit: int, max_bytes: int) -> Page:
        head = memory.heads([topic])[topic]
        if head.seq < 3:
            append("t", head.seq + 1)
        return Page(head, read(topic, after, limit).events)

    monkeypatch.setattr(memory, "read", slow_read)
    append("t", 1)
    await hub.repair(hub.tails["t"])
    await hub.repair(hub.tails["t"])
    await hub.repair(hub.tails["t"])
    assert numbers(parse(reader.take()))[:2] == [1, 2]
    assert reader.behind() == []
    assert "hole" not in caplog.text


async def test_a_topic_s_first_event_that_overtakes_a_repair_stays(hub: Hub, watched: Watched) -> None:
    """The history was read before the event was there; the tail is not led back to that."""
    reader = await subscribe(hub, "t")
    watched.hold()
    repairing = hub._spawn_repair(hub.tails["t"])
    await watched.held()
    for stretch in append("t", 1):
        hub.receive(stretch)
    watched.let_go()
    await repairing
    assert hub.tails["t"].head == 1
    assert numbers(parse(reader.take())) == [1]


async def test_what_comes_before_a_gap_does_not_wait_for_the_history(
    hub: Hub, memory: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any) -> Page:
        raise DatabaseError("away")

    reader = await subscribe(hub, "t")
    monkeypatch.setattr(memory, "read", away)
    (first,), _, (third,) = append("t", 1), append("t", 2), append("t", 3)
    waiting = asyncio.ensure_future(reader.wait())
    await asyncio.sleep(0)
    hub.receive(Stretch("t", first.epoch, (*first.events, *third.events)))
    await asyncio.wait_for(waiting, LIMIT)
    assert numbers(parse(reader.take())) == [1]


async def test_an_event_is_encoded_once_however_many_read_it(memory: History, new_hub: Callable[..., Hub]) -> None:
    encoded: list[str] = []

    def encode(event: Event) -> bytes:
        encoded.append(event.id)
        return plain_encode(event)

    hub = new_hub(encode)
    readers = [await subscribe(hub, "t") for _ in range(50)]
    for stretch in append("t", 1, 2, 3):
        hub.receive(stretch)
        hub.receive(stretch)
    chunks = {id(reader.take()) for reader in readers}
    assert len(encoded) == 3
    assert len(chunks) == 1


async def test_those_who_ask_for_the_same_page_of_history_share_one_read_and_one_encoding(
    memory: History, watched: Watched, new_hub: Callable[..., Hub]
) -> None:
    encoded: list[str] = []

    def encode(event: Event) -> bytes:
        encoded.append(event.id)
        return plain_encode(event)

    append("t", 1, 2, 3)
    hub = new_hub(encode)
    pages = await asyncio.gather(*(hub.page("t", 0) for _ in range(20)))
    assert [frame.seq for frame in pages[19][1]] == [1, 2, 3]
    assert watched.reads == [("t", 0)]
    assert len(encoded) == 3


async def test_those_who_come_back_one_after_the_other_from_about_the_same_place_share_one_read(
    memory: History, hub: Hub, watched: Watched
) -> None:
    append("t", *range(1, 11))
    (tail,) = await hub.open(["t"])
    _, frames = await hub.page("t", 4)
    assert [frame.seq for frame in frames] == [5, 6, 7, 8, 9, 10]
    for seq in range(4, 10):
        reader = await subscribe(hub, "t", positions=[Position(tail.epoch, seq)])
        assert not reader.behind()
        assert numbers(parse(reader.take())) == list(range(seq + 1, 11))
    assert watched.reads == [("t", 4)]


# -- opening and leaving ----------------------------------------------------------------------------------------------


async def test_those_who_open_a_topic_at_once_share_one_read_and_one_tail(hub: Hub, watched: Watched) -> None:
    found = await asyncio.gather(*(hub.open(["a", "b"]) for _ in range(10)))
    assert watched.heads == [["a", "b"]]
    assert len({id(tail) for tails in found for tail in tails}) == 2


async def test_what_comes_while_a_topic_is_opened_is_not_missed(hub: Hub, watched: Watched) -> None:
    append("t", 1)
    watched.hold()
    opening = asyncio.ensure_future(hub.open(["t"]))
    await watched.held()
    (late,) = append("t", 2)
    hub.receive(late)  # nobody is there yet
    watched.let_go()
    (tail,) = await opening
    reader = Subscription([tail], [Position(tail.epoch, tail.head)])
    hub.attach(reader)
    for stretch in append("t", 3):
        hub.receive(stretch)
    assert numbers(parse(await woken(reader))) == [2, 3]


async def test_a_topic_is_joined_before_its_end_is_read(
    hub: Hub, layer: Any, memory: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is published in between would wait for a look."""
    heads = memory.heads

    def heads_of_joined(topics: Any) -> dict[str, Head]:
        assert layer.groups.get(broker.group_name("t"))
        return heads(topics)

    monkeypatch.setattr(memory, "heads", heads_of_joined)
    await hub.open(["t"])


async def test_a_reader_that_gives_up_while_a_topic_is_opened_does_not_take_it_from_the_others(
    hub: Hub, watched: Watched
) -> None:
    watched.hold()
    impatient, patient = asyncio.ensure_future(hub.open(["t"])), asyncio.ensure_future(hub.open(["t"]))
    await watched.held()
    impatient.cancel()
    watched.let_go()
    (tail,) = await patient
    assert hub.tails == {"t": tail}


async def test_a_history_that_is_away_is_told_to_whoever_opens_and_asked_again_by_the_next(
    hub: Hub, memory: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(topics: Any) -> dict[str, Head]:
        raise DatabaseError("away")

    with monkeypatch.context() as patch:
        patch.setattr(memory, "heads", away)
        with pytest.raises(DatabaseError):
            await hub.open(["t"])
    assert [tail.topic for tail in await hub.open(["t"])] == ["t"]


async def test_a_tail_lingers_for_readers_who_come_back_and_then_goes(
    hub: Hub, layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await subscribe(hub, "t")
    tail = hub.tails["t"]
    hub.detach(reader)
    await hub._tidy()
    assert hub.tails == {"t": tail}
    assert len(layer.groups[broker.group_name("t")]) == 1
    monkeypatch.setattr(hub_module, "LINGER", -1.0)
    await hub._tidy()
    assert hub.tails == {}
    assert not layer.groups.get(broker.group_name("t"))


async def test_a_tail_with_readers_is_never_closed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    staying, leaving = await subscribe(hub, "t"), await subscribe(hub, "t")
    hub.detach(leaving)
    monkeypatch.setattr(hub_module, "LINGER", -1.0)
    await hub._tidy()
    for stretch in append("t", 1):
        hub.receive(stretch)
    assert numbers(parse(staying.take())) == [1]


async def test_of_tails_without_readers_only_so_many_are_kept_and_the_longest_idle_goes_first(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may read all of ``name:<key>`` can think of as many keys as they like."""
    monkeypatch.setattr(hub_module, "LINGERING", 3)
    staying = await subscribe(hub, "read")
    for n in range(10):
        hub.detach(await subscribe(hub, f"t:{n}"))
    await eventually(lambda: set(hub.tails) == {"read", "t:7", "t:8", "t:9"}, "the others are closed")
    for stretch in append("read", 1):
        hub.receive(stretch)
    assert numbers(parse(staying.take())) == [1]


async def test_a_tail_is_not_closed_under_the_hands_of_a_reader_that_is_about_to_attach(
    hub: Hub, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Topic a has lingered long enough when a reader of a and b comes; b still has to be read from the history."""
    hub.detach(await subscribe(hub, "a"))
    hub._idle["a"] -= 10 * hub_module.LINGER
    watched.hold()
    opening = asyncio.ensure_future(hub.open(["a", "b"]))
    await watched.held()
    await hub._tidy()
    watched.let_go()
    tails = await opening
    assert tails == [hub.tails["a"], hub.tails["b"]]


async def test_a_tail_that_was_just_opened_is_kept_until_its_reader_attached(hub: Hub) -> None:
    hub.detach(await subscribe(hub, "a"))
    hub._idle["a"] -= 10 * hub_module.LINGER
    (tail,) = await hub.open(["a"])
    await hub._tidy()
    assert hub.tails == {"a": tail}


async def test_a_tail_whose_reader_gave_up_before_it_attached_lingers_and_goes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hub.open(["a"])
    monkeypatch.setattr(hub_module, "LINGER", -1.0)
    await hub._tidy()
    assert hub.tails == {}


async def test_a_reader_that_comes_while_its_topic_is_left_gets_a_tail_that_stays(
    hub: Hub, layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.detach(await subscribe(hub, "a"))
    readers: list[Subscription] = []
    discard = layer.group_discard

    async def slow_discard(group: str, channel: str) -> None:
        readers.append(await subscribe(hub, "a"))
        await discard(group, channel)

    monkeypatch.setattr(layer, "group_discard", slow_discard)
    monkeypatch.setattr(hub_module, "LINGER", -1.0)
    await hub._tidy()
    monkeypatch.undo()
    for stretch in append("a", 1):
        hub.receive(stretch)
    assert numbers(parse(readers[0].take())) == [1]


async def test_a_reader_that_comes_while_other_tails_are_closed_keeps_its_own(
    hub: Hub, layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for topic in ["a", "b"]:
        hub.detach(await subscribe(hub, topic))
    readers: list[Subscription] = []
    discard = layer.group_discard

    async def slow_discard(group: str, channel: str) -> None:
        if not readers:
            readers.append(await subscribe(hub, "b"))
        await discard(group, channel)

    monkeypatch.setattr(layer, "group_discard", slow_discard)
    monkeypatch.setattr(hub_module, "LINGER", -1.0)
    await hub._tidy()
    monkeypatch.undo()
    for stretch in append("b", 1):
        hub.receive(stretch)
    assert numbers(parse(readers[0].take())) == [1]


async def test_a_closed_tail_gives_its_bytes_back_and_is_forgotten(hub: Hub) -> None:
    """However many topics come and go, nothing keeps a list of what they once held."""
    tails = []
    for name in range(20):
        reader = await subscribe(hub, f"t{name}")
        for stretch in append(f"t{name}", 1, 2):
            hub.receive(stretch)
        tails.append(weakref.ref(hub.tails[f"t{name}"]))
        hub.detach(reader)
        await hub._close_tail(f"t{name}")
    del reader
    assert hub._budget.used == 0
    await eventually(lambda: gc.collect() >= 0 and not any(tail() for tail in tails), "the tails are gone")


async def test_a_hub_that_stopped_has_no_thread_no_task_and_no_group(
    memory: History, layer: Any, new_hub: Callable[..., Hub]
) -> None:
    before = asyncio.all_tasks()
    hub = new_hub()
    reader = await subscribe(hub, "a", "b")
    hub.detach(reader)
    await hub.stop()
    assert asyncio.all_tasks() == before
    assert not any(layer.groups.values())
    await eventually(lambda: not pool_threads(), "the threads have ended")


async def test_a_hub_stops_although_the_layer_takes_the_end_for_its_own(
    memory: History, layer: Any, new_hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the client of Redis does on Python 3.11, now and then, where it is just connecting again."""
    waiting, swallowed, receive = asyncio.Event(), list[str](), layer.receive

    async def receive_on(channel: str) -> Any:
        waiting.set()
        try:
            return await receive(channel)
        except asyncio.CancelledError:
            if swallowed:
                raise
            swallowed.append(channel)
            return await receive(channel)

    monkeypatch.setattr(layer, "receive", receive_on)
    monkeypatch.setattr(chores, "AGAIN", 0.01)
    hub = new_hub()
    await subscribe(hub, "t")
    await waiting.wait()
    await asyncio.wait_for(hub.stop(), LIMIT)
    assert len(swallowed) == 1


async def test_a_hub_without_readers_lets_its_threads_go(
    hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.01
    reader = await subscribe(hub, "t")
    assert pool_threads()
    monkeypatch.setattr(hub_module, "LINGER", -1.0)
    hub.detach(reader)
    await hub._tidy()
    await eventually(lambda: not pool_threads(), "the threads have ended")


# -- waking -----------------------------------------------------------------------------------------------------------


async def test_ten_waiting_events_are_one_chunk(hub: Hub) -> None:
    reader = await subscribe(hub, "t")
    waiting = asyncio.ensure_future(reader.wait())
    await asyncio.sleep(0)
    for stretch in singles(append("t", *range(10))):
        hub.receive(stretch)
    await asyncio.wait_for(waiting, LIMIT)
    assert numbers(parse(reader.take())) == list(range(10))
    assert reader.take() == b""


async def test_what_is_fleeting_reaches_those_who_wait_and_nobody_else(hub: Hub) -> None:
    waits, writes = await subscribe(hub, "t"), await subscribe(hub, "t")
    waiting = asyncio.ensure_future(waits.wait())
    await asyncio.sleep(0)
    hub.receive(fleeting("t", {"who": "ann"}))
    await asyncio.wait_for(waiting, LIMIT)
    (event,) = parse(waits.fleeting, "before")
    assert (event.type, event.json, event.id) == ("typing", {"who": "ann"}, "before")
    assert writes.fleeting == b""
    assert waits.cursor == writes.cursor


class FakeLoop:
    """A loop whose time stands still until a test moves it on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.at: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []
        self.soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., None], *args: Any) -> None:
        self.at.append((when, callback, args))

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        self.soon.append((callback, args))

    def turn(self, busy: float = 0.0) -> None:
        """Do what waits, as one turn of a loop that is kept busy for so long."""
        due = [(callback, args) for when, callback, args in self.at if when <= self.now]
        self.at = [item for item in self.at if item[0] > self.now]
        ready, self.soon = [*due, *self.soon], []
        for callback, args in ready:
            callback(*args)
        self.now += busy


class Woken(Subscription):
    """A subscription that notes when it is woken."""

    __slots__ = ("loop", "times")

    def __init__(self, loop: FakeLoop, tail: Tail) -> None:
        super().__init__([tail], [NONE_YET])
        self.loop = loop
        self.times: list[float] = []
        tail.apart[self] = None

    def wake(self, fleeting: bytes = b"") -> None:
        self.times.append(self.loop.now)
        self.fleeting += fleeting


@pytest.fixture
def flushing() -> tuple[FakeLoop, Tail, Woken, Flusher]:
    loop = FakeLoop()
    tail = Tail("t", NONE_YET, Budget(1_000_000))
    return loop, tail, Woken(loop, tail), Flusher(loop)  # type: ignore[arg-type]


def test_an_idle_loop_is_flushed_at_once(flushing: tuple[FakeLoop, Tail, Woken, Flusher]) -> None:
    loop, tail, reader, flusher = flushing
    flusher.flush_soon(tail)
    loop.turn()
    assert reader.times == [100.0]
    for _ in range(10):
        loop.turn()
    flusher.flush_soon(tail)
    loop.turn()
    assert reader.times == [100.0, 100.0]


def test_a_busy_loop_is_flushed_no_sooner_than_twice_the_time_of_the_last_flush(
    flushing: tuple[FakeLoop, Tail, Woken, Flusher],
) -> None:
    loop, tail, reader, flusher = flushing
    flusher.flush_soon(tail)
    kept_busy = flushing_module.LAPS * 0.1  # the flush itself, and what its readers write in later turns
    for _ in range(flushing_module.LAPS):
        loop.turn(busy=0.1)
        flusher.flush_soon(tail)
    loop.turn()
    loop.now = 100.0 + 2 * kept_busy - 0.01
    loop.turn()
    assert reader.times == [100.0]
    loop.now = 100.0 + 2 * kept_busy + 0.01
    loop.turn()
    assert reader.times == [100.0, 100.0 + 2 * kept_busy + 0.01]


def test_many_events_during_a_flush_become_one(flushing: tuple[FakeLoop, Tail, Woken, Flusher]) -> None:
    loop, tail, reader, flusher = flushing
    for _ in range(100):
        flusher.flush_soon(tail)
    loop.turn(busy=0.01)
    for _ in range(100):
        flusher.flush_soon(tail)
    for _ in range(20):
        loop.turn(busy=0.01)
    assert len(reader.times) == 2


def test_a_flush_never_waits_longer_than_half_a_second(flushing: tuple[FakeLoop, Tail, Woken, Flusher]) -> None:
    loop, tail, reader, flusher = flushing
    flusher.flush_soon(tail)
    loop.turn(busy=60.0)
    while loop.soon:
        loop.turn()
    flusher.flush_soon(tail)
    loop.now += flushing_module.LONGEST_WAIT
    loop.turn()
    assert len(reader.times) == 2


def test_fleeting_blocks_that_come_during_a_flush_go_with_the_next(
    flushing: tuple[FakeLoop, Tail, Woken, Flusher],
) -> None:
    loop, tail, reader, flusher = flushing
    flusher.flush_soon(tail, [b"one "])
    loop.turn()
    flusher.flush_soon(tail, [b"two "])
    flusher.flush_soon(tail, [b"three "])
    for _ in range(10):
        loop.turn()
    assert reader.fleeting == b"one two three "


# -- the look at the history ------------------------------------------------------------------------------------------


async def test_an_event_of_another_process_arrives_with_a_look(hub: Hub, settings: Any) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.01
    reader = await subscribe(hub, "t")
    append("t", 1)
    assert numbers(parse(await woken(reader))) == [1]
    append("t", 2, 3)
    assert numbers(parse(await woken(reader))) == [2, 3]


async def test_a_look_that_fails_is_repeated(
    hub: Hub, memory: History, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.01
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def away(marker: Any) -> Any:
        loop.call_soon_threadsafe(failed.set)
        raise DatabaseError("away")

    reader = await subscribe(hub, "t")
    with monkeypatch.context() as patch:
        patch.setattr(memory, "moved", away)
        await asyncio.wait_for(failed.wait(), LIMIT)
    append("t", 1)
    assert numbers(parse(await woken(reader))) == [1]
    assert "The look at the history failed" in caplog.text


async def test_a_look_joins_the_layer_again_where_the_layer_forgot_us(hub: Hub, layer: Any) -> None:
    await subscribe(hub, "t")
    layer.groups.clear()
    append("t", 1)
    await hub._look()
    await hub._sweep()
    await settled(hub)
    assert len(layer.groups[broker.group_name("t")]) == 1


async def test_every_topic_is_joined_again_before_the_layer_forgets_its_members(
    memory: History, layer: Any, settings: Any, new_hub: Callable[..., Hub]
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.01
    layer.group_expiry = 0.03
    hub = new_hub()
    await subscribe(hub, "t")
    layer.groups.clear()
    await eventually(lambda: layer.groups.get(broker.group_name("t")), "the group has its member again")


async def test_leftovers_of_a_publisher_that_died_are_numbered_by_the_look_and_arrive(
    transactional_db: None, settings: Any, new_hub: Callable[..., Hub]
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.01
    hub = new_hub()
    reader = await subscribe(hub, "t")

    def publish_and_die() -> None:
        with transaction.atomic():
            get_history().record([new_event("t", {"n": 1}, "message"), new_event("t", {"n": 2}, "message")])

    with capture_events("t") as observed:
        await sync_to_async(publish_and_die)()
        assert numbers(parse(await woken(reader))) == [1, 2]
        await eventually(lambda: [event.seq for event in observed] == [1, 2], "observers were told, in a thread")
    await sync_to_async(connections.close_all)()


async def test_a_repair_reads_on_until_nothing_is_missing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PAGE_EVENTS", 10)
    reader = await subscribe(hub, "t")
    append("t", *range(35))
    await hub.repair(hub.tails["t"])
    assert numbers(parse(reader.take())) == list(range(35))


# -- histories that are not what they were ----------------------------------------------------------------------------


async def test_a_restored_backup_gets_a_new_epoch(hub: Hub, memory: Any, caplog: pytest.LogCaptureFixture) -> None:
    reader = await subscribe(hub, "t")
    for stretch in append("t", 1, 2, 3):
        hub.receive(stretch)
    assert numbers(parse(reader.take())) == [1, 2, 3]
    tail, epoch = hub.tails["t"], hub.tails["t"].epoch
    del memory._topics["t"].events[1:]
    await hub._sweep()
    await settled(hub)
    assert get_history().heads(["t"])["t"].epoch == tail.epoch != epoch
    assert (tail.start, tail.head) == (1, 1)
    assert reader.behind() == [0]
    assert "epoch is renewed" in caplog.text


async def test_another_event_under_a_known_number_gets_a_new_epoch(hub: Hub, memory: Any) -> None:
    """A backup was restored, and as much was published since as had been lost: the head looks as before."""
    reader = await subscribe(hub, "t")
    for stretch in append("t", 1, 2, 3):
        hub.receive(stretch)
    assert numbers(parse(reader.take())) == [1, 2, 3]
    epoch = hub.tails["t"].epoch
    del memory._topics["t"].events[1:]
    for stretch in append("t", 12, 13):
        hub.receive(stretch)
    await settled(hub)
    assert hub.tails["t"].epoch != epoch
    assert reader.behind() == [0]


async def test_a_renewed_epoch_is_seen_by_the_look(hub: Hub) -> None:
    reader = await subscribe(hub, "t")
    for stretch in append("t", 1, 2):
        hub.receive(stretch)
    reader.take()
    await hub._look()
    get_history().renew_epoch(["t"])
    await hub._look()
    await settled(hub)
    assert hub.tails["t"].epoch == get_history().heads(["t"])["t"].epoch
    assert reader.behind() == [0]


async def test_a_topic_that_is_gone_from_a_restored_history_is_found_by_the_sweep(hub: Hub, memory: Any) -> None:
    reader = await subscribe(hub, "t")
    for stretch in append("t", 1, 2):
        hub.receive(stretch)
    reader.take()
    del memory._topics["t"]
    await hub._sweep()
    await settled(hub)
    assert hub.tails["t"].epoch == ""
    assert reader.behind() == [0]


async def test_a_topic_that_was_trimmed_past_the_tail_begins_anew(hub: Hub, settings: Any) -> None:
    reader = await subscribe(hub, "t")
    append("t", *range(10))
    settings.LIVEFEED_RETENTION_EVENTS = 3
    get_history().trim(registry.retention)
    await hub.repair(hub.tails["t"])
    tail = hub.tails["t"]
    assert (tail.start, tail.floor) == (10, 7)
    assert reader.behind() == [0]


async def test_a_history_with_a_hole_is_not_read_for_ever(
    hub: Hub, memory: Any, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody deleted rows by hand: no number is missing from the head, but events are."""
    reader = await subscribe(hub, "t")
    append("t", *range(500))
    stored = memory._topics["t"].events
    holes = [event for event in stored if event.seq > 100]

    def read(topic: str, after: int, limit: int, max_bytes: int) -> Page:
        watched.reads.append((topic, after))
        return Page(memory.heads([topic])[topic], [event for event in holes if event.seq > after][:limit])

    monkeypatch.setattr(memory, "read", read)
    try:
        async with asyncio.timeout(2):
            await hub.repair(hub.tails["t"])
    finally:
        for task in hub._repairs.values():
            task.cancel()
    assert len(watched.reads) < 10
    assert reader.behind() == [0]


# -- a layer that fails -----------------------------------------------------------------------------------------------


class BrokenLayer:
    """The in-memory layer, until it breaks; then each of its calls raises."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._broken = asyncio.Event()
        self.channels: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    async def new_channel(self, prefix: str) -> str:
        self._check()
        self.channels.append(await self._layer.new_channel(prefix))
        return self.channels[-1]

    async def group_add(self, group: str, channel: str) -> None:
        self._check()
        await self._layer.group_add(group, channel)

    async def receive(self, channel: str) -> Any:
        self._check()
        receiving = asyncio.ensure_future(self._layer.receive(channel))
        breaking = asyncio.ensure_future(self._broken.wait())
        try:
            await asyncio.wait([receiving, breaking], return_when=asyncio.FIRST_COMPLETED)
            self._check()
            return receiving.result()
        finally:
            receiving.cancel()
            breaking.cancel()

    def _check(self) -> None:
        if self._broken.is_set():
            raise ConnectionError("the layer is away")

    def break_down(self) -> None:
        self._broken.set()

    def come_back(self) -> None:
        self._layer.groups.clear()
        self._broken.clear()


@pytest.fixture
async def broken_layer(layer: Any, monkeypatch: pytest.MonkeyPatch) -> BrokenLayer:
    broken = BrokenLayer(layer)
    monkeypatch.setattr(broker, "channel_layer", lambda: broken)
    monkeypatch.setattr(membership, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(membership, "LONGEST_PAUSE", 0.02)
    return broken


async def test_a_layer_that_fails_and_comes_back_costs_no_event(
    memory: History,
    broken_layer: BrokenLayer,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    new_hub: Callable[..., Hub],
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.02
    hub = new_hub()
    reader = await subscribe(hub, "t")
    broken_layer.break_down()
    await eventually(lambda: "channel layer is away" in caplog.text, "the hub noticed")
    append("t", 1, 2)
    found = numbers(parse(await woken(reader)))
    broken_layer.come_back()
    await eventually(lambda: broken_layer.groups.get(broker.group_name("t")), "the hub joined the group again")
    for stretch in append("t", 3):
        broker.send(stretch)
    while len(found) < 3:
        found += numbers(parse(await woken(reader)))
    assert found == [1, 2, 3]
    assert list(broken_layer.groups[broker.group_name("t")]) == broken_layer.channels[:1]


async def test_a_topic_can_be_opened_while_the_layer_is_away(
    memory: History,
    broken_layer: BrokenLayer,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    new_hub: Callable[..., Hub],
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.02
    broken_layer.break_down()
    hub = new_hub()
    reader = await subscribe(hub, "t")
    append("t", 1)
    assert numbers(parse(await woken(reader))) == [1]
    broken_layer.come_back()
    await eventually(lambda: broken_layer.groups.get(broker.group_name("t")), "the hub joined")


async def test_a_topic_that_could_not_be_joined_gets_what_is_fleeting_once_the_layer_is_back(
    memory: History, broken_layer: BrokenLayer, settings: Any, new_hub: Callable[..., Hub]
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.02
    broken_layer.break_down()
    readers = {topic: await subscribe(hub, topic) for hub in [new_hub()] for topic in ("one", "two", "three")}
    broken_layer.come_back()
    for topic, reader in readers.items():
        group = broker.group_name(topic)
        await eventually(lambda group=group: broken_layer.groups.get(group), "the hub joined, though nothing moved")
        broker.send(fleeting(topic, {"n": 1}))
        await reader.wait()
        assert numbers(parse(reader.fleeting)) == [1]


async def test_after_the_layer_lost_its_members_what_is_fleeting_arrives_although_nothing_moved(
    memory: History, broken_layer: BrokenLayer, settings: Any, caplog: pytest.LogCaptureFixture, hub: Hub
) -> None:
    reader = await subscribe(hub, "t")
    broken_layer.break_down()
    await eventually(lambda: "channel layer is away" in caplog.text, "the hub noticed")
    broken_layer.come_back()

    async def looked() -> bool:
        await hub._look()
        return bool(broken_layer.groups.get(broker.group_name("t")))

    await eventually(looked, "the hub joined again, though nothing moved")
    broker.send(fleeting("t", {"n": 1}))
    await asyncio.wait_for(reader.wait(), LIMIT)
    assert numbers(parse(reader.fleeting)) == [1]


async def test_a_join_that_failed_alone_is_repeated_by_the_look(
    hub: Hub, layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub goes on receiving all the while, so nothing else tells it to join again."""

    async def fails(group: str, channel: str) -> None:
        raise ConnectionError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(layer, "group_add", fails)
        await subscribe(hub, "t")
    assert not layer.groups.get(broker.group_name("t"))
    await hub._look()
    await eventually(lambda: layer.groups.get(broker.group_name("t")), "the hub joined, though nothing moved")


async def test_a_message_that_is_not_ours_is_passed_over(
    hub: Hub, layer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    reader = await subscribe(hub, "t")
    group = broker.group_name("t")
    for message in [{"type": "x"}, {"type": "x", "body": b"["}, {"type": "x", "body": b"[1, 2]"}, {"body": 7}]:
        await layer.group_send(group, message)
    for stretch in append("t", 1):
        broker.send(stretch)
    assert numbers(parse(await woken(reader))) == [1]
    assert caplog.text.count("is not ours") == 4


async def test_events_travel_over_the_layer(hub: Hub) -> None:
    reader = await subscribe(hub, "a", "b")
    for stretch in [*append("a", 1), *append("b", 2)]:
        broker.send(stretch)
    found: list[Any] = []
    while len(found) < 2:
        found += parse(await woken(reader))
    assert sorted((event.topic, event.json["n"]) for event in found) == [("a", 1), ("b", 2)]


async def test_a_layer_that_fails_with_whatever_it_likes_is_away_and_asked_again_after_a_pause(
    hub: Hub, layer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    async def fails(channel: str) -> Any:
        nonlocal asked
        asked += 1
        raise ValueError("Redis URL must specify one of the following schemes")

    monkeypatch.setattr(layer, "receive", fails)
    monkeypatch.setattr(membership, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(membership, "LONGEST_PAUSE", 3600.0)
    await subscribe(hub, "t")
    await eventually(lambda: "channel layer is away" in caplog.text, "the hub noticed")
    assert asked == 1
    assert "not ours" not in caplog.text


async def test_who_comes_back_while_the_hub_leaves_the_layer_is_joined_again(
    hub: Hub, layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.detach(await subscribe(hub, "a"))
    discard = layer.group_discard

    async def overtaken(group: str, channel: str) -> None:
        await subscribe(hub, "a")
        await discard(group, channel)

    with monkeypatch.context() as patch:
        patch.setattr(layer, "group_discard", overtaken)
        patch.setattr(hub_module, "LINGER", -1.0)
        await hub._tidy()
    assert not layer.groups.get(broker.group_name("a"))
    await hub._look()
    await eventually(lambda: layer.groups.get(broker.group_name("a")), "the hub joined again, though nothing moved")


async def test_a_first_look_that_comes_late_sees_what_moved_since_the_topic_was_opened(
    transactional_db: None, settings: Any, new_hub: Callable[..., Hub]
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 3600.0

    def seconds_pass(topic: str, seconds: int) -> None:
        passed = timedelta(seconds=seconds)
        StoredTopic.objects.filter(name=topic).update(moved_at=F("moved_at") - passed)

    await sync_to_async(append)("a", 0)
    await sync_to_async(seconds_pass)("a", 20)
    hub = new_hub()
    await subscribe(hub, "a")
    await sync_to_async(append)("a", 1)  # the layer loses it
    await sync_to_async(seconds_pass)("a", 6)
    await sync_to_async(append)("b", 1)
    await hub._look()
    await settled(hub)
    assert hub.tails["a"].head == 2
    await sync_to_async(connections.close_all)()


async def test_those_who_observe_what_a_look_numbered_may_ask_the_database(
    transactional_db: None, settings: Any, new_hub: Callable[..., Hub]
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 3600.0
    hub = new_hub()
    await subscribe(hub, "a")
    await sync_to_async(get_history().record)([new_event("a", {"n": 1}, "message")])
    seen: list[int] = []

    def observe(**kwargs: Any) -> None:
        seen.append(StoredTopic.objects.count())

    event_published.connect(observe)
    try:
        await hub._look()
        await hub._look()
    finally:
        event_published.disconnect(observe)
    assert seen == [1]
    await sync_to_async(connections.close_all)()


async def test_a_repair_of_a_closed_tail_touches_nothing_and_stands_for_no_other(
    hub: Hub, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, began, may_return = memory.read, threading.Event(), threading.Event()

    def slow_at_first(*args: Any) -> Page:
        if not began.is_set():
            began.set()
            may_return.wait(LIMIT)
        return read(*args)

    reader = await subscribe(hub, "a")
    old = hub.tails["a"]
    append("a", 0)
    monkeypatch.setattr(memory, "read", slow_at_first)
    repairing = hub._spawn_repair(old)
    await eventually(began.is_set, "the repair reads")
    hub.detach(reader)
    with monkeypatch.context() as patch:
        patch.setattr(hub_module, "LINGER", -1.0)
        await hub._tidy()
    await subscribe(hub, "a")
    append("a", 1)
    await hub.repair(hub.tails["a"])
    may_return.set()
    await repairing
    assert (hub.tails["a"].head, old.head) == (2, 0)
    assert hub._budget.used == sum(frame.cost for frame in hub.tails["a"].after(hub.tails["a"].start))


async def test_of_several_hubs_that_notice_a_restored_backup_one_renews_its_epoch(
    new_hub: Callable[..., Hub], memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    append("a", 1, 2, 3)
    hubs = [new_hub() for _ in range(5)]
    for hub in hubs:
        await subscribe(hub, "a")
    renewals: list[Any] = []
    renew = memory.renew_epoch
    monkeypatch.setattr(memory, "renew_epoch", lambda topics: renewals.append(topics) or renew(topics))
    memory._topics["a"].events.pop()
    for hub in hubs:
        await hub._sweep()
        await settled(hub)
    assert renewals == [["a"]]
    assert {hub.tails["a"].epoch for hub in hubs} == {memory.heads(["a"])["a"].epoch}


async def test_a_history_that_is_away_is_nobody_s_surprise_where_several_topics_are_opened(
    hub: Hub, watched: Watched, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    surprises: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: surprises.append(context))
    may_fail = threading.Event()

    def away(topics: Any) -> Any:
        may_fail.wait(LIMIT)
        raise DatabaseError("away")

    monkeypatch.setattr(memory, "heads", away)
    opening = [asyncio.ensure_future(hub.open(["a"])), asyncio.ensure_future(hub.open(["a", "b"]))]
    await eventually(lambda: len(hub._opening) == 2, "both are opened")
    may_fail.set()
    await asyncio.gather(*opening, return_exceptions=True)
    await eventually(lambda: not hub._opening, "both have failed")
    gc.collect()
    assert surprises == []


# -- threads and chores -----------------------------------------------------------------------------------------------


async def test_the_pool_never_has_more_threads_than_it_says() -> None:
    pool, lock, seen = Pool(), threading.Lock(), set()

    def note() -> None:
        with lock:
            seen.add(threading.current_thread().name)

    await asyncio.gather(*(pool.run(note) for _ in range(200)))
    assert 1 <= len(seen) <= THREADS
    pool.close()
    await eventually(lambda: not pool_threads(), "the threads have ended")


async def test_the_pool_raises_what_the_job_raises_and_works_again_after_close() -> None:
    pool = Pool()
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    pool.close()
    assert await pool.run(lambda: 7) == 7
    pool.close()
    await eventually(lambda: not pool_threads(), "the threads have ended")


async def test_jobs_under_way_end_although_the_pool_is_closed() -> None:
    pool, go = Pool(), threading.Event()
    job = asyncio.ensure_future(pool.run(lambda: go.wait(LIMIT)))
    await eventually(pool_threads, "the job has a thread")
    pool.close()
    go.set()
    assert await job
    await eventually(lambda: not pool_threads(), "the threads have ended")


async def test_jobs_that_hang_never_make_the_pool_larger(hub: Hub) -> None:
    """The database does not answer, nobody reads yet, and look after look finds no topic to look at."""
    go = threading.Event()
    jobs = []
    for _ in range(3):
        jobs += [asyncio.ensure_future(hub.pool.run(lambda: go.wait(LIMIT))) for _ in range(THREADS)]
        await asyncio.sleep(0)
        await hub._look()
    threads = len(pool_threads())
    go.set()
    await asyncio.gather(*jobs)
    assert threads <= THREADS


async def test_a_connection_that_broke_is_dropped_after_its_job(transactional_db: None) -> None:
    pool, wrappers = Pool(), []

    def use_and_break() -> None:
        wrappers.append(connections["default"])
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert connection.connection is not None
        connection.errors_occurred = True

    await pool.run(use_and_break)
    assert wrappers[0].connection is None
    pool.close()
    await eventually(lambda: not pool_threads(), "the threads have ended")


@pytest.mark.parametrize("usable", [True, False])
async def test_a_job_that_finds_an_old_connection_broken_is_done_once_more_with_a_new_one(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    pool, wrappers = Pool(), []

    def use() -> str:
        wrappers.append(connections["default"])
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if len(wrappers) == 2:
            monkeypatch.setattr(connections["default"], "is_usable", lambda: usable)
            connection.errors_occurred = True
            raise OperationalError("server closed the connection unexpectedly")
        return "done"

    monkeypatch.setattr("livefeed.pool.THREADS", 1)
    assert await pool.run(use) == "done"
    if usable:  # then it was the job's own error, and no connection's
        with pytest.raises(OperationalError):
            await pool.run(use)
    else:
        assert await pool.run(use) == "done"
    assert len(wrappers) == (2 if usable else 3)
    pool.close()
    await eventually(lambda: not pool_threads(), "the threads have ended")


async def test_closing_the_pool_closes_the_connections_of_all_its_threads(transactional_db: None) -> None:
    pool, wrappers = Pool(), []
    together = threading.Barrier(THREADS)

    def use() -> None:
        together.wait(LIMIT)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        wrappers.append(connections["default"])

    await asyncio.gather(*(pool.run(use) for _ in range(THREADS)))
    assert all(wrapper.connection is not None for wrapper in wrappers)
    pool.close()
    await eventually(lambda: not pool_threads(), "the threads have ended")
    assert [wrapper.connection for wrapper in wrappers] == [None] * THREADS


async def test_a_chore_is_repeated_although_it_fails_which_is_logged_until_it_works_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done, enough = itertools.count(1), asyncio.Event()

    async def work() -> None:
        number = next(done)
        if number == 10:
            enough.set()
        if number not in {4, 5}:
            raise ValueError("nearly every time")

    chore = asyncio.ensure_future(repeat("The test", 0.001, work))
    await asyncio.wait_for(enough.wait(), LIMIT)
    chore.cancel()
    with pytest.raises(asyncio.CancelledError):
        await chore
    assert caplog.text.count("The test failed; it is repeated.") == 2
    assert caplog.text.count("The test works again.") == 1


async def test_a_layer_that_hangs_delays_neither_a_new_topic_nor_the_look(
    hub: Hub, settings: Any, layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_LOOK_INTERVAL = 0.01
    joined: list[str] = []

    async def hang(group: str, channel: str) -> None:
        joined.append(group)
        await asyncio.Event().wait()

    monkeypatch.setattr(layer, "group_add", hang)
    monkeypatch.setattr(membership, "JOIN_SECONDS", 0.01)
    readers = [await subscribe(hub, f"t{number}") for number in range(5)]
    monkeypatch.setattr(membership, "JOIN_SECONDS", 3600.0)
    for number in range(5):
        append(f"t{number}", 1)
    assert [numbers(parse(await woken(reader))) for reader in readers] == [[1]] * 5
    assert len(joined) >= 5
