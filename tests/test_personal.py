"""Feeds that show different things to different viewers: each gets just its own, in order, nothing of the others'.

The streams here read a real hub on the history in memory; the hooks note who is asked for, and in which thread.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.template import RequestContext, Template
from django.test import AsyncClient, RequestFactory
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from livefeed import LiveFeed, pages, personal, personal_streams, snapshots, tail, window
from livefeed import hub as hub_module
from livefeed.cursors import NONE_YET, Position, entry, parse_cursor
from livefeed.events import Event, Stretch, new_event
from livefeed.history import History, get_history
from livefeed.history import cursor as cursor_of
from livefeed.hub import Hub
from livefeed.personal import Asker, Question, answer, encode, seen
from livefeed.personal_streams import PersonalStream, PersonalSubscription
from livefeed.registry import registry
from livefeed.roster import Roster
from livefeed.sse import KEEP_ALIVE
from livefeed.streams import EventStream, place
from livefeed.tail import Subscription
from livefeed.testing import ServerSentEvent, open_stream
from livefeed.viewers import Viewer
from tests.reading import LIMIT, append, eventually, fleeting, numbers, parse
from tests.testapp.models import Article

pytest_plugins = ["tests.reading_fixtures", "tests.steps_fixtures"]

Rule = Callable[[Any, Event], Any]
TOPIC = "mine"
ANN, BOB = User(pk=1, username="ann"), User(pk=2, username="bob")


def feed(rule: Rule, name: str = TOPIC, **more: Any) -> type[LiveFeed]:
    """Return a feed that shows what a rule says."""
    return type("MineFeed", (LiveFeed,), {"name": name, "public": True, "get_data_for": _hook(rule), **more})


def _hook(rule: Rule) -> Any:
    return lambda self, user, event: rule(user, event)


def for_whom(user: Any, event: Event) -> Any:
    """Show what is for a user (``{"n": …}``, by who it is for, or for all), and whose it is."""
    data = event.data
    allowed = data.get("for", user.username)
    return {"n": data["n"], "whose": user.username} if allowed == user.username else None


def even(user: Any, event: Event) -> Any:
    return event.data if event.data["n"] % 2 == 0 else None


def nothing(user: Any, event: Event) -> Any:
    return None


@pytest.fixture
async def hub(memory: History, new_hub: Callable[..., Hub]) -> Hub:
    """A hub that encodes as the site's own does."""
    return new_hub(encode)


@pytest.fixture
def asker(hub: Hub) -> Asker:
    return Asker(hub.pool)


class Reader:
    """A stream in the hands of a test, and what came out of it."""

    def __init__(self, stream: EventStream, subscription: Subscription) -> None:
        self.stream = stream
        self.subscription = subscription
        self.raw = b""
        self.chunks: list[bytes] = []

    async def next(self) -> bytes:
        """Return the next chunk."""
        async with asyncio.timeout(LIMIT):
            chunk = await anext(self.stream)
        self.raw += chunk
        self.chunks.append(chunk)
        return chunk

    async def until_quiet(self) -> list[ServerSentEvent]:
        """Read until a keep-alive is all there is to write, and nothing is in work; return all that came."""
        while True:
            self.stream.keep_alive()
            chunk = await self.next()
            await asyncio.sleep(0)
            at_end = [(p.epoch, p.seq) for p in self.subscription.positions] == [
                (t.epoch, t.head) for t in self.subscription.tails
            ]
            if chunk == KEEP_ALIVE and at_end and getattr(self.stream, "_batch", None) is None:
                return self.events

    @property
    def events(self) -> list[ServerSentEvent]:
        return parse(self.raw)

    @property
    def ns(self) -> list[int]:
        return numbers(self.events)


async def connect(
    hub: Hub,
    asker: Asker,
    user: Any,
    *topics: str,
    cursor: str = "",
    session: str | None = None,
    personal: bool = True,
) -> Reader:
    """Return a reader of personal topics, past its opening."""
    topics = topics or (TOPIC,)
    kind = PersonalSubscription if personal else Subscription
    since = parse_cursor(cursor) if cursor else None
    subscription, reasons = await place(hub, topics, since, garbage=False, kind=kind)
    assert not reasons
    make: Any = PersonalStream if personal else EventStream
    more: Any = {"asker": asker} if personal else {}
    viewer = Viewer(user, session, "127.0.0.1")
    names = {topic: topic for topic in topics}
    stream = make(hub, subscription, b"", viewer=viewer, names=names, lease="", on_end=lambda _: None, **more)
    return Reader(stream, subscription)


def bring(hub: Hub, *stretches: Stretch) -> None:
    for stretch in stretches:
        hub.receive(stretch)


def publish(hub: Hub, *datas: Any, topic: str = TOPIC, type: str = "message") -> None:
    """Append events to the history, and let the layer bring them."""
    bring(hub, *get_history().append([new_event(topic, data, type) for data in datas]))


class Gate:
    """A rule that waits in its thread until it may go on."""

    def __init__(self, rule: Rule = for_whom) -> None:
        self.rule = rule
        self.asked = threading.Event()
        self.open = threading.Event()

    def __call__(self, user: Any, event: Event) -> Any:
        self.asked.set()
        assert self.open.wait(LIMIT)
        return self.rule(user, event)

    async def reached(self) -> None:
        await eventually(self.asked.is_set, "the hook was asked")


# -- who sees what ----------------------------------------------------------------------------------------------------


async def test_two_viewers_of_one_topic_get_their_own_in_bursts_and_nothing_of_each_other_s(
    hub: Hub, asker: Asker, with_feed: Any
) -> None:
    with_feed(feed(for_whom))
    readers = {user.username: await connect(hub, asker, user) for user in (ANN, BOB)}
    for start in range(0, 60, 6):
        publish(hub, *({"n": n, "for": "ann", "secret": "ANN-ONLY"} for n in (start, start + 1)), {"n": start + 2})
        await asyncio.sleep(0)
        publish(hub, *({"n": n, "for": "bob", "secret": "BOB-ONLY"} for n in (start + 3, start + 4)), {"n": start + 5})
        for reader in readers.values():
            await reader.next()
    for name, offsets in {"ann": {0, 1, 2, 5}, "bob": {2, 3, 4, 5}}.items():
        reader = readers[name]
        await reader.until_quiet()
        assert reader.ns == [n for n in range(60) if n % 6 in offsets]
        assert {event.json["whose"] for event in reader.events if not event.type.startswith("livefeed-")} == {name}
        assert b"ONLY" not in reader.raw


async def test_what_is_hidden_moves_the_position_without_a_word_and_the_next_id_covers_it(
    hub: Hub, asker: Asker, with_feed: Any
) -> None:
    with_feed(feed(even))
    reader = await connect(hub, asker, ANN)
    waiting = asyncio.ensure_future(reader.next())
    await asyncio.sleep(0)
    publish(hub, {"n": 1}, {"n": 3})
    await eventually(lambda: reader.subscription.positions[0].seq == 2, "the position has moved on")
    assert not waiting.done()
    publish(hub, {"n": 5}, {"n": 6})
    chunk = await waiting
    position = Position(hub.tails[TOPIC].epoch, 4)
    assert chunk == b'id: %s\ndata: {"n":6}\n\n' % entry(TOPIC, position).encode()


async def test_a_sync_takes_the_place_of_the_next_keep_alive_once(hub: Hub, asker: Asker, with_feed: Any) -> None:
    with_feed(feed(even))
    reader = await connect(hub, asker, ANN)
    publish(hub, {"n": 0})
    assert numbers(parse(await reader.next())) == [0]
    waiting = asyncio.ensure_future(reader.next())
    await asyncio.sleep(0)
    publish(hub, {"n": 1}, {"n": 3})
    await eventually(lambda: reader.subscription.positions[0].seq == 3, "the position has moved on")
    reader.stream.keep_alive()
    cursor = entry(TOPIC, Position(hub.tails[TOPIC].epoch, 3)).encode()
    assert await waiting == b'id: %s\nevent: livefeed-sync\ndata: {"cursor":"%s"}\n\n' % (cursor, cursor)
    reader.stream.keep_alive()
    assert await reader.next() == KEEP_ALIVE


async def test_who_comes_back_with_the_cursor_of_a_sync_is_asked_for_none_of_the_hidden_events_again(
    hub: Hub, asker: Asker, with_feed: Any
) -> None:
    asked: list[int] = []

    def hide(user: Any, event: Event) -> None:
        asked.append(event.data["n"])

    with_feed(feed(hide))
    cursor = cursor_of(TOPIC)
    for ns in ([0, 1, 2], [3, 4], [5, 6, 7]):
        reader = await connect(hub, asker, ANN, cursor=cursor)
        publish(hub, *({"n": n} for n in ns))
        events = await reader.until_quiet()
        assert asked == ns
        assert {event.type for event in events} == {"livefeed-sync"}
        cursor = events[-1].id
        assert cursor == events[-1].json["cursor"] == cursor_of(TOPIC)
        await reader.stream.aclose()
        asked.clear()


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_replay_that_ends_in_hidden_events_says_at_once_how_far_it_came(
    hub: Hub, asker: Asker, with_feed: Any, forgotten: bool
) -> None:
    """From the tail, and from the history."""
    with_feed(feed(even))
    cursor = cursor_of(TOPIC)
    first = await connect(hub, asker, ANN)
    publish(hub, *({"n": n} for n in (0, 1, 2, 3, 5)))
    if forgotten:
        await hub._close_tail(TOPIC)
    reader = await connect(hub, asker, ANN, cursor=cursor)
    *visible, last = parse(await reader.next())
    assert numbers(visible) == [0, 2]
    assert (last.type, last.id) == ("livefeed-sync", cursor_of(TOPIC))
    await first.stream.aclose()


async def test_a_long_replay_of_hidden_events_gets_on_however_often_it_is_cut(
    hub: Hub, asker: Asker, with_feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PAGE_EVENTS", 10)
    with_feed(feed(nothing))
    cursor = entry(TOPIC, NONE_YET)
    append(TOPIC, *range(95))
    for _ in range(10):
        reader = await connect(hub, asker, ANN, cursor=cursor)
        (event,) = parse(await reader.next())
        assert event.type == "livefeed-sync"
        cursor = event.id
        await reader.stream.aclose()
    assert cursor == cursor_of(TOPIC)


async def test_a_viewer_who_changes_is_asked_for_as_they_are_now(hub: Hub, asker: Asker, with_feed: Any) -> None:
    with_feed(feed(lambda user, event: event.data if user.is_staff else None))
    reader = await connect(hub, asker, User(pk=1, is_staff=True))
    publish(hub, {"n": 1})
    await reader.next()
    reader.stream.viewer = replace(reader.stream.viewer, user=User(pk=1, is_staff=False))
    publish(hub, {"n": 2})
    await reader.until_quiet()
    reader.stream.viewer = replace(reader.stream.viewer, user=User(pk=1, is_staff=True))
    publish(hub, {"n": 3})
    await reader.next()
    assert reader.ns == [1, 3]


async def test_replayed_events_obey_today_s_rights(hub: Hub, asker: Asker, with_feed: Any) -> None:
    with_feed(feed(lambda user, event: event.data if user.is_staff else None))
    cursor = cursor_of(TOPIC)
    for is_staff in (True, False, True):
        reader = await connect(hub, asker, User(pk=1, is_staff=is_staff), cursor=cursor)
        if not hub.tails[TOPIC].head:
            publish(hub, {"n": 1}, {"n": 2})
        await reader.until_quiet()
        assert reader.ns == ([1, 2] if is_staff else [])
        await reader.stream.aclose()


async def test_topics_that_all_see_alike_share_a_connection_with_those_that_they_do_not(
    hub: Hub, asker: Asker, with_feed: Any
) -> None:
    with_feed(feed(even))
    reader = await connect(hub, asker, ANN, TOPIC, "plain")
    start = datetime(2030, 1, 1, tzinfo=UTC)
    for n in range(12):
        topic = (TOPIC, "plain")[n % 3 == 0]
        event = replace(new_event(topic, {"n": n}, "message"), created_at=start + timedelta(seconds=n))
        bring(hub, *get_history().append([event]))
    events = await reader.until_quiet()
    assert [(event.topic, event.json["n"]) for event in events if event.topic] == [
        ("plain" if n % 3 == 0 else TOPIC, n) for n in range(12) if n % 3 == 0 or n % 2 == 0
    ]
    assert parse_cursor(events[-1].id).positions(TOPIC) == [Position(hub.tails[TOPIC].epoch, 8)]


async def test_feeds_without_event_names_send_the_viewer_s_text_as_it_is(
    hub: Hub, asker: Asker, with_feed: Any
) -> None:
    with_feed(feed(lambda user, event: f"<b>{user.username}</b>\n{event.data['n']}", event_names=False))
    reader = await connect(hub, asker, ANN)
    publish(hub, {"n": 1}, type="anything")
    (event,) = parse(await reader.next())
    assert (event.type, event.data) == ("message", "<b>ann</b>\n1")


async def test_a_personal_stream_is_reset_as_any_other(hub: Hub, asker: Asker, with_feed: Any) -> None:
    with_feed(feed(even))
    reader = await connect(hub, asker, ANN, TOPIC, "plain")
    publish(hub, {"n": 0}, {"n": 1})
    publish(hub, {"n": 2}, topic="plain")
    await reader.until_quiet()
    get_history().renew_epoch([TOPIC])
    await hub.repair(hub.tails[TOPIC])
    publish(hub, {"n": 3}, topic="plain")
    await reader.until_quiet()
    publish(hub, {"n": 4}, {"n": 5})
    events = await reader.until_quiet()
    (reset,) = [event for event in events if event.type == "livefeed-reset"]
    assert (reset.json["topic"], reset.json["reason"]) == (TOPIC, "epoch")
    assert reset.id not in [event.id for event in events if event.type == "livefeed-sync"]
    assert reader.ns == [0, 2, 3, 4]
    assert events[-1].id == cursor_of(TOPIC, "plain")


# -- what is fleeting -------------------------------------------------------------------------------------------------


async def test_fleeting_events_are_each_viewer_s_own_too(hub: Hub, asker: Asker, with_feed: Any) -> None:
    with_feed(feed(for_whom))
    ann, bob = [await connect(hub, asker, user, TOPIC, "plain") for user in (ANN, BOB)]
    waiting = [asyncio.ensure_future(reader.next()) for reader in (ann, bob)]
    await asyncio.sleep(0)
    bring(hub, fleeting(TOPIC, {"n": 1, "for": "ann"}), fleeting(TOPIC, {"n": 2}))
    await asyncio.gather(*waiting)
    assert ann.raw == (
        b'topic: mine\nevent: typing\ndata: {"n":1,"whose":"ann"}\n\n'
        b'topic: mine\nevent: typing\ndata: {"n":2,"whose":"ann"}\n\n'
    )
    assert bob.raw == b'topic: mine\nevent: typing\ndata: {"n":2,"whose":"bob"}\n\n'


async def test_fleeting_events_that_come_while_a_hook_is_at_work_are_dropped(
    hub: Hub, asker: Asker, with_feed: Any
) -> None:
    gate = Gate()
    with_feed(feed(gate))
    reader = await connect(hub, asker, ANN)
    waiting = asyncio.ensure_future(reader.next())
    await asyncio.sleep(0)
    publish(hub, {"n": 1})
    await gate.reached()
    for n in range(100):
        bring(hub, fleeting(TOPIC, {"n": n}))
    await eventually(lambda: not hub._flusher._flushing, "the flush is over")
    subscription: Any = reader.subscription
    assert subscription.offered == []
    gate.open.set()
    await waiting
    await reader.until_quiet()
    assert reader.ns == [1]


async def test_what_is_fleeting_does_not_put_off_the_sync_for_ever(
    hub: Hub, asker: Asker, with_feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_feed(feed(lambda user, event: event.data if event.seq is None else None))
    reader = await connect(hub, asker, ANN)
    now = 100.0
    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "time", lambda: now)
        for step in range(12):
            waiting = asyncio.ensure_future(reader.next())
            await asyncio.sleep(0)
            publish(hub, {"n": step})
            hub._flusher._not_before = 0.0
            await eventually_at(lambda step=step: reader.subscription.positions[0].seq == step + 1)
            bring(hub, fleeting(TOPIC, {"n": step}))
            hub._flusher._not_before = 0.0
            await waiting
            now += 4.0
    told = [index for index, chunk in enumerate(reader.chunks) if b"livefeed-sync" in chunk]
    assert told == [4, 9]


async def eventually_at(condition: Callable[[], bool]) -> None:
    """Wait turn by turn: for a loop whose clock stands still."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("never so")


# -- asking -----------------------------------------------------------------------------------------------------------


class Noting:
    """A rule that notes who was asked for what, in which thread."""

    def __init__(self, rule: Rule = for_whom) -> None:
        self.rule = rule
        self.asked: list[tuple[str, int]] = []
        self.threads: set[str] = set()

    def __call__(self, user: Any, event: Event) -> Any:
        self.asked.append((user.username, event.data["n"]))
        self.threads.add(threading.current_thread().name)
        return self.rule(user, event)


async def test_what_one_flush_sets_off_is_one_job_and_a_user_with_five_tabs_is_asked_for_once(
    hub: Hub, asker: Asker, with_feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting = Noting()
    with_feed(feed(noting))
    readers = [await connect(hub, asker, user, session=user.username) for user in (ANN, BOB) for _ in range(5)]
    waiting = [asyncio.ensure_future(reader.next()) for reader in readers]
    await asyncio.sleep(0)
    jobs: list[Any] = []
    run = hub.pool.run

    async def noted(job: Any, *args: Any) -> Any:
        jobs.append(job)
        return await run(job, *args)

    monkeypatch.setattr(hub.pool, "run", noted)
    publish(hub, {"n": 1}, {"n": 2})
    await asyncio.gather(*waiting)
    assert jobs == [answer]
    assert sorted(noting.asked) == [("ann", 1), ("ann", 2), ("bob", 1), ("bob", 2)]
    assert all(name.startswith("livefeed_") for name in noting.threads)
    assert [reader.ns for reader in readers] == [[1, 2]] * 10


async def test_a_user_who_is_signed_in_twice_is_asked_for_twice(hub: Hub, asker: Asker, with_feed: Any) -> None:
    """What a site knows of a user may hang on the session: a second factor, a tenant."""
    noting = Noting()
    with_feed(feed(noting))
    readers = [await connect(hub, asker, ANN, session=session) for session in ("one", "other")]
    waiting = [asyncio.ensure_future(reader.next()) for reader in readers]
    await asyncio.sleep(0)
    publish(hub, {"n": 1})
    await asyncio.gather(*waiting)
    assert noting.asked == [("ann", 1)] * 2


async def test_of_several_tabs_the_user_who_was_read_last_is_asked_for(hub: Hub, asker: Asker, with_feed: Any) -> None:
    with_feed(feed(lambda user, event: event.data if user.is_staff else None))
    readers = [await connect(hub, asker, User(pk=1, is_staff=is_staff)) for is_staff in (True, True, False)]
    waiting = [asyncio.ensure_future(reader.next()) for reader in readers]
    await asyncio.sleep(0)
    publish(hub, {"n": 1})
    await eventually(lambda: all(reader.subscription.positions[0].seq == 1 for reader in readers), "all have moved on")
    assert not any(each.done() for each in waiting)
    for reader in readers:
        reader.stream.say_goodbye("shutdown")
    await asyncio.gather(*waiting)


async def test_a_hook_may_be_async(hub: Hub, asker: Asker, with_feed: Any) -> None:
    async def rule(user: Any, event: Event) -> Any:
        await asyncio.sleep(0)
        return for_whom(user, event)

    with_feed(feed(rule))
    reader = await connect(hub, asker, ANN)
    publish(hub, {"n": 1, "for": "bob"}, {"n": 2})
    await reader.until_quiet()
    assert reader.ns == [2]


def question(user: Any, *events: Event, limit: int = 1000, number: int = 0) -> Question:
    return Question(Viewer(user, None, "127.0.0.1"), events, limit, number)


async def test_a_job_that_takes_too_long_brings_what_it_has_and_those_who_ask_the_same_go_on_with_it(
    with_feed: Any,
) -> None:
    noting = Noting()
    with_feed(feed(noting))
    found = [new_event(TOPIC, {"n": n}, "message") for n in range(5)]
    ticks = iter([0.0, 0.01, 0.02, 9.0, 9.0, 9.0, 9.0])
    answers = answer([question(ANN, *found), question(ANN, *found), question(BOB, *found)], lambda: next(ticks))
    assert [len(frames) for frames in answers] == [3, 3, 0]
    assert noting.asked == [("ann", 0), ("ann", 1), ("ann", 2)]


async def test_a_job_always_answers_something(with_feed: Any) -> None:
    with_feed(feed(for_whom))
    ticks = iter([0.0, 9.0, 9.0])
    (frames,) = answer([question(ANN, *(new_event(TOPIC, {"n": n}, "message") for n in range(3)))], lambda: next(ticks))
    assert len(frames) == 1


async def test_portions_are_delivered_as_they_come_and_nothing_is_lost_between_them(
    hub: Hub, asker: Asker, with_feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(personal, "PORTION_SECONDS", -1.0)  # one new answer in each job
    with_feed(feed(even))
    readers = [await connect(hub, asker, User(pk=pk, username=str(pk))) for pk in range(1, 5)]
    publish(hub, *({"n": n} for n in range(40)))
    await asyncio.gather(*(reader.until_quiet() for reader in readers))
    assert [reader.ns for reader in readers] == [list(range(0, 40, 2))] * 4


async def test_what_a_hook_makes_large_is_sent_in_chunks(hub: Hub, asker: Asker, with_feed: Any) -> None:
    with_feed(feed(lambda user, event: {"n": event.data["n"], "text": "x" * 30_000}))
    reader = await connect(hub, asker, ANN)
    publish(hub, *({"n": n} for n in range(50)))
    await reader.until_quiet()
    assert reader.ns == list(range(50))
    assert max(map(len, reader.chunks)) <= tail.CHUNK_BYTES + 31_000


async def test_a_batch_is_one_chunk_of_events_at_most(
    hub: Hub, asker: Asker, with_feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short what the hook makes of them is: so much and no more is in work for one stream."""
    sizes: list[int] = []
    ask = asker.ask

    def noted(question: Question) -> None:
        sizes.append(sum(event.size for event in question.events))
        ask(question)

    monkeypatch.setattr(asker, "ask", noted)
    with_feed(feed(lambda user, event: {"n": event.data["n"]}))
    reader = await connect(hub, asker, ANN)
    publish(hub, *({"n": n, "text": "x" * 10_000} for n in range(60)))
    await reader.until_quiet()
    assert reader.ns == list(range(60))
    assert max(sizes) <= tail.CHUNK_BYTES + 11_000


# -- hooks that fail --------------------------------------------------------------------------------------------------


def failing(user: Any, event: Event) -> Any:
    if event.data["n"] % 2:
        raise PermissionDenied(f"not {event.data['secret']}")
    return {"n": event.data["n"]}


def unwritable(user: Any, event: Event) -> Any:
    return {"n": event.data["n"], **({"object": {event.data["secret"]}} if event.data["n"] % 2 else {})}


def too_large(user: Any, event: Event) -> Any:
    return {"n": event.data["n"], **({"text": event.data["secret"] * 300_000} if event.data["n"] % 2 else {})}


def cancelled(user: Any, event: Event) -> Any:
    if event.data["n"] % 2:
        raise asyncio.CancelledError
    return {"n": event.data["n"]}


@pytest.mark.parametrize("rule", [failing, unwritable, too_large, cancelled])
async def test_what_a_hook_fails_at_is_hidden_and_told_of_once_without_its_data(
    hub: Hub, asker: Asker, with_feed: Any, caplog: pytest.LogCaptureFixture, rule: Rule
) -> None:
    with_feed(feed(rule))
    readers = [await connect(hub, asker, user) for user in (ANN, BOB)]
    publish(hub, *({"n": n, "secret": "HUSH"} for n in range(4)))
    for reader in readers:
        await reader.until_quiet()
        assert reader.ns == [0, 2]
    own = [record.getMessage() for record in caplog.records if record.name == "livefeed.personal"]
    assert len(own) == 2
    assert all("MineFeed.get_data_for" in message and "of mine is hidden" in message for message in own)
    assert "HUSH" not in caplog.text


def test_a_hook_that_fails_is_told_of_with_the_place_where_it_did(
    with_feed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with_feed(feed(failing))
    assert seen(ANN, new_event(TOPIC, {"n": 1, "secret": "HUSH"}, "message")) is None
    assert "PermissionDenied" in caplog.text
    assert "in failing" in caplog.text


def test_only_so_many_failures_are_remembered(with_feed: Any) -> None:
    with_feed(feed(failing))
    for _ in range(personal.REMEMBERED + 10):
        seen(ANN, new_event(TOPIC, {"n": 1, "secret": ""}, "message"))
    assert len(personal._complained) == personal.REMEMBERED


class Breaking:
    """A rule that asks a database whose connection breaks at the first few questions."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, user: Any, event: Event) -> Any:
        with connections["postgres"].cursor() as cursor:
            if self.times:
                self.times -= 1
                cursor.execute("SELECT 1")
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            cursor.execute("SELECT 1")
        return event.data


@pytest.mark.parametrize("server", [pytest.param("postgres", marks=pytest.mark.needs("postgres"))], indirect=True)
async def test_a_database_connection_that_broke_hides_nothing(
    server: str, hub: Hub, asker: Asker, with_feed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is done once more with a new connection, as every job of the pool."""
    rule = Breaking(times=0)
    with_feed(feed(rule))
    reader = await connect(hub, asker, ANN)
    publish(hub, {"n": 0})
    await reader.next()
    await hub.pool.run(_break_connection)
    publish(hub, *({"n": n} for n in range(1, 8)))
    await reader.until_quiet()
    assert reader.ns == list(range(8))
    assert "hidden" not in caplog.text


def _break_connection() -> None:
    for connection in connections.all(initialized_only=True):
        if connection.alias == "postgres" and connection.connection is not None:
            connection.connection.close()


@pytest.mark.parametrize("server", [pytest.param("postgres", marks=pytest.mark.needs("postgres"))], indirect=True)
async def test_a_database_that_is_away_ends_the_stream_and_hides_nothing(
    server: str, hub: Hub, asker: Asker, with_feed: Any
) -> None:
    """Whoever comes back gets what nobody could be asked about."""
    rule = Breaking(times=10)
    with_feed(feed(rule))
    reader = await connect(hub, asker, ANN)
    publish(hub, {"n": 1})
    with pytest.raises(StopAsyncIteration):
        await reader.next()
    assert reader.subscription.positions[0].seq == 0
    rule.times = 0
    again = await connect(hub, asker, ANN, cursor=reader.subscription.cursor)
    await again.until_quiet()
    assert again.ns == [1]


@pytest.mark.django_db
def test_a_statement_of_the_hook_s_own_that_fails_is_the_hook_s_failure(
    with_feed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def rule(user: Any, event: Event) -> Any:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT * FROM there_is_no_such_table")

    with_feed(feed(rule))
    assert seen(ANN, new_event(TOPIC, {"n": 1}, "message")) is None
    assert "MineFeed.get_data_for failed with" in caplog.text


# -- slow hooks -------------------------------------------------------------------------------------------------------


async def test_a_slow_hook_holds_up_no_stream_of_another_kind(hub: Hub, asker: Asker, with_feed: Any) -> None:
    gate = Gate()
    with_feed(feed(gate))
    slow = [await connect(hub, asker, User(pk=pk, username=str(pk))) for pk in range(1, 20)]
    waiting = []
    for number, reader in enumerate(slow):  # one after the other, so that every job that may begin has begun
        waiting.append(asyncio.ensure_future(reader.next()))
        publish(hub, {"n": number})
        await asyncio.sleep(0)
    await gate.reached()
    other = await connect(hub, asker, ANN, "plain", personal=False)
    publish(hub, *({"n": n} for n in range(3)), topic="plain")
    await other.next()
    hub.tails["plain"].forget_older_half()
    hub.tails["plain"].forget_older_half()
    late = await connect(hub, asker, ANN, "plain", cursor=entry("plain", NONE_YET), personal=False)
    assert numbers(parse(await late.next())) == [0, 1, 2]  # the history is read: a thread is left for that
    assert other.ns == [0, 1, 2]
    gate.open.set()
    await asyncio.gather(*waiting)
    for reader in slow:
        await reader.until_quiet()
        assert reader.ns == list(range(len(slow)))[-len(reader.ns) :]


async def test_a_stream_is_kept_alive_while_its_hook_is_at_work(hub: Hub, asker: Asker, with_feed: Any) -> None:
    gate = Gate()
    with_feed(feed(gate))
    reader = await connect(hub, asker, ANN)
    waiting = asyncio.ensure_future(reader.next())
    await asyncio.sleep(0)
    publish(hub, {"n": 1})
    await gate.reached()
    reader.stream.keep_alive()
    assert await waiting == KEEP_ALIVE
    waiting = asyncio.ensure_future(reader.next())
    gate.open.set()
    assert numbers(parse(await waiting)) == [1]


async def test_a_stream_that_loses_its_right_while_its_hook_is_at_work_says_goodbye_and_shows_nothing(
    hub: Hub, asker: Asker, with_feed: Any
) -> None:
    gate = Gate()
    with_feed(feed(gate))
    reader = await connect(hub, asker, ANN)
    waiting = asyncio.ensure_future(reader.next())
    await asyncio.sleep(0)
    publish(hub, {"n": 1})
    await gate.reached()
    reader.stream.say_goodbye("revoked")
    assert b"livefeed-closing" in await waiting
    gate.open.set()
    with pytest.raises(StopAsyncIteration):
        await reader.next()
    assert reader.ns == []


@pytest.mark.parametrize("rule", [for_whom, failing])
async def test_a_stream_that_ends_while_its_hook_is_at_work_leaves_nothing_behind(
    hub: Hub, asker: Asker, with_feed: Any, caplog: pytest.LogCaptureFixture, rule: Rule
) -> None:
    gate = Gate(rule)
    with_feed(feed(gate))
    reader, other = await connect(hub, asker, ANN), await connect(hub, asker, BOB)
    waiting = [asyncio.ensure_future(each.next()) for each in (reader, other)]
    await asyncio.sleep(0)
    publish(hub, {"n": 2})
    await gate.reached()
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    await reader.stream.aclose()
    assert reader.subscription not in hub.tails[TOPIC].readers
    gate.open.set()
    assert numbers(parse(await waiting[1])) == [2]
    await other.stream.aclose()
    await eventually(lambda: not asker._jobs and not asker._waiting, "no job is left")
    assert not hub.tails[TOPIC].readers
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_questions_of_streams_that_ended_are_not_asked(hub: Hub, asker: Asker, with_feed: Any) -> None:
    noting = Noting()
    with_feed(feed(noting))
    reader = await connect(hub, asker, ANN)
    waiting = asyncio.ensure_future(reader.next())
    await asyncio.sleep(0)
    publish(hub, {"n": 1})
    await eventually_at(lambda: bool(asker._waiting))
    waiting.cancel()
    await reader.stream.aclose()
    await eventually_at(lambda: not asker._begins)
    assert (noting.asked, asker._jobs) == ([], set())


# -- memory -----------------------------------------------------------------------------------------------------------


async def test_events_that_are_kept_for_personal_topics_count_in_the_budget(hub: Hub, with_feed: Any) -> None:
    with_feed(feed(for_whom))
    (found,) = await hub.open([TOPIC])
    for data in ({"n": 1, "text": "x" * 1000}, {"n": 2, "text": "€" * 1000}):
        before = hub._budget.used
        publish(hub, data)
        assert hub._budget.used - before >= len(data["text"]) * (1 if data["text"].isascii() else 2)
    hub._budget.limit = 1000
    publish(hub, *({"n": n} for n in range(10)))
    assert hub._budget.used <= 1000
    found.forget_older_half()
    found.restart(NONE_YET)
    assert hub._budget.used == 0


# -- every rule, every cut --------------------------------------------------------------------------------------------


class Story(NamedTuple):
    """What is published, who sees what of it, and how small everything is."""

    topics: list[int]
    hidden: dict[str, set[int]]
    chunk: int
    page: int
    batch: int
    tail: int
    bursts: list[int]


stories = st.builds(
    Story,
    topics=st.lists(st.integers(0, 2), min_size=1, max_size=14),
    hidden=st.fixed_dictionaries({name: st.sets(st.integers(0, 13)) for name in ("ann", "bob")}),
    chunk=st.sampled_from([1, 60, 65_536]),
    page=st.sampled_from([1, 3, 200]),
    batch=st.sampled_from([1, 2, 200]),
    tail=st.sampled_from([1, 1500, 1_000_000]),
    bursts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
)
TOPICS = [TOPIC, f"{TOPIC}:more", "plain"]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(story=stories)
def test_whatever_is_hidden_each_viewer_gets_just_their_own_and_comes_back_from_any_id(
    memory: Any, layer: Any, with_feed: Any, monkeypatch: pytest.MonkeyPatch, story: Story
) -> None:
    for module in (window, tail, personal_streams):
        monkeypatch.setattr(module, "CHUNK_BYTES", story.chunk)
    monkeypatch.setattr(hub_module, "PAGE_EVENTS", story.page)
    monkeypatch.setattr(personal_streams, "BATCH_EVENTS", story.batch)
    memory._topics.clear()
    mine = feed(lambda user, event: None if event.data["n"] in story.hidden[user.username] else for_whom(user, event))
    registry.add(mine)
    try:
        asyncio.run(_live_and_again(story))
    finally:
        registry.remove(mine)


async def _live_and_again(story: Story) -> None:
    hub = Hub(encode)
    hub._budget.limit = story.tail
    asker = Asker(hub.pool)
    try:
        readers = {user.username: await connect(hub, asker, user, *TOPICS) for user in (ANN, BOB)}
        beginning = {name: reader.subscription.cursor for name, reader in readers.items()}
        for burst in _bursts(story):
            bring(hub, *burst)
            for reader in readers.values():
                await reader.until_quiet()
        for name, reader in readers.items():
            told = [(event.topic, event.json["n"], event.id) for event in reader.events if "n" in event.json]
            expected = [n for n, topic in enumerate(story.topics) if topic == 2 or n not in story.hidden[name]]
            for index in range(3):
                own = [n for topic, n, _ in told if topic == TOPICS[index]]
                assert own == [n for n in expected if story.topics[n] == index]
            user = {"ann": ANN, "bob": BOB}[name]
            for cut in [beginning[name], *dict.fromkeys(event.id for event in reader.events)]:
                await _comes_back(hub, asker, user, cut, story, expected)
    finally:
        await hub.stop()


def _bursts(story: Story) -> Iterator[list[Stretch]]:
    waiting = [(n, TOPICS[topic]) for n, topic in enumerate(story.topics)]
    sizes = iter(story.bursts * len(waiting))
    while waiting:
        size = next(sizes)
        now, waiting = waiting[:size], waiting[size:]
        yield get_history().append([new_event(topic, {"n": n}, "message") for n, topic in now])


async def _comes_back(hub: Hub, asker: Asker, user: Any, cursor: str, story: Story, expected: Sequence[int]) -> None:
    """Whoever comes back with an id gets what follows it, whichever block it was of, and no more."""
    again = await connect(hub, asker, user, *TOPICS, cursor=cursor)
    events = await again.until_quiet()
    for index, topic in enumerate(TOPICS):
        (position,) = parse_cursor(cursor).positions(topic)
        behind = [n for n, of in enumerate(story.topics) if of == index][position.seq :]
        got = [event.json["n"] for event in events if event.topic == topic]
        assert got == [n for n in behind if n in expected]
    if events:
        assert events[-1].id == again.subscription.cursor
    await again.stream.aclose()


# -- the other doors --------------------------------------------------------------------------------------------------


@pytest.fixture
async def people(transactional_db: None) -> AsyncIterator[dict[str, User]]:
    return {name: await User.objects.acreate_user(name, is_staff=name == "staff") for name in ("staff", "clerk")}


def margins(user: Any, event: Event) -> Any:
    """Staff sees all; the others no margin, and nothing of what is secret."""
    data = event.data
    if user.is_staff:
        return data
    return None if data.get("title") == "secret" else {name: value for name, value in data.items() if name != "votes"}


def orders(**more: Any) -> type[LiveFeed]:
    return feed(margins, name="orders", model=Article, fields=["title", "votes"], **more)


async def test_a_whole_site_shows_each_user_their_own(
    roster: Roster, people: dict[str, User], with_feed: Any, settings: Any
) -> None:
    settings.LIVEFEED_KEEPALIVE = 0.2
    with_feed(orders())
    async with (
        open_stream("orders", user=people["staff"]) as staff,
        open_stream("orders", user=people["clerk"]) as clerk,
    ):
        await staff.next(), await clerk.next()
        article = await Article.objects.acreate(title="secret", votes=7)
        assert (await staff.next()).json == {"pk": article.pk, "title": "secret", "votes": 7}
        sync = await clerk.next()
        assert (sync.type, sync.json) == ("livefeed-sync", {"cursor": sync.id})
        article.title = "open"
        await article.asave()
        assert (await staff.next()).json["votes"] == 7
        assert (await clerk.next()).json == {"pk": article.pk, "title": "open"}
        pk = article.pk
        await article.adelete()
        assert [(await each.next()).json for each in (staff, clerk)] == [{"pk": pk}] * 2
    async with open_stream("orders", user=people["clerk"], cursor=sync.id) as clerk:
        await clerk.next()
        assert [event.type for event in await clerk.take(2)] == ["updated", "deleted"]


async def test_a_stream_of_shared_topics_is_none_of_these(roster: Roster, with_feed: Any) -> None:
    with_feed(feed(for_whom))
    async with open_stream("plain") as stream:
        await stream.next()
        assert [type(each) for each in roster._streams] == [EventStream]
    async with open_stream("plain", TOPIC) as stream:
        await stream.next()
        assert [type(each) for each in roster._streams] == [PersonalStream]


async def test_a_page_of_history_holds_what_its_reader_may_see_and_its_cursor_moves_on(
    roster: Roster, people: dict[str, User], with_feed: Any, async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LIMIT", 3)
    with_feed(orders())
    cursor = await sync_to_async(cursor_of)("orders")
    for title in ("one", "secret", "two", "secret", "secret", "secret", "three"):
        await Article.objects.acreate(title=title, votes=7)
    found: dict[str, list[Any]] = {}
    for name, user in people.items():
        await async_client.aforce_login(user)
        since, more, sizes = cursor, True, []
        found[name] = []
        while more:
            url = f"/livefeed/?topic=orders&since={since}"
            response = await async_client.get(url, headers={"accept": "application/json"})
            page = response.json()
            found[name] += [event["data"] for event in page["events"]]
            sizes.append(len(page["events"]))
            since, more = page["cursor"], page["more"]
        assert sizes == ([3, 3, 1] if name == "staff" else [2, 0, 1])
    assert [data["title"] for data in found["clerk"]] == ["one", "two", "three"]
    assert not any("votes" in data for data in found["clerk"])
    assert [data["votes"] for data in found["staff"]] == [7] * 7


def test_a_page_looks_at_so_many_events_and_no_more_however_many_are_hidden(
    memory: History, with_feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LIMIT", 3)
    noting = Noting(nothing)
    with_feed(feed(noting))
    topics = [TOPIC, f"{TOPIC}:more"]
    for topic in topics:
        append(topic, *range(3))
    since = parse_cursor(".".join(entry(topic, NONE_YET) for topic in topics))
    page, read = pages.history_page(topics, since, ANN)
    assert (len(noting.asked), page["events"], page["more"]) == (3, [], True)
    assert read == 6, "what was read counts, and not what was shown"


async def test_a_snapshot_is_its_viewer_s_own(
    roster: Roster, people: dict[str, User], with_feed: Any, async_client: AsyncClient
) -> None:
    with_feed(orders())
    for title in ("one", "secret", "two"):
        await Article.objects.acreate(title=title, votes=7777)
    for name, user in people.items():
        await async_client.aforce_login(user)
        text = (await async_client.get("/livefeed/?topic=orders", headers={"accept": "text/html"})).content.decode()
        assert ("secret" in text, "7777" in text, "one" in text) == (name == "staff", name == "staff", True)


def render(user: Any, tag: str = '{% livefeed "orders" %}') -> str:
    request = RequestFactory().get("/")
    request.user = user
    return Template("{% load livefeed %}" + tag).render(RequestContext(request))


@pytest.mark.django_db
def test_the_first_items_are_their_viewer_s_own_and_the_blank_one_has_no_values(with_feed: Any) -> None:
    with_feed(orders())
    Article.objects.create(title="secret", votes=7777)
    Article.objects.create(title="one", votes=7777)
    staff, clerk = User(pk=1, is_staff=True), User(pk=2)
    assert ("secret" in render(staff), "7777" in render(staff)) == (True, True)
    text = render(clerk)
    assert ("secret" in text, "7777" in text, "one" in text) == (False, False, True)
    assert "votes" not in text
    blank = render(staff).partition("<template>")[2]
    assert '<span data-field="votes"></span>' in blank
    assert "7777" not in blank
    assert "secret" not in blank


@pytest.mark.django_db
def test_a_widget_is_filled_with_what_its_viewer_may_see_though_much_is_hidden(with_feed: Any) -> None:
    with_feed(orders())
    Article.objects.bulk_create([Article(title=f"shown {n}") for n in range(3)])
    Article.objects.bulk_create([Article(title="secret") for n in range(10)])
    assert render(User(pk=2), '{% livefeed "orders" limit=3 %}').count("shown") == 3
    assert render(User(pk=1, is_staff=True), '{% livefeed "orders" limit=3 %}').count("secret") == 3


@pytest.mark.django_db
def test_the_blank_item_has_every_field_that_a_shown_one_has(with_feed: Any) -> None:
    def rule(user: Any, event: Event) -> Any:
        return event.data if event.data["title"] == "open" else {"title": "closed"}

    with_feed(feed(rule, name="orders", model=Article, fields=["title", "votes"]))
    Article.objects.create(title="open", votes=1)
    closed = Article.objects.create(title="anything", votes=1)
    text = render(ANN)
    assert (
        f'<article data-key="{closed.pk}" data-order="[{closed.pk}]"><span data-field="title">closed</span></article>'
        in text
    )
    assert 'data-field="votes"' in text.partition("<template>")[2]


@pytest.mark.django_db
def test_an_item_that_the_hook_makes_no_dict_of_is_hidden(with_feed: Any, caplog: pytest.LogCaptureFixture) -> None:
    with_feed(feed(lambda user, event: "HUSH", name="orders", model=Article, fields=["title"]))
    Article.objects.create(title="one")
    assert "data-key" not in str(snapshots.snapshot("orders", ANN))
    assert "MineFeed.get_data_for returned no dict" in caplog.text
    assert "HUSH" not in caplog.text


@pytest.mark.django_db
def test_a_hook_sees_an_item_as_an_event_that_has_no_number(with_feed: Any) -> None:
    asked: list[Event] = []

    def rule(user: Any, event: Event) -> Any:
        asked.append(event)
        return event.data

    with_feed(feed(rule, name="orders", model=Article, fields=["title"]))
    article = Article.objects.create(title="one")
    snapshots.snapshot("orders", AnonymousUser())
    (event,) = asked
    assert (event.topic, event.type, event.seq, event.data) == (
        "orders",
        "created",
        None,
        {"pk": article.pk, "title": "one"},
    )


def test_by_default_everybody_sees_what_was_published() -> None:
    plain: Any = registry.owner("plain")
    event = new_event("plain", {"n": 1}, "tick")
    assert not plain.is_personal
    assert plain.get_data_for(ANN, event) == {"n": 1}
    assert seen(ANN, event) is event
